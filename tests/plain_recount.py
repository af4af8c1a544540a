"""Pages of what trends, counted anew by a loop over events: all ranks, all scores."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from queryd.reply import QueryReply
from tests.composites import Profile
from tidal.client import Client

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SPANS = {"24h": (HOUR_MS, 24), "7d": (HOUR_MS, 168), "30d": (DAY_MS, 30)}
PAGE = 500
COMPLETE_S = 30.0
ASKED_AGAIN_MAX = 3

Page = list[tuple[str, float]]


class Counted(NamedTuple):
    """One event that counts, with the profile that its user had then."""

    kind: str
    item: str
    ts_ms: int
    profile: Profile


class Recount:
    """Events of one kind, in the order of their time; of equal profiles each is judged once."""

    def __init__(self, events: Iterable[Counted], kind: str) -> None:
        chosen = sorted((event for event in events if event.kind == kind), key=lambda event: event.ts_ms)
        numbers: dict[frozenset[tuple[str, str]], int] = {}
        self.times_ms = [event.ts_ms for event in chosen]
        self._items = [event.item for event in chosen]
        self._numbers = [
            numbers.setdefault(frozenset(event.profile.items()), len(numbers)) for event in chosen
        ]
        self._profiles = [dict(profile) for profile in numbers]

    def trending(self, window: str, at_ms: int, belongs: Callable[[Profile], bool]) -> Page:
        """Items by velocity, ties by id: events in the buckets of the window over its length; all_time:
        events up to the end of the hour."""
        low_ms, high_ms, span_s = _bounds(window, at_ms)
        rows = slice(bisect_left(self.times_ms, low_ms), bisect_left(self.times_ms, high_ms))
        member = [belongs(profile) for profile in self._profiles]
        pairs = zip(self._items[rows], self._numbers[rows], strict=True)
        counts = Counter([item for item, number in pairs if member[number]])
        rates = [(item, count / span_s) for item, count in counts.items()]
        return sorted(rates, key=lambda entry: (-entry[1], entry[0]))


def _bounds(window: str, at_ms: int) -> tuple[float, int, float]:
    if window == "all_time":
        return -math.inf, (at_ms // HOUR_MS + 1) * HOUR_MS, 1.0
    bucket_ms, buckets = SPANS[window]
    end_ms = (at_ms // bucket_ms + 1) * bucket_ms
    return end_ms - bucket_ms * buckets, end_ms, bucket_ms * buckets / 1000


def whole_answer(client: Client, **clauses: str | int | None) -> tuple[Page, int]:
    """Every page of what trends to the last, and a time of the hour in which all of them were answered."""
    query = {"retrieve": "items", "using_profile": "trending", "limit": PAGE, **clauses}
    for _ in range(ASKED_AGAIN_MAX):
        began_ms = time.time_ns() // 1_000_000
        page = _pages(client, query)
        if time.time_ns() // 1_000_000 // HOUR_MS == began_ms // HOUR_MS:
            return page, began_ms
    raise AssertionError(f"{query!r} was answered across a full hour {ASKED_AGAIN_MAX} times")


def _complete(client: Client, query: Mapping[str, Any]) -> QueryReply:
    """A reply that lacks nothing: for a moment after a start or a change of owners partitions are being read,
    and replies say so."""
    deadline_s = time.monotonic() + COMPLETE_S
    while (reply := client.query(query)).degraded != []:
        assert time.monotonic() < deadline_s, reply.degraded
        time.sleep(0.1)
    return reply


def _pages(client: Client, query: Mapping[str, Any]) -> Page:
    """By JSON: the cursor of a late page is longer than the text of a query may be."""
    page: Page = []
    cursor: str | None = None
    while True:
        reply = _complete(client, {**query, "cursor": cursor})
        assert reply.estimator == "exact", query
        page += [(result.id, result.score) for result in reply.results]
        if reply.cursor is None:
            return page
        cursor = reply.cursor
