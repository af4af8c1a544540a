"""Exact cohorts made up in the query: first time, again, under ingest, and what a cell takes in memory.

    python -m benchmarks.cohorts [--events 10000000] [--items 1000000] [--users 1000000] [--segments]

A day of events of a population with ten dimensions (``benchmarks.population``; with ``--segments`` also
twenty behavioural segments) is put into queryd's columns. Then pages of 50 of the trend of the last 24 hours
are taken for composites of depth 3 (AND, OR, NOT) that nobody asked for before, by the executor's whole read
path: mask, sum, filters, best of all items, ranking. Not included: parsing, HTTP, records of the page.
The sum of every profile, from which wide cohorts are told, is made before, as queryd does between queries.
``cpu`` is the thread's own time, ``wall`` includes whatever else the machine does.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.population import DIMENSIONS, SEGMENTS, Population
from benchmarks.results import Result, parser, report
from benchmarks.still_site import StillSite
from materializers.rows.blocks import BlockColumns, BlockDeltas, encode_deltas
from materializers.tables.feed import Change, Section
from queryd.hot.bucket_reads import bucket_range
from queryd.hot.cells import Cells
from queryd.hot.cold import COHORT_BLOCKS, GLOBAL_BLOCKS
from queryd.hot.cube import EVERY_PROFILE
from schemas.weights import WEIGHT_SCALE

HOURS = 25  # the last 24 whole ones and the present
LIMIT = 50
FLUSH_MS = 20
SHARES = ((0.0, 0.02), (0.02, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 1.0))
GOAL_FIRST_MS, GOAL_CACHED_MS, GOAL_INGEST_MS, GOAL_CELL_BYTES = 10.0, 2.0, 15.0, 16.0


class Times:
    """Durations of one thing, in ms."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def __enter__(self) -> Times:
        self._began, self._began_cpu = time.perf_counter(), time.thread_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.cpu.append((time.thread_time() - self._began_cpu) * 1000)
        self.wall.append((time.perf_counter() - self._began) * 1000)

    def row(self) -> dict[str, Any]:
        """Columns of a table."""
        if not self.cpu:
            return {"queries": 0}
        return {
            "queries": len(self.cpu),
            "cpu p50 ms": float(np.percentile(self.cpu, 50)),
            "cpu p99 ms": float(np.percentile(self.cpu, 99)),
            "wall p50 ms": float(np.percentile(self.wall, 50)),
            "wall p99 ms": float(np.percentile(self.wall, 99)),
        }


class Day:
    """A site whose last 24 hours hold ``events`` views."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.people = Population(options.users, options.items)
        self.with_segments = bool(options.segments)
        self.site = StillSite([dimension.name for dimension in DIMENSIONS], SEGMENTS)
        self.now_ms = int(time.time() * 1000)
        self.site.add_items(options.items)
        self._dimension_keys = self.people.dimension_keys()
        self._number_profiles()
        self._fill(options.events)

    def _number_profiles(self) -> None:
        """Number what is known by string, as loading does; what comes new while hours pass is not."""
        _, first = np.unique(self._dimension_keys, return_index=True)
        segments = self.people.segments[first] if self.with_segments else None
        strings = sorted(self.people.strings(first, segments))
        for start in range(0, len(strings), 8_192):
            self.site.hot.profiles.deal(strings[start : start + 8_192])

    def _fill(self, events: int) -> None:
        hour = self.now_ms // 3_600_000
        cube, everybody = self.site.hot.by_profile, self.site.hot.everybody
        for back in range(HOURS - 1, -1, -1):
            items, profiles = self.drawn(events // (HOURS - 1))
            for start in range(0, len(items), 8_192):
                rows = slice(start, start + 8_192)
                cells = _ones(items[rows], profiles[rows])
                cube.add(self.site.view, cells, minute=None, hour=hour - back, loading=True)
                plain = Cells(cells.item, None, cells.count, cells.sum)
                everybody.add(self.site.view, plain, minute=None, hour=hour - back, loading=True)
            if self.with_segments:
                self.people.pass_hours()
        self.site.settle(self.now_ms)

    def drawn(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Items and profiles of new events, u32[count] each."""
        users = self.people.draw_users(count)
        segments = self.people.segments[users] if self.with_segments else None
        keys = self._dimension_keys[users].astype(np.int64)
        if segments is not None:
            keys = keys << len(SEGMENTS) | segments
        _, first, place = np.unique(keys, return_index=True, return_inverse=True)
        strings = self.people.strings(users[first], None if segments is None else segments[first])
        return self.people.draw_items(count), self.site.hot.profiles.deal(strings)[place]

    def flush(self, count: int) -> Change:
        """A flush of new events as a worker feeds it."""
        items, profiles = self.drawn(count)
        ones = np.ones(count, dtype=np.int64)
        codes = np.full(count, self.site.view_code, dtype=np.uint32)
        minute = np.full(count, int(time.time() * 1000) // 60_000, dtype=np.uint32)
        resolution = np.zeros(count, dtype=np.uint8)
        sections = []
        for name, column in ((GLOBAL_BLOCKS, None), (COHORT_BLOCKS, profiles)):
            cells = BlockColumns(items, codes, column, ones, ones * WEIGHT_SCALE)
            sections.append(Section(name, 0, encode_deltas(BlockDeltas(resolution, minute, cells))))
        return Change(0, self.now_ms, sections)


def composites(people: Population, rng: np.random.Generator, count: int, *, segments: bool) -> list[str]:
    """Distinct predicates ``(a OR b) AND c AND NOT (d AND e)`` and the like, of values as users have them."""
    found: dict[str, None] = {}
    while len(found) < count:
        names = rng.choice([dimension.name for dimension in DIMENSIONS], 4, replace=False).tolist()
        user = rng.integers(0, people.users, 5)
        leaf = [
            f"{name}:{people.value(name, int(people.values[name][who]))}"
            for name, who in zip(names, user, strict=False)
        ]
        other = f"{names[0]}:{people.value(names[0], int(people.values[names[0]][user[4]]))}"
        last = str(rng.choice(SEGMENTS)) if segments else leaf[3]
        found[f"({leaf[0]} OR {other}) AND {leaf[1]} AND NOT ({leaf[2]} AND {last})"] = None
        if rng.random() < 0.5:
            found[f"(({leaf[0]} OR {other}) AND NOT {leaf[2]}) OR ({leaf[1]} AND {last})"] = None
    return list(found)[:count]


def measured(day: Day, count: int, rounds: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Tables and the figures that goals speak of."""
    site, rng = day.site, np.random.default_rng(11)
    wanted = bucket_range("24h", day.now_ms)
    firsts = {share: Times() for share in SHARES}
    cached, moderate = Times(), Times()
    cohorts = composites(day.people, rng, count, segments=day.with_segments)
    plans = [site.plan(cohort, "24h", LIMIT) for cohort in cohorts]
    total = site.hot.by_profile.rows_to_sum(site.view, wanted)
    for warm in composites(day.people, rng, 3, segments=day.with_segments):
        site.page(site.plan(warm, "24h", LIMIT), day.now_ms)
    whole = Times()
    with whole:
        every = site.hot.profiles.mask(EVERY_PROFILE)
        site.hot.by_profile.standing(site.view, wanted, every, EVERY_PROFILE, "24h")
    for plan in plans:
        times = Times()
        with times:
            site.page(plan, day.now_ms)
        assert plan.cohort is not None
        cells = site.hot.by_profile.rows_to_sum(site.view, wanted, site.hot.profiles.mask(plan.cohort))
        share = next(each for each in SHARES if cells / total <= each[1])
        for into in (firsts[share], *([moderate] if cells / total <= SHARES[2][1] else [])):
            into.wall += times.wall
            into.cpu += times.cpu
        with cached:
            site.page(plan, day.now_ms)
    rows = [
        {"read": f"first, {low:.0%} to {high:.0%} of {total:,} cells match", **times.row()}
        for (low, high), times in firsts.items()
    ]
    rows.append({"read": "the sum of every profile, which the first wide cohort asks for", **whole.row()})
    rows.append({"read": "again", **cached.row()})
    rows.append({"read": "under 20,000 events/s, five cohorts", **under_ingest(day, plans[:5], rounds).row()})
    return rows, {
        "first": float(np.percentile(moderate.cpu, 95)) if moderate.cpu else float("nan"),
        "cached": float(np.percentile(cached.cpu, 95)),
        "ingest": rows[-1]["wall p99 ms"],
        "ingest cpu": rows[-1]["cpu p99 ms"],
        "cell bytes": site.hot.by_profile.cell_bytes / max(1, site.hot.by_profile.cells),
    }


def under_ingest(day: Day, plans: Sequence[Any], rounds: int) -> Times:
    """Pages of cohorts that were asked for before, each after a flush of 20 ms of events."""
    times = Times()
    for plan in plans:
        day.site.page(plan, day.now_ms)
    flushes = [day.flush(20_000 * FLUSH_MS // 1000) for _ in range(50)]
    for number in range(rounds):
        day.site.apply(flushes[number % len(flushes)])
        with times:
            day.site.page(plans[number % len(plans)], int(time.time() * 1000))
    return times


def goals(figures: dict[str, float], shown: str) -> list[str]:
    """HOLDS or MISSED for each."""
    checks = (
        (
            "first time, up to a tenth of the cells matching, p95 of CPU",
            figures["first"],
            GOAL_FIRST_MS,
            "ms",
        ),
        ("again, p95 of CPU", figures["cached"], GOAL_CACHED_MS, "ms"),
        ("24h cohort trend under 20,000 events/s, p99 of CPU", figures["ingest cpu"], GOAL_INGEST_MS, "ms"),
        ("24h cohort trend under 20,000 events/s, p99 of wall time", figures["ingest"], GOAL_INGEST_MS, "ms"),
        ("memory of a profile cell", figures["cell bytes"], GOAL_CELL_BYTES, "bytes"),
    )
    return [
        f"{'HOLDS' if value <= goal else 'MISSED'}: {name}{shown}: {value:.2f} {unit} (goal {goal:g})"
        for name, value, goal, unit in checks
    ]


def run(options: argparse.Namespace) -> Result:
    """Fill, ask."""
    began = time.perf_counter()
    day = Day(options)
    filled_s = time.perf_counter() - began
    rows, figures = measured(day, options.queries, options.rounds)
    hot = day.site.hot
    cells, profiles = hot.by_profile.cells, len(hot.profiles)
    notes = [
        *goals(figures, ""),
        f"{cells:,} profile cells in {hot.by_profile.cell_bytes / 1e6:,.0f} MB: "
        f"{hot.by_profile.cell_bytes / cells:,.1f} MB for each million; everybody's "
        f"{hot.everybody.cells:,} in {hot.everybody.cell_bytes / 1e6:,.0f} MB",
        f"{profiles:,} profiles in {hot.profiles.nbytes / 1e6:,.0f} MB, "
        f"{hot.profiles.nbytes / profiles:,.0f} bytes each",
        f"filling took {filled_s:.0f} s, most of it making the events",
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB",
    ]
    command = (
        f"python -m benchmarks.cohorts --events {options.events} --items {options.items} "
        f"--users {options.users}{' --segments' if options.segments else ''}"
    )
    return Result("cohorts", command, rows, notes)


def _ones(items: np.ndarray, profiles: np.ndarray) -> Cells:
    count = np.ones(len(items), dtype=np.uint32)
    return Cells(items, profiles, count, count.astype(np.int64) * WEIGHT_SCALE)


def main() -> int:
    """Command line."""
    made = parser("cohorts", __doc__)
    made.add_argument("--events", type=int, default=10_000_000)
    made.add_argument("--items", type=int, default=1_000_000)
    made.add_argument("--users", type=int, default=1_000_000)
    made.add_argument("--segments", action="store_true", help="twenty behavioural segments as well")
    made.add_argument("--queries", type=int, default=100, help="composites to ask")
    made.add_argument("--rounds", type=int, default=500, help="pages under ingest")
    options = made.parse_args()
    if options.short:
        options.events, options.items, options.users = 500_000, 50_000, 50_000
        options.queries, options.rounds = 40, 100
    report(run(options), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
