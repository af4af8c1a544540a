"""Waiting for what another process does, for a while."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(holds: Callable[[], bool], what: Callable[[], str], within_s: float = 90.0) -> None:
    """Returns once ``holds`` does; the test fails with ``what`` if it does not in time."""
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s, what()
        time.sleep(0.05)
