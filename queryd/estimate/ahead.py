"""Sums that estimates asked for and did not find, made between queries, a slice at a time.

What is made are standing sums of the cube like any other: exact, followed by the cube, evicted by its bound.
First comes the composite itself, so that whoever asks again gets an exact answer, then the counters of its
single classes and pairs of them, so that other composites of the same values are fitted to what is known.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from queryd.hot.columns import HotColumns
from queryd.hot.cube import ALL_TIME, BucketRange
from schemas.predicate import Predicate

BYTES_MAX: Final = 128 << 20
"""Half of what the cube keeps sums in: the other half is for those that queries make themselves."""
_BYTES_OF_ITEM: Final = 8
_SUMS_MIN: Final = 8
_BUCKETS_AT_ONCE: Final = 8
_BEGUN_MAX: Final = 3
"""Times that a sum is begun anew because the cube no longer knows what has changed since."""
_SLICE_S: Final = 0.003
_PAUSE_S: Final = 0.006
_IDLE_S: Final = 0.1
_FOLLOW_EVERY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A sum that is to be standing: of one signal over a range under a label, for one predicate."""

    signal: int
    label: str
    minutes: bool
    predicate: Predicate


class AheadSums:
    """Makes wanted sums, and follows those that it has made while they are asked for.

    Args:
        hot: whose cube of profiles holds the sums.
        clock_ms: wall clock in epoch ms.
    """

    def __init__(self, hot: HotColumns, clock_ms: Callable[[], int]) -> None:
        self._hot = hot
        self._clock_ms = clock_ms
        self._ranges: OrderedDict[Wanted, Callable[[int], BucketRange]] = OrderedDict()
        self._standing: set[Wanted] = set()
        self._followed_s = 0.0
        self.made = 0
        self.given_up = 0

    @property
    def waiting(self) -> int:
        """Sums that are wanted and not there yet."""
        return len(self._ranges) - len(self._standing)

    def ask(self, wanted: Iterable[Wanted], range_at: Callable[[int], BucketRange]) -> None:
        """Want sums over a range that moves with time; those wanted longest ago are forgotten first."""
        if range_at(self._clock_ms()) == ALL_TIME:
            return  # the archive has no parts that could be summed one after the other
        for each in wanted:
            self._ranges[each] = range_at
            self._ranges.move_to_end(each)
            if self._kept_range(each) is None:
                self._standing.discard(each)
        sums_max = max(_SUMS_MIN, BYTES_MAX // (_BYTES_OF_ITEM * max(1, self._hot.by_profile.items)))
        while len(self._ranges) > sums_max:
            forgotten, _ = self._ranges.popitem(last=False)
            self._standing.discard(forgotten)

    async def run(self) -> None:
        """Work until cancelled, on the loop: a slice at a time, a third of the time at most."""
        while True:
            began = time.perf_counter()
            for _ in self.work():
                if time.perf_counter() - began > _SLICE_S:
                    await asyncio.sleep(_PAUSE_S)
                    began = time.perf_counter()
            await asyncio.sleep(_IDLE_S)

    def work(self) -> Iterator[None]:
        """Make every sum that waits, in bounded steps; now and then let those that stand follow the feed."""
        for wanted in [each for each in self._ranges if each not in self._standing]:
            yield from self._make(wanted)
        if time.monotonic() - self._followed_s > _FOLLOW_EVERY_S:
            self._followed_s = time.monotonic()
            for wanted in list(self._standing):
                if self._kept_range(wanted) is None:  # evicted: made again if it is asked for again
                    self._give_up(wanted)
                else:
                    yield from self._make(wanted)

    def _make(self, wanted: Wanted) -> Iterator[None]:
        """A standing sum over the whole range, grown from its oldest bucket on, or followed."""
        cube, profiles, begun = self._hot.by_profile, self._hot.profiles, 0
        while (range_at := self._ranges.get(wanted)) is not None:
            whole = range_at(self._clock_ms())
            had = self._kept_range(wanted)
            if had is None or not had.low <= whole.low <= had.high <= whole.high:
                had = None
                begun += 1
            if begun > _BEGUN_MAX or not cube.is_hot(whole):
                self._give_up(wanted)
                return
            high = min(whole.high, _end_of_step(whole.low if had is None else had.high + 1))
            part = BucketRange(whole.minutes, whole.low, high)
            mask = profiles.mask(wanted.predicate)
            cube.standing(wanted.signal, part, mask, wanted.predicate, wanted.label)
            yield
            if high == whole.high:
                self.made += wanted not in self._standing
                self._standing.add(wanted)
                return

    def _kept_range(self, wanted: Wanted) -> BucketRange | None:
        cube = self._hot.by_profile
        return cube.standing_range(wanted.signal, wanted.minutes, wanted.predicate, wanted.label)

    def _give_up(self, wanted: Wanted) -> None:
        """It changes faster than it is summed, its time is past, or others took its place."""
        self._ranges.pop(wanted, None)
        self._standing.discard(wanted)
        self.given_up += 1


def _end_of_step(first: int) -> int:
    """Steps end where eight hours do, because the cube keeps those together."""
    return (first // _BUCKETS_AT_ONCE + 1) * _BUCKETS_AT_ONCE - 1
