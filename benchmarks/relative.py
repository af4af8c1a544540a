"""How long relative trending takes: the past of an hour read for the first time, and kept.

    python -m benchmarks.relative [--items 200000] [--events 10000000] [--profiles 2000]

Events of 30 days go into queryd's columns, by the hour and by cohort profile, items by Zipf's law, twice as
many in the evening as in the morning. Then each window is ranked for everybody and for two cohorts, through
the measure that queries use, top 50 included. *first*: nothing of the past is kept. *kept*: the next query,
after a flush of 400 new events. *late*: one of them was for a compared hour of yesterday, whose window is
read again. A large past is read by several queries; *first* is the first of them. Times are CPU.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from benchmarks.results import Result, parser, report
from queryd.execute.context import Context
from queryd.execute.report import Report
from queryd.execute.sources import SOURCES
from queryd.hot.cells import Cells
from queryd.hot.cold import ColdTier
from queryd.hot.columns import HotColumns
from queryd.hot.feeder import HOT_HOURS
from queryd.hot.reads import SignalReads
from queryd.language.parse import parse_query
from queryd.plan.planner import make_plan
from schemas.durations import HOUR_MS, MINUTE_MS
from schemas.loading import load_schema
from schemas.model import Schema

FIRST_GOAL_MS, KEPT_GOAL_MS = 30.0, 3.0
GOAL_ITEMS = 200_000
DAYS = 30
AGES = ("13-17", "18-24", "25-34", "35-44", "45-54", "55+")
NOW_MS = 1_763_600_000_000 // HOUR_MS * HOUR_MS + 25 * MINUTE_MS
SCOPES = {
    "everybody": "",
    "one cell in 60": "locale:L1, age:18-24",
    "one cell in 3": "age:18-24 OR age:25-34",
}
REPEATS = 7


class Site:
    """Columns of a synthetic site."""

    def __init__(self, schema: Schema, items: int, events: int, profiles: int) -> None:
        self.schema = schema
        self.hot = HotColumns(schema)
        self.rng = np.random.default_rng(3)
        self.hot.items.ordinals.deal([f"item_{number}" for number in range(items)])
        self.profiles = self.hot.profiles.deal(
            [
                schema.profile_string({"locale": f"L{n % 10}", "age": AGES[n // 10 % 6], "language": f"l{n}"})
                for n in range(profiles)
            ]
        )
        self.popular = (1.0 / np.arange(1, items + 1) ** 0.8).cumsum()
        self.popular /= self.popular[-1]
        for cube in (self.hot.everybody, self.hot.by_profile):
            cube.expire(NOW_MS, HOT_HOURS)
        last = NOW_MS // HOUR_MS
        for hour in range(last - DAYS * 24, last + 1):
            share = (1.0 + 0.33 * np.sin(hour % 24 / 24 * 2 * np.pi)) / (DAYS * 24)
            self.count(round(events * share), hour, loading=True)
        for cube in (self.hot.everybody, self.hot.by_profile):
            for _ in cube.tidy():
                pass

    def count(self, events: int, hour: int, *, loading: bool = False) -> None:
        """Events of an hour, in both cubes; those of the last hours in their minutes as well."""
        items = np.searchsorted(self.popular, self.rng.random(events)).astype(np.uint32)
        profiles = self.profiles[self.rng.integers(0, len(self.profiles), events)]
        ones, sums = np.ones(events, dtype=np.uint32), np.full(events, 1_000_000, dtype=np.int64)
        recent = hour * HOUR_MS > NOW_MS - 3 * HOUR_MS
        for number, rows in enumerate(np.array_split(np.arange(events), 60 if recent else 1)):
            minute = hour * 60 + number if recent else None
            for cube, profile in ((self.hot.everybody, None), (self.hot.by_profile, profiles[rows])):
                cells = Cells(items[rows], profile, ones[rows], sums[rows])
                cube.add(0, cells, minute=minute, hour=hour, loading=loading)

    def query(self, text: str) -> Callable[[], Any]:
        """A query's source, ready to run."""
        plan = make_plan(parse_query(text), self.schema)

        def run() -> Any:
            context = Context(
                plan=plan,
                hot=self.hot,
                reads=SignalReads(self.hot, cast("ColdTier", None), NOW_MS, NOW_MS),
                users=cast("Any", None),
                text=cast("Any", None),
                vectors=cast("Any", None),
                titles=cast("Any", None),
                report=Report(time.monotonic() + 60),
                at_ms=NOW_MS,
                seed=0,
                shown=np.zeros(0, dtype=np.uint32),
            )
            context.allowed = np.ones(context.items, dtype=np.bool_)
            return SOURCES[plan.sources[0].source].retrieve(context, 50)

        return run


def cpu_ms(run: Callable[[], Any]) -> float:
    """CPU time of this thread."""
    began = time.thread_time()
    run()
    return (time.thread_time() - began) * 1000


def measured(site: Site, scope: str, cohort: str, window: str) -> dict[str, Any]:
    """One line of the table."""
    clause = f" COHORT {cohort}" if cohort else ""
    relative = site.query(f"RETRIEVE items SORT BY trending_relative WINDOW {window}{clause}")
    trending = site.query(f"RETRIEVE items SORT BY trending WINDOW {window}{clause}")
    trending()  # the mask and the current window are what every query of the cohort has
    first = []
    for _ in range(3):
        site.hot.history.clear()
        first.append(cpu_ms(relative))
    queries = 1
    while relative().notes["unread"]:
        queries += 1
    kept, late, plain = [], [], []
    hour = NOW_MS // HOUR_MS
    for _ in range(REPEATS):
        site.count(400, hour)
        plain.append(cpu_ms(trending))
        kept.append(cpu_ms(relative))
        site.count(1, hour - 25)
        late.append(cpu_ms(relative))
    found = relative()
    return {
        "scope": scope,
        "window": window,
        "items now": found.total,
        "windows": found.notes["windows"],
        "read by": queries,
        "first ms": min(first),
        "kept ms": sorted(kept)[REPEATS // 2],
        "late ms": sorted(late)[REPEATS // 2],
        "trending ms": sorted(plain)[REPEATS // 2],
        "kept MB": site.hot.history.nbytes / 1e6,
    }


def main() -> int:
    arguments = parser("relative", __doc__)
    arguments.add_argument("--items", type=int, default=GOAL_ITEMS)
    arguments.add_argument("--events", type=int, default=10_000_000)
    arguments.add_argument("--profiles", type=int, default=2_000)
    given = arguments.parse_args()
    events = given.events // 10 if given.short else given.events
    site = Site(load_schema({"name": "benchmark"}), given.items, events, given.profiles)
    rows = [
        measured(site, scope, cohort, window) for window in ("1h", "24h") for scope, cohort in SCOPES.items()
    ]
    notes = [f"{events:,} events of {DAYS} days, {given.items:,} items, {given.profiles:,} profiles."]
    for name, goal in (("first ms", FIRST_GOAL_MS), ("kept ms", KEPT_GOAL_MS)):
        for window in ("1h", "24h"):
            worst = max(row[name] for row in rows if row["window"] == window)
            verdict = "HOLDS" if worst <= goal else "MISSED"
            notes.append(f"{verdict}: {window}, {name} at most {goal:g}: {worst:.1f} ms.")
    command = f"python -m benchmarks.relative --items {given.items} --events {events}"
    report(Result("Relative trending", command, rows, notes), given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
