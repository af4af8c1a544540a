"""Two cohorts beside each other: what one of them is more interested in than the other.

An item's *rate* in a cohort is its share of all events of the signal that came from there, so that a large
cohort can be compared with a small one; its *lift* is the rate in the first over the rate in the second.

With counts a of A and b of B, half an event is added to every count and total:

    lift = ((a + ½) / (A + ½)) / ((b + ½) / (B + ½))
    SE²  = 1/(a + ½) − 1/(A + ½) + 1/(b + ½) − 1/(B + ½)
    interval = lift · exp(±z · SE)

the logarithmic interval of a ratio of two proportions (D. Katz et al., Biometrics 34, 1978) with the
correction that makes the logarithm of a count nearly unbiased, and defined at 0 (S. D. Walter, Biometrika 62,
1975; A. R. Pettigrew, J. J. Gart, D. G. Thomas, Biometrika 73, 1986). It pulls what was seldom counted to no
difference. Events are taken as independent: of a signal that few people send again and again, the interval
is too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from queryd.errors import QueryError, nearest_name
from queryd.hot.arrays import F64, I64, U32
from queryd.hot.bucket_reads import Scope
from queryd.hot.columns import HotColumns
from queryd.hot.reads import SignalReads
from queryd.ranking.order import top
from queryd.reply import CohortComparison, ComparedCohort, ComparedItem
from schemas.durations import ALL_TIME
from schemas.errors import shown
from schemas.model import Schema
from schemas.predicate import Predicate

CONFIDENCE: Final = 0.95
_Z: Final = 1.959963984540054
"""Quantile of the normal distribution that leaves half of 1 − CONFIDENCE above it."""
MIN_COUNT: Final = 5
"""Events of an item in both cohorts together below which its interval says next to nothing."""


@dataclass(frozen=True, slots=True)
class Lifts:
    """``lift`` and the ends of its interval, f64[n] each, all above 0."""

    lift: F64
    low: F64
    high: F64


def lifts(a: I64, b: I64, total_a: int, total_b: int) -> Lifts:
    """Lifts of counts a i64[n] of ``total_a`` over b i64[n] of ``total_b``; formula as above."""
    of_a, all_a = a + 0.5, total_a + 0.5
    of_b, all_b = b + 0.5, total_b + 0.5
    lift = (of_a / all_a) / (of_b / all_b)
    variance = (1 / of_a - 1 / all_a) + (1 / of_b - 1 / all_b)
    factor = np.exp(_Z * np.sqrt(np.maximum(variance, 0.0)))
    return Lifts(lift, lift / factor, lift * factor)


@dataclass(frozen=True, slots=True)
class Question:
    """What is compared: cohorts ``a`` and ``b`` as they were asked for, by the events of ``signal``."""

    a: str
    b: str
    signal: str
    window: str
    limit: int
    min_count: int

    def check(self, schema: Schema) -> None:
        """Raises:
        QueryError: the schema has no such signal, or the signal no such window.
        """
        if self.signal not in schema.signals:
            known = sorted(schema.signals)
            near = nearest_name(self.signal, known)
            raise QueryError(
                f"no signal is called {self.signal!r}", expected=known[:20], nearest=near, path="signal"
            )
        windows = [*dict.fromkeys([*schema.signals[self.signal].windows, ALL_TIME])]
        if self.window not in windows:
            near = nearest_name(self.window, windows)
            raise QueryError(
                f"the signal {self.signal!r} has no window {self.window!r}",
                expected=windows,
                nearest=near,
                path="window",
            )


def compare(
    question: Question,
    cohorts: tuple[Predicate, Predicate],
    sizes: tuple[int, int],
    hot: HotColumns,
    reads: SignalReads,
) -> CohortComparison:
    """The items with the highest lift of the first cohort over the second, ties by id.

    Totals are those of all events; items that queries do not show are not listed.
    """
    signal = hot.schema.signal_index[question.signal]
    a, b = (reads.counts(signal, question.window, Scope(cohort)) for cohort in cohorts)
    totals = int(a.sum()), int(b.sum())
    seen = (a + b > 0) & hot.items.visible()
    rows = np.flatnonzero(seen & (a + b >= question.min_count)).astype(np.uint32)
    sides = (
        ComparedCohort(question.a, sizes[0], totals[0]),
        ComparedCohort(question.b, sizes[1], totals[1]),
    )
    overlap = bool((hot.profiles.mask(cohorts[0]) & hot.profiles.mask(cohorts[1])).any())
    return CohortComparison(
        a=sides[0],
        b=sides[1],
        signal=question.signal,
        window=question.window,
        at=reads.at_ms,
        confidence=CONFIDENCE,
        min_count=question.min_count,
        estimator=reads.estimator,
        error_bound=reads.error_bound(rows),
        results=_ranked(rows, a[rows], b[rows], totals, question.limit, hot) if all(totals) else [],
        items_compared=len(rows),
        items_left_out=int(seen.sum()) - len(rows),
        warnings=[*_warnings(sides, overlap, reads.estimator != "exact"), *reads.warnings()],
    )


def _ranked(
    rows: U32, a: I64, b: I64, totals: tuple[int, int], limit: int, hot: HotColumns
) -> list[ComparedItem]:
    found = lifts(a, b, *totals)
    best = top(rows, found.lift, limit, hot.items.ordinals)
    return [
        ComparedItem(
            id=hot.items.ordinals.ids[int(rows[place])],
            rank=rank,
            count_a=int(a[place]),
            count_b=int(b[place]),
            rate_a=int(a[place]) / totals[0],
            rate_b=int(b[place]) / totals[1],
            lift=float(found.lift[place]),
            lift_low=float(found.low[place]),
            lift_high=float(found.high[place]),
        )
        for rank, place in enumerate(best.tolist(), start=1)
    ]


def _warnings(sides: tuple[ComparedCohort, ComparedCohort], overlap: bool, estimated: bool) -> list[str]:
    """What whoever reads the numbers must know."""
    found = [
        f"the cohort {shown(side.cohort)} has no such event in this window: there is nothing to compare"
        for side in sides
        if not side.events
    ]
    if overlap:
        found.append("the cohorts overlap: events of whoever is in both count on both sides")
    if estimated:
        found.append("counts are estimated: the intervals say nothing of the error of the estimate")
    return found
