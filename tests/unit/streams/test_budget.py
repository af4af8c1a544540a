"""The bound of the producer: who gets room, who waits, who is refused."""

from __future__ import annotations

import threading

import pytest

from streams import budget as budget_module
from streams.budget import Budget
from streams.errors import ProducerClosedError, QueueFullError


def test_room_is_taken_and_given_back() -> None:
    """Used bytes follow."""
    budget = Budget(100)
    assert budget.try_take(60)
    assert not budget.try_take(60)
    assert budget.used_bytes == 60
    budget.give_back(60)
    assert budget.try_take(100)


def test_a_full_budget_makes_the_caller_wait_until_room_is_given_back() -> None:
    """The caller is slowed, not refused."""
    budget = Budget(10)
    budget.take(10, 0)
    timer = threading.Timer(0.05, budget.give_back, [10])
    timer.start()
    budget.take(4, 10)
    timer.join()
    assert budget.used_bytes == 4


def test_a_caller_that_waits_too_long_is_told_how_full_it_is() -> None:
    """And leaves nothing behind."""
    budget = Budget(10)
    budget.take(8, 0)
    with pytest.raises(QueueFullError, match=r"after 0\.01 s: 8 of 10 bytes"):
        budget.take(4, 0.01)
    assert budget.used_bytes == 8
    assert budget.try_take(2)


def test_small_requests_do_not_overtake_a_large_one_that_waits() -> None:
    """First come, first served: otherwise a large batch could wait for ever."""
    budget = Budget(10)
    budget.take(5, 0)
    order: list[str] = []
    budget.join_line(8, lambda: order.append("large"))
    assert not budget.try_take(1)
    budget.join_line(1, lambda: order.append("small"))
    assert order == []
    budget.give_back(5)
    assert order == ["large", "small"]
    assert budget.used_bytes == 9


def test_one_who_gives_up_lets_those_behind_pass() -> None:
    """The line moves on."""
    budget = Budget(10)
    budget.take(5, 0)
    granted: list[str] = []
    large = budget.join_line(8, lambda: granted.append("large"))
    budget.join_line(1, lambda: granted.append("small"))
    budget.give_up(large)
    assert granted == ["small"]
    assert budget.used_bytes == 6


def test_giving_up_after_the_grant_returns_the_room() -> None:
    """A cancelled task may be granted room at the same moment."""
    budget = Budget(10)
    waiter = budget.join_line(4, lambda: None)
    assert budget.used_bytes == 4
    budget.give_up(waiter)
    assert budget.used_bytes == 0


def test_more_than_the_whole_budget_is_refused_at_once() -> None:
    """Waiting would never end."""
    with pytest.raises(QueueFullError, match="11 bytes at once are more than the producer holds"):
        Budget(10).take(11, 60)


def test_the_line_itself_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks are cheap to make, so their number must have an end too."""
    monkeypatch.setattr(budget_module, "WAITERS_MAX", 2)
    budget = Budget(1)
    budget.take(1, 0)
    budget.join_line(1, lambda: None)
    budget.join_line(1, lambda: None)
    with pytest.raises(QueueFullError, match="2 callers already wait"):
        budget.join_line(1, lambda: None)


def test_close_sends_everybody_away() -> None:
    """Those who wait, and those who come."""
    budget = Budget(1)
    budget.take(1, 0)
    timer = threading.Timer(0.05, budget.close)
    timer.start()
    with pytest.raises(ProducerClosedError):
        budget.take(1, 10)
    timer.join()
    with pytest.raises(ProducerClosedError):
        budget.take(1, 10)
