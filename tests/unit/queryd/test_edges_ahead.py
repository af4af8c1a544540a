"""Hiding writes of a daemon count until its tables have applied them, and never without a bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from materializers.materializer import Scope
from queryd.hot.edges_ahead import KEPT_S, AheadWrite, EdgesAhead
from streams.positions import Position
from streams.topics import RELATIONSHIPS


class Applied:
    """The only thing that is asked of tables here."""

    def __init__(self) -> None:
        self.offsets: dict[int, int] = {}

    def applied(self, scope: Scope, partition: int) -> Mapping[str, int]:
        assert scope is Scope.ENTITY
        return {RELATIONSHIPS: self.offsets.get(partition, -1)}


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def tables() -> Any:
    return Applied()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def write(offset: int, target: str = "c", weight: float | None = 1.0, partition: int = 0) -> AheadWrite:
    return AheadWrite(Position(RELATIONSHIPS, partition, offset), "blocks", "u", target, weight, 5)


def test_a_write_counts_until_its_position_is_applied(tables: Any, clock: Clock) -> None:
    ahead = EdgesAhead(tables, clock_s=clock)
    ahead.add(write(7))
    tables.offsets[0] = 6
    assert ahead.find("blocks", "u", "c") == write(7)
    assert list(ahead.of("blocks", "u", outgoing=True)) == [write(7)]
    assert list(ahead.of("blocks", "c", outgoing=False)) == [write(7)]
    assert not list(ahead.of("mutes", "u", outgoing=True))
    tables.offsets[0] = 7
    assert ahead.find("blocks", "u", "c") is None
    assert not list(ahead.of("blocks", "u", outgoing=True))


def test_of_two_writes_the_later_in_the_log_counts(tables: Any) -> None:
    ahead = EdgesAhead(tables)
    ahead.add(write(8, weight=None))
    ahead.add(write(7))  # its acknowledgement came later, the record did not
    assert ahead.find("blocks", "u", "c") == write(8, weight=None)


def test_a_partition_that_moved_and_shows_older_rows_brings_the_write_back(tables: Any, clock: Clock) -> None:
    ahead = EdgesAhead(tables, clock_s=clock)
    ahead.add(write(7))
    tables.offsets[0] = 9
    ahead.drop_old()
    assert len(ahead) == 1
    tables.offsets[0] = 3
    assert ahead.find("blocks", "u", "c") is not None
    tables.offsets[0] = 9
    clock.now_s = KEPT_S
    ahead.drop_old()
    assert len(ahead) == 0
    assert not list(ahead.of("blocks", "c", outgoing=False))


def test_a_full_daemon_has_no_room_before_the_tables_catch_up(tables: Any, clock: Clock) -> None:
    ahead = EdgesAhead(tables, writes_max=2, clock_s=clock)
    ahead.add(write(0, "a"))
    assert ahead.has_room()
    ahead.add(write(1, "b"))
    assert not ahead.has_room()
    clock.now_s = 10 * KEPT_S
    ahead.drop_old()
    assert len(ahead) == 2  # what is not applied is never dropped, however old
    tables.offsets[0] = 0
    assert ahead.has_room()
    assert [each.target for each in ahead.of("blocks", "u", outgoing=True)] == ["b"]
