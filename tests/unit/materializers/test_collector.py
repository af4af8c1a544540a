"""The cycle collector leaves alone what was there, and still finds new cycles."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from materializers.collector import YOUNG_OBJECTS_MAX, keep_what_there_is


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


class _Node:
    other: _Node


def test_what_there_is_is_kept_and_new_cycles_are_found() -> None:
    keep_what_there_is()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold()[0] == YOUNG_OBJECTS_MAX
    node = _Node()
    node.other = node
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None
