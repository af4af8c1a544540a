"""The first record of a partition goes alone."""

from __future__ import annotations

from streams.first_records import FirstRecords

PLACE = ("tidal.signals", 3)


def test_others_wait_for_the_first_and_then_go_in_order() -> None:
    """And nothing overtakes those that wait."""
    gate: FirstRecords[int] = FirstRecords()
    assert gate.may_go(PLACE, 1)
    assert not gate.may_go(PLACE, 2)
    assert not gate.may_go(PLACE, 3)
    assert gate.next_after_success(PLACE) == 2
    assert not gate.may_go(PLACE, 4)
    assert gate.next_after_success(PLACE) == 3
    assert gate.next_after_success(PLACE) == 4
    assert gate.next_after_success(PLACE) is None
    assert gate.may_go(PLACE, 5)
    assert gate.may_go(PLACE, 6)
    assert gate.next_after_failure(PLACE) is None


def test_when_the_first_fails_the_next_one_is_first() -> None:
    """One at a time until one is stored."""
    gate: FirstRecords[int] = FirstRecords()
    assert gate.may_go(PLACE, 1)
    assert not gate.may_go(PLACE, 2)
    assert gate.next_after_failure(PLACE) == 2
    assert not gate.may_go(PLACE, 3)
    assert gate.next_after_failure(PLACE) == 3
    assert gate.next_after_failure(PLACE) is None
    assert gate.may_go(PLACE, 4)


def test_partitions_do_not_wait_for_each_other() -> None:
    """Each has a log of its own."""
    gate: FirstRecords[int] = FirstRecords()
    assert gate.may_go(PLACE, 1)
    assert gate.may_go(("tidal.signals", 4), 2)
    assert gate.may_go(("tidal.items", 3), 3)


def test_a_new_identity_must_be_proven_again() -> None:
    """After the producer was replaced."""
    gate: FirstRecords[int] = FirstRecords()
    assert gate.may_go(PLACE, 1)
    assert gate.next_after_success(PLACE) is None
    gate.forget()
    assert gate.may_go(PLACE, 2)
    assert not gate.may_go(PLACE, 3)
