"""Cutting bytes into requests within a shared budget."""

from __future__ import annotations

import random
import struct

import pytest

from streams.embedded.budget import Budget
from streams.embedded.errors import RequestError
from streams.embedded.frames import FrameReader

LARGE = 200_000


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


class Peer:
    """A connection's receiving side, and whether its socket may be read."""

    def __init__(self, budget: Budget, request_bytes_max: int = 1 << 20) -> None:
        self.woken = 0
        self.reader = FrameReader(budget, request_bytes_max, self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def send(self, data: bytes, step: int = 1 << 20) -> int:
        """As the event loop does, until it is blocked; returns what was taken."""
        sent = 0
        while sent < len(data) and not self.reader.is_blocked:
            room = self.reader.buffer()
            assert len(room) > 0
            count = min(len(room), step, len(data) - sent)
            room[:count] = data[sent : sent + count]
            self.reader.received(count)
            sent += count
        return sent

    def take_all(self) -> list[bytes]:
        return [bytes(self.reader.take()) for _ in range(len(self.reader.frames))]


@pytest.mark.parametrize("seed", range(20))
def test_requests_of_any_size_cut_anywhere_come_whole_and_in_order(seed: int) -> None:
    rng = random.Random(seed)
    budget = Budget(1 << 30)
    peer = Peer(budget)
    sizes = [rng.choice((1, 10, 16_379, 16_380, 16_381, 70_000, rng.randrange(1, LARGE))) for _ in range(20)]
    bodies = [rng.randbytes(size) for size in sizes]
    data = b"".join(map(framed, bodies))
    found = []
    position = 0
    while position < len(data):
        step = rng.choice((1, 3, 1_000, 65_536, 1 << 20))
        position += peer.send(data[position : position + 50 * step], step)
        if rng.random() < 0.3:
            found += peer.take_all()
    assert found + peer.take_all() == bodies
    assert budget.used == 0


@pytest.mark.parametrize("size", [-1, 0, 1_001, 1 << 30])
def test_a_length_that_is_not_taken_is_refused_before_its_bytes(size: int) -> None:
    peer = Peer(Budget(1 << 30), request_bytes_max=1_000)
    with pytest.raises(RequestError, match=f"a request of {size} bytes, the limit is 1000"):
        peer.send(struct.pack(">i", size))


def test_a_large_request_waits_until_the_others_have_left_room() -> None:
    budget = Budget(LARGE + 10)
    first, second = Peer(budget), Peer(budget)
    assert first.send(framed(bytes(LARGE))) == LARGE + 4
    sent = second.send(framed(bytes(LARGE)))
    assert second.reader.is_blocked
    assert sent <= 16_384
    first.take_all()
    assert (second.reader.is_blocked, second.woken) == (False, 1)
    second.send(framed(bytes(LARGE))[sent:])
    assert second.take_all() == [bytes(LARGE)]
    assert budget.used == 0


def test_one_request_above_the_budget_comes_when_nothing_else_is_there() -> None:
    budget = Budget(1_000)
    peer = Peer(budget)
    peer.send(framed(bytes(LARGE)))
    assert peer.take_all() == [bytes(LARGE)]


def test_small_requests_are_counted_and_never_wait_in_line() -> None:
    budget = Budget(1_000)
    peers = [Peer(budget) for _ in range(3)]
    for peer in peers:
        peer.send(framed(bytes(900)))
    assert budget.used == 2_700
    assert budget.room == 0
    for peer in peers:
        peer.reader.close()
    assert budget.used == 0


def test_whoever_goes_while_it_waits_frees_its_place() -> None:
    budget = Budget(LARGE)
    first, gone, last = Peer(budget), Peer(budget), Peer(budget)
    for peer in (first, gone, last):
        peer.send(framed(bytes(LARGE)))
    gone.reader.close()
    first.take_all()
    assert (gone.woken, last.woken) == (0, 1)
    last.reader.close()
    assert budget.used == 0


def test_bytes_that_come_in_spite_of_the_pause_complete_the_request() -> None:
    budget = Budget(LARGE)
    first, second = Peer(budget), Peer(budget)
    first.send(framed(bytes(LARGE)))
    data = framed(bytes(LARGE))
    sent = second.send(data)
    room = second.reader.buffer()
    room[: len(data) - sent] = data[sent:]
    second.reader.received(len(data) - sent)
    assert second.take_all() == [bytes(LARGE)]
    first.take_all()
    assert (budget.used, second.woken) == (0, 0)
