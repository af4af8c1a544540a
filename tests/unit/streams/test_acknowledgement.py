"""The blocking producer's future behaves like any other of concurrent.futures."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import FIRST_COMPLETED, Future, as_completed, wait

import pytest

from streams.acknowledgement import Acknowledgement


@pytest.fixture
def pair() -> tuple[Acknowledgement[int], Acknowledgement[int]]:
    """Two futures of one producer: they share the lock."""
    shared = threading.Condition()
    return Acknowledgement(shared), Acknowledgement(shared)


def later(future: Acknowledgement[int], value: int) -> threading.Thread:
    """Settle from another thread, soon."""
    thread = threading.Timer(0.02, future.set_result, [value])
    thread.start()
    return thread


def test_it_has_every_field_that_a_plain_future_has() -> None:
    """Its constructor replaces Future's: a later Python that adds a field must be noticed here."""
    assert set(vars(Acknowledgement(threading.Condition()))) == set(vars(Future()))


def test_a_waiter_wakes_for_its_own_future_only(pair: tuple[Acknowledgement[int], ...]) -> None:
    """The shared lock does not make the neighbour's result ours."""
    mine, other = pair
    thread = later(other, 1)
    with pytest.raises(TimeoutError):
        mine.result(0.1)
    thread.join()
    later(mine, 2).join()
    assert (other.result(0), mine.result(0)) == (1, 2)


def test_result_waits_for_another_thread(pair: tuple[Acknowledgement[int], ...]) -> None:
    """No time-out given, and the value comes."""
    thread = later(pair[0], 7)
    assert pair[0].result() == 7
    thread.join()


def test_an_error_is_raised_by_result_and_returned_by_exception(
    pair: tuple[Acknowledgement[int], ...],
) -> None:
    """Both ways of asking."""
    error = ValueError("no")
    pair[0].set_exception(error)
    assert pair[0].exception(0) is error
    with pytest.raises(ValueError, match="no"):
        pair[0].result(0)


def test_it_cannot_be_cancelled(pair: tuple[Acknowledgement[int], ...]) -> None:
    """What was handed over stays so."""
    assert not pair[0].cancel()
    assert pair[0].running()


def test_the_standard_librarys_wait_and_as_completed(pair: tuple[Acknowledgement[int], ...]) -> None:
    """They take the futures' locks by themselves."""
    mine, other = pair
    thread = later(mine, 1)
    done, not_done = wait(pair, timeout=5, return_when=FIRST_COMPLETED)
    assert (done, not_done) == ({mine}, {other})
    other.set_result(2)
    assert {future.result() for future in as_completed(pair, timeout=5)} == {1, 2}
    thread.join()


async def test_an_event_loop_can_await_it(pair: tuple[Acknowledgement[int], ...]) -> None:
    """asyncio.wrap_future."""
    thread = later(pair[0], 3)
    assert await asyncio.wait_for(asyncio.wrap_future(pair[0]), 5) == 3
    thread.join()
