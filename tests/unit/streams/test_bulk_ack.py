"""One acknowledgement for many records."""

from __future__ import annotations

from streams.bulk_ack import BulkAck
from streams.errors import DeliveryError
from streams.positions import Position

Settled = list[tuple[list[Position] | None, Exception | None]]


def make(parts: int) -> tuple[BulkAck, Settled]:
    """An acknowledgement, and what it reports."""
    settled: Settled = []
    return BulkAck(parts, lambda positions, error: settled.append((positions, error))), settled


def test_it_settles_once_with_distinct_positions_in_order() -> None:
    """Events that shared a record share its position."""
    ack, settled = make(3)
    ack.set_result(Position("t", 1, 5))
    ack.set_result(Position("t", 0, 9))
    assert settled == []
    ack.set_result(Position("t", 1, 5))
    assert settled == [([Position("t", 0, 9), Position("t", 1, 5)], None)]


def test_records_that_are_expected_later_are_waited_for() -> None:
    """A piece is split into records while earlier ones may already have landed."""
    ack, settled = make(1)
    ack.expect()
    ack.set_result(Position("t", 0, 1))
    assert settled == []
    ack.expect()
    ack.part_done()
    assert settled == []
    ack.set_result(Position("t", 0, 2))
    assert len(settled) == 1


def test_when_all_fail_the_first_error_is_the_error() -> None:
    """Its type says what to do."""
    ack, settled = make(2)
    first = DeliveryError("first", retriable=False)
    ack.set_exception(first)
    ack.set_exception(DeliveryError("second", retriable=True))
    assert settled == [(None, first)]


def test_when_some_fail_the_error_says_how_much_is_in_the_log() -> None:
    """The caller must know that publishing again makes duplicates."""
    ack, settled = make(2)
    ack.set_result(Position("t", 0, 1))
    ack.set_exception(DeliveryError("disk on fire", retriable=False))
    error = settled[0][1]
    assert isinstance(error, DeliveryError)
    assert "1 records" in str(error)
    assert "disk on fire" in str(error)
