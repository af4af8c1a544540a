"""How to keep counts by cohort profile: how many profiles there are, bytes for a cell, time of a first sum.

    python -m benchmarks.profiles_study [--events 10000000] [--items 1000000] [--users 1000000] [--days 7]

A day of events of ``benchmarks.population`` is put into each of these layouts:

* ``rows``: joint tuples (dimensions and segments) interned as one number, an hour's cells as plain columns
  of 20 bytes sorted by profile: what there was before.
* ``runs``: the same numbers, cells of eight hours as four bytes behind an index: what there is.
* ``ordered``: as runs, were profiles numbered by their values and not as they come.
* ``factored``: cells by the tuple of dimensions alone, in runs; the set of segments in a column beside.
* ``hourly``: as runs, but profiles numbered anew in each eight hours, with a dictionary of their own.
* ``values``: a counter for each item and single value (level 1), which answers no composite.

A cohort's sum is made from its mask, without the rest of a query: the best of three, CPU time. A first table
tells how the number of profiles grows while users enter and leave segments.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.population import DIMENSIONS, SEGMENTS, Population
from benchmarks.results import Result, markdown, parser, report
from queryd.hot.buckets import Bucket
from queryd.hot.cells import Cells
from queryd.hot.profile_index import ProfileIndex, Selection
from queryd.hot.runs import SPAN_HOURS
from queryd.hot.signal_cells import SignalCells
from queryd.hot.standing import StandingSum
from queryd.hot.windows import BucketRange
from schemas.weights import WEIGHT_SCALE

U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
HOURS = 24
FIRST_HOUR = 480_000
PLAIN_ROW_BYTES = 20  # item u32, profile u32, count u32, sum i64
STEP_HOURS = 6
COLUMN_BYTES = 34  # of a profile: codes of ten dimensions (one of two bytes) and a byte for each segment …
INDEX_BYTES = 36  # … and its place in the index by hash


@dataclass(slots=True)
class Events:
    """One day: hour u8, item u32, dimension tuple u32, set of segments u32 and joint profile u32, all [n].

    ``dimension_of`` u32 and ``segments_of`` u32 are those of each joint profile.
    """

    hour: npt.NDArray[np.uint8]
    item: U32
    dimensions: U32
    segments: U32
    joint: U32
    dimension_of: U32
    segments_of: U32


@dataclass(frozen=True, slots=True)
class Cohort:
    """Masks over tuples of dimensions, over sets of segments (by bits), and over joint profiles."""

    name: str
    dimensions: Mask
    segment: int | None
    inside: bool
    joint: Mask


def drawn(people: Population, events: int) -> Events:
    """A day of events."""
    keys = people.dimension_keys()
    hours, items, users, segments = [], [], [], []
    for hour in range(HOURS):
        who = people.draw_users(events // HOURS)
        hours.append(np.full(len(who), hour, dtype=np.uint8))
        items.append(people.draw_items(len(who)))
        users.append(keys[who])
        segments.append(people.segments[who])
        people.pass_hours()
    dimensions, held = np.concatenate(users), np.concatenate(segments)
    both, joint = np.unique(dimensions.astype(np.int64) << len(SEGMENTS) | held, return_inverse=True)
    order = np.random.default_rng(1).permutation(len(both)).astype(np.uint32)  # numbers come as users do
    dimension_of, segments_of = np.zeros(len(both), dtype=np.uint32), np.zeros(len(both), dtype=np.uint32)
    dimension_of[order] = both >> len(SEGMENTS)
    segments_of[order] = both & ((1 << len(SEGMENTS)) - 1)
    return Events(
        np.concatenate(hours),
        np.concatenate(items),
        dimensions,
        held,
        order[joint],
        dimension_of,
        segments_of,
    )


def growth(people: Population, events: int, days: int) -> list[dict[str, object]]:
    """Profiles that have had an event after each day: with and without segments."""
    keys, seen = people.dimension_keys(), np.zeros(0, dtype=np.int64)
    rows: list[dict[str, object]] = []
    for step in range(days * HOURS // STEP_HOURS):
        who = np.unique(people.draw_users(events * STEP_HOURS // HOURS))
        seen = np.union1d(seen, keys[who].astype(np.int64) << len(SEGMENTS) | people.segments[who])
        people.pass_hours(STEP_HOURS)
        day, left = divmod((step + 1) * STEP_HOURS, HOURS)
        if not left and (day in (1, 2, 4) or day == days):
            alone = len(np.unique(seen >> len(SEGMENTS)))
            sets = len(np.unique(seen & ((1 << len(SEGMENTS)) - 1)))
            rows.append(
                {
                    "after days": day,
                    "tuples of dimensions": alone,
                    "sets of segments": sets,
                    "joint profiles": len(seen),
                    "MB of columns and index": len(seen) * (COLUMN_BYTES + INDEX_BYTES) / 1e6,
                }
            )
    return rows


def cohorts(people: Population, events: Events) -> list[Cohort]:
    """One of dimensions, one with NOT a segment, one segment alone, one wide."""
    keys = people.dimension_keys()
    first = np.zeros(int(keys.max()) + 1, dtype=np.int64)
    first[keys] = np.arange(people.users)
    column = {name: values[first] for name, values in people.values.items()}
    narrow = (
        ((column["country"] == 1) | (column["country"] == 3)) & (column["age"] <= 1) & (column["plan"] != 1)
    )
    wide = (column["gender"] == 0) | ((column["device"] == 1) & (column["age"] != 0))
    everybody = np.ones(len(narrow), dtype=np.bool_)
    segment = len(SEGMENTS) - 7
    found = []
    for name, dimensions, number, inside in (
        ("dimensions", narrow, None, True),
        ("dimensions, NOT segment", narrow, segment, False),
        ("segment", everybody, segment, True),
        ("wide", wide, None, True),
    ):
        joint = dimensions[events.dimension_of]
        if number is not None:
            joint = joint & ((events.segments_of >> np.uint32(number) & 1 == 1) == inside)
        found.append(Cohort(name, dimensions, number, inside, joint))
    return found


class Layout(Protocol):
    """What a layout takes in memory, without the profiles' own columns, and its sum of a cohort."""

    name: str
    nbytes: int

    def sum(self, cohort: Cohort) -> npt.NDArray[np.integer]:
        """Counts by item."""
        ...


class Rows:
    """Plain columns by hour, sorted by profile."""

    name = "rows"

    def __init__(self, events: Events, items: int) -> None:
        self._items = items
        self._hours = []
        self.nbytes = 0
        for hour in range(HOURS):
            inside = np.flatnonzero(events.hour == hour)
            order = inside[np.argsort(events.joint[inside], kind="stable")]
            profiles, starts = np.unique(events.joint[order], return_index=True)
            count = np.ones(len(order), dtype=np.uint32)
            columns = events.item[order], count, count.astype(np.int64) * WEIGHT_SCALE
            self._hours.append((profiles, np.append(starts, len(order)), columns))
            self.nbytes += len(order) * PLAIN_ROW_BYTES + len(profiles) * 12

    def sum(self, cohort: Cohort) -> npt.NDArray[np.integer]:
        counts, sums = np.zeros(self._items, dtype=np.int64), np.zeros(self._items, dtype=np.int64)
        for profiles, starts, (item, count, total) in self._hours:
            hit = np.flatnonzero(cohort.joint[profiles])
            begins, lengths = starts[hit], starts[hit + 1] - starts[hit]
            offsets = np.cumsum(lengths) - lengths
            rows = np.repeat(begins - offsets, lengths) + np.arange(int(lengths.sum()))
            np.add.at(counts, item[rows], count[rows].astype(np.int64))
            np.add.at(sums, item[rows], total[rows])
        return counts


class Runs:
    """Queryd's own."""

    name = "runs"

    def __init__(self, events: Events, items: int) -> None:
        self._items = items
        self._number = self._numbering(events)
        joint = np.argsort(self._number).astype(np.uint32)[events.joint]
        self._cells = SignalCells()
        edges = [*range(0, len(events.item), 8_192), *np.searchsorted(events.hour, range(HOURS)).tolist()]
        for start, end in pairwise(sorted({*edges, len(events.item)})):
            rows = slice(start, end)
            count = np.ones(len(events.item[rows]), dtype=np.uint32)
            cells = Cells(events.item[rows], joint[rows], count, count * np.int64(WEIGHT_SCALE))
            self._cells.hours.setdefault(FIRST_HOUR + int(events.hour[start]), Bucket()).add(cells)
        for _ in self._cells.tidy(FIRST_HOUR + HOURS, 0, items):
            pass
        self.nbytes = self._cells.nbytes

    def sum(self, cohort: Cohort) -> npt.NDArray[np.integer]:
        wanted = BucketRange(False, FIRST_HOUR, FIRST_HOUR + HOURS - 1)
        standing = StandingSum(wanted, self._items, 0, 0)
        standing.add(self._cells.gather(wanted, Selection(cohort.joint[self._number])))
        return standing.counts

    def _numbering(self, events: Events) -> I64:
        """The joint profile under each number."""
        return np.arange(len(events.dimension_of))


class Ordered(Runs):
    """As runs, numbered by values: those of the first dimension together, among them those of the second …"""

    name = "ordered"

    def _numbering(self, events: Events) -> I64:
        return np.lexsort((events.segments_of, events.dimension_of))


class Factored:
    """Eight hours sorted by tuple of dimensions; the number of the set of segments beside each cell."""

    name = "factored"

    def __init__(self, events: Events, items: int) -> None:
        self._items = items
        chance = np.random.default_rng(2)
        self._tuples = chance.permutation(int(events.dimensions.max()) + 1)  # numbers come as users do
        numbered = np.argsort(self._tuples).astype(np.uint32)[events.dimensions]
        self._sets, numbers = np.unique(events.segments, return_inverse=True)
        column = numbers.astype(np.uint16 if len(self._sets) < 1 << 16 else np.uint32)
        self._spans = []
        self.nbytes = 0
        for first in range(0, HOURS, SPAN_HOURS):
            inside = np.flatnonzero(events.hour // SPAN_HOURS == first // SPAN_HOURS)
            order = inside[np.argsort(numbered[inside], kind="stable")]
            index = _index(numbered[order])
            self._spans.append((index, events.item[order], column[order]))
            self.nbytes += index.nbytes + len(order) * (4 + column.itemsize)

    def sum(self, cohort: Cohort) -> npt.NDArray[np.integer]:
        counts = np.zeros(self._items, dtype=np.int32)
        chosen = Selection(cohort.dimensions[self._tuples])
        allowed = None
        if cohort.segment is not None:
            allowed = (self._sets >> np.uint32(cohort.segment) & 1 == 1) == cohort.inside
        for index, item, sets in self._spans:
            rows = index.ranges(chosen).rows
            if allowed is not None:
                rows = rows[allowed.take(sets.take(rows))]
            _count(counts, item.take(rows))
        return counts


class Hourly:
    """Eight hours with profiles of their own numbers, and for each its tuple and its set of segments."""

    name = "hourly"

    def __init__(self, events: Events, items: int) -> None:
        self._items = items
        self._spans = []
        self.nbytes = 0
        for first in range(0, HOURS, SPAN_HOURS):
            inside = np.flatnonzero(events.hour // SPAN_HOURS == first // SPAN_HOURS)
            distinct, local = np.unique(events.joint[inside], return_inverse=True)
            order = np.argsort(local, kind="stable")
            index = _index(local[order].astype(np.uint32))
            names = events.dimension_of[distinct], events.segments_of[distinct]
            self._spans.append((index, events.item[inside[order]], names))
            self.nbytes += index.nbytes + len(order) * 4 + len(distinct) * 8

    def sum(self, cohort: Cohort) -> npt.NDArray[np.integer]:
        counts = np.zeros(self._items, dtype=np.int32)
        for index, item, (dimensions, segments) in self._spans:
            mask = cohort.dimensions.take(dimensions)
            if cohort.segment is not None:
                mask &= (segments >> np.uint32(cohort.segment) & 1 == 1) == cohort.inside
            _count(counts, index.ranges(Selection(mask)).of(item))
        return counts


def values_bytes(people: Population, events: Events) -> int:
    """Level-1 counters: one for each item, hour and value that occurs, of every dimension and segment."""
    keys = people.dimension_keys()
    first = np.zeros(int(keys.max()) + 1, dtype=np.int64)
    first[keys] = np.arange(people.users)
    place = events.hour.astype(np.int64) << 32 | events.item
    cells = 0
    for dimension in DIMENSIONS:
        column = people.values[dimension.name][first][events.dimensions]
        cells += len(np.unique(place << 10 | column))
    for number in range(len(SEGMENTS)):
        cells += len(np.unique(place[events.segments >> np.uint32(number) & 1 == 1]))
    return cells * 8  # item and count, the value in an index


def best_ms(work: Callable[[], object]) -> float:
    """CPU of the best of three."""
    taken = []
    for _ in range(3):
        began = time.thread_time()
        work()
        taken.append((time.thread_time() - began) * 1000)
    return min(taken)


def run(options: argparse.Namespace) -> tuple[Result, Result]:
    """The growth of profiles, and the layouts."""
    people = Population(options.users, options.items)
    command = (
        f"python -m benchmarks.profiles_study --events {options.events} --items {options.items} "
        f"--users {options.users} --days {options.days}"
    )
    grown = Result("profiles", command, growth(people, options.events, options.days))
    events = drawn(people, options.events)
    asked = cohorts(people, events)
    expected = [np.bincount(events.item[each.joint[events.joint]], minlength=options.items) for each in asked]
    rows: list[dict[str, object]] = []
    kinds: tuple[Callable[[Events, int], Layout], ...] = (Rows, Runs, Ordered, Factored, Hourly)
    for kind in kinds:
        layout = kind(events, options.items)
        row: dict[str, object] = {"layout": layout.name, "bytes a cell": layout.nbytes / len(events.item)}
        for cohort, counts in zip(asked, expected, strict=True):
            assert (layout.sum(cohort)[: options.items] == counts).all(), (layout.name, cohort.name)
            share = cohort.joint[events.joint].mean()
            row[f"{cohort.name} ({share:.1%}) ms"] = best_ms(lambda of=cohort, kept=layout: kept.sum(of))  # type: ignore[misc]
        rows.append(row)
        del layout
    rows.append({"layout": "values", "bytes a cell": values_bytes(people, events) / len(events.item)})
    notes = [f"{len(events.item):,} events, {len(events.dimension_of):,} joint profiles on that day"]
    return grown, Result("layouts", command, rows, notes)


def _index(ascending: U32) -> ProfileIndex:
    begins = np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]]))
    return ProfileIndex.of(ascending[begins], np.append(begins, len(ascending)).astype(np.uint32))


def _count(counts: npt.NDArray[np.int32], items: U32) -> None:
    ones = np.ones(65_536, dtype=np.int32)
    for start in range(0, len(items), len(ones)):
        part = items[start : start + len(ones)]
        np.add.at(counts, part, ones[: len(part)])


def main() -> int:
    """Command line."""
    made = parser("profiles_study", __doc__)
    made.add_argument("--events", type=int, default=10_000_000)
    made.add_argument("--items", type=int, default=1_000_000)
    made.add_argument("--users", type=int, default=1_000_000)
    made.add_argument("--days", type=int, default=7)
    options = made.parse_args()
    if options.short:
        options.events, options.items, options.users, options.days = 300_000, 30_000, 30_000, 2
    grown, layouts = run(options)
    sys.stdout.write(markdown(grown))
    report(layouts, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
