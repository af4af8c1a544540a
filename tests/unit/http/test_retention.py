"""When the log's retention is about to take what no checkpoint holds."""

from __future__ import annotations

import pytest

from queryd.retention import PartitionFacts, judge

DAY_MS = 86_400_000


def _facts(start: int, end: int, committed: int | None, old: int | None = None) -> PartitionFacts:
    return PartitionFacts("tidal.signals", 3, start, end, committed, old)


@pytest.mark.parametrize(
    "facts",
    [
        _facts(0, 100, 100, 50),
        _facts(0, 100, 60, 50),
        _facts(100, 100, 100, 100),
        _facts(0, 100, None, 50),
        _facts(90, 190, 105),
    ],
)
def test_a_checkpoint_that_keeps_up_is_not_warned_of(facts: PartitionFacts) -> None:
    assert judge(facts, DAY_MS, 1_000_000) is None


def test_records_that_grow_old_without_a_checkpoint_are_counted() -> None:
    warning = judge(_facts(0, 100, 20, 50), DAY_MS, -1)
    assert warning is not None
    assert not warning.lost
    assert "30 records" in warning.why
    assert "24h" in warning.why


def test_a_hole_is_said_to_be_one() -> None:
    warning = judge(_facts(70, 100, 20, 80), DAY_MS, -1)
    assert warning is not None
    assert warning.lost
    assert "offsets 20 to 69" in warning.why


def test_retention_by_size_is_watched_where_there_is_one() -> None:
    assert judge(_facts(1_000, 2_000, 1_050), DAY_MS, -1) is None
    warning = judge(_facts(1_000, 2_000, 1_050), DAY_MS, 1 << 30)
    assert warning is not None
    assert not warning.lost
