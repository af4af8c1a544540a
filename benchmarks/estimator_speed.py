"""What an estimate of a cohort costs beside the exact sum, in ms of CPU; part of ``benchmarks.estimator``.

A month of one signal's cells, one event each, on Zipf-distributed items and 40,000 profiles of ten
dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from benchmarks.results import Result
from queryd.estimate.ahead import AheadSums
from queryd.estimate.budget import Budget
from queryd.estimate.estimator import CohortEstimator, Count
from queryd.hot.arrays import I64
from queryd.hot.cells import Cells
from queryd.hot.cold import ColdTier
from queryd.hot.columns import HotColumns
from queryd.hot.windows import BucketRange
from schemas.cohort_profile import encode_profile
from schemas.default import default_schema
from schemas.durations import HOUR_MS
from schemas.predicate import parse_predicate
from schemas.weights import WEIGHT_SCALE

HOURS: Final = 720
PROFILES: Final = 40_000
VALUES: Final = (2, 2, 3, 3, 4, 4, 5, 6, 8, 10)
MONTH: Final = BucketRange(False, 0, HOURS - 1)
COMPOSITES: Final = ("d0:v0 AND d2:v0 AND NOT d4:v1", "d0:v0 AND d2:v0 AND d4:v1")


class NoTables:
    """A site without a past."""

    def partitions(self, scope: object) -> Sequence[int]:
        """None."""
        return []


def filled(items: int, cells: int) -> tuple[HotColumns, I64]:
    """Columns with so many cells, and everybody's counts i64[items]."""
    chance = np.random.default_rng(11)
    hot = HotColumns(default_schema())
    labels = np.stack([chance.integers(0, count, PROFILES) for count in VALUES], axis=1)
    profiles = hot.profiles.deal(
        [encode_profile({f"d{place}": f"v{value}" for place, value in enumerate(row)}) for row in labels]
    )
    total = np.zeros(items, dtype=np.int64)
    edges = np.linspace(0, cells, HOURS + 1).astype(np.int64)
    for hour, (begin, end) in enumerate(pairwise(edges.tolist())):
        ranks = (items ** chance.random(end - begin)).astype(np.int64)
        item = (ranks * 48_271 % items).astype(np.uint32)
        profile = profiles[chance.integers(0, PROFILES, end - begin)]
        ones = np.ones(end - begin, dtype=np.uint32)
        part = Cells(item, profile, ones, ones.astype(np.int64) * WEIGHT_SCALE)
        hot.by_profile.add(0, part, minute=None, hour=hour, loading=True)
        total += np.bincount(item, minlength=items)
    hot.by_profile.expire((HOURS + 1) * HOUR_MS, 10 * HOURS)
    for _ in hot.by_profile.tidy():
        pass
    return hot, total


def speeds(*, short: bool) -> Result:
    """One row for each way of answering."""
    items, cells = (100_000, 1_000_000) if short else (1_000_000, 8_000_000)
    hot, total = filled(items, cells)
    ahead = AheadSums(hot, lambda: 0)
    estimator = CohortEstimator(hot, ColdTier(NoTables(), hot), Budget(1, 1), ahead)  # type: ignore[arg-type]
    first, other = (Count(0, MONTH, "30d", parse_predicate(text)) for text in COMPOSITES)
    rows = estimator.choose(first, 0).rows
    mask = hot.profiles.mask(first.cohort)
    estimator.ask_ahead(first, lambda _: MONTH)
    work: dict[str, Callable[[], object]] = {
        "count the rows of an exact answer": lambda: estimator.choose(first, 0),
        "sum them": lambda: hot.by_profile.standing(0, MONTH, mask, None, "apart"),
        "estimate from everybody's counts": lambda: estimator.estimate(first, total),
        "make seven sums ahead, in slices": lambda: list(ahead.work()),
        "estimate from two-way counters": lambda: estimator.estimate(other, total),
    }
    found = []
    for what, run in work.items():
        began = time.thread_time()
        run()
        took_ms = (time.thread_time() - began) * 1000
        found.append(
            {"what": what, "CPU ms": took_ms, "rows/ms": rows / took_ms if what == "sum them" else None}
        )
    title = f"Cost of an answer: {items:,} items, {cells:,} cells, of which {rows:,} match"
    return Result(title, "python -m benchmarks.estimator" + " --short" * short, found)
