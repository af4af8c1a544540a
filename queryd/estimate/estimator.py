"""Decides for each count of a cohort whether it is summed or estimated, and estimates it.

The *two-way counters* that estimates are fitted to are standing sums of the cube: of a class of one dimension
together with a class of another. They equal the exact sums because they are exact sums.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from queryd.estimate.ahead import AheadSums, Wanted
from queryd.estimate.budget import Budget, Choice
from queryd.estimate.classes import Axis, Table, pair, reduced
from queryd.estimate.counters import Counters
from queryd.estimate.counts import CountEstimate, Known, estimated
from queryd.estimate.sampling import SAMPLE_CELLS, Sample, counted, spread, thinned
from queryd.hot.arrays import I64, Counts
from queryd.hot.cells import Cells
from queryd.hot.cold import ColdTier
from queryd.hot.columns import HotColumns
from queryd.hot.cube import EVERY_PROFILE
from queryd.hot.windows import BucketRange
from schemas.predicate import Predicate

_TABLES_MAX: Final = 256
_COLD_CELLS_MAX: Final = 4 * SAMPLE_CELLS
_FOLLOW_ROWS_MAX: Final = 500_000
"""Kept sums are followed for an estimate if all of them together have no more to add: some 10 ms."""


@dataclass(frozen=True, slots=True)
class Count:
    """What is counted: a signal over a range, under the label that its standing sums have, for a cohort."""

    signal: int
    wanted: BucketRange
    label: str
    cohort: Predicate


class CohortEstimator:
    """One for an engine.

    Args:
        ahead: is told which sums were missed.
    """

    def __init__(self, hot: HotColumns, cold: ColdTier, budget: Budget, ahead: AheadSums) -> None:
        self._hot = hot
        self._cold = cold
        self._ahead = ahead
        self._tables: OrderedDict[Predicate, tuple[int, Table]] = OrderedDict()
        self.budget = budget
        self.estimates = 0

    def is_hot(self, count: Count) -> bool:
        """Whether all that is counted is in memory."""
        return self._hot.by_profile.is_hot(count.wanted)

    def choose(self, count: Count, rows_spent: int) -> Choice:
        """How a count in memory is answered, after ``rows_spent`` rows were summed for the same query."""
        rows_max = max(0, self.budget.hot_rows - rows_spent)
        rows = self._rows(count, count.cohort, enough=rows_max)
        if rows <= rows_max:
            return Choice("exact", rows, rows_max, "its rows are within the budget")
        table = self._table(count.cohort)
        singles, pairs = self._known(count, table)
        why = f"{rows:,} rows would have to be summed, the budget has {rows_max:,} left"
        if pairs:
            return Choice("ipf", rows, rows_max, f"{why}; fitted to two-way counters")
        known = "counters of single values" if singles else "everybody's counts and a sample"
        why = f"{why}; two-way counters are not kept yet: fitted to {known}"
        return Choice("independence", rows, rows_max, why)

    def ask_ahead(self, count: Count, range_at: Callable[[int], BucketRange]) -> None:
        """Have the sums made that would have answered a count, over its range as of each time in epoch ms."""
        axes = self._table(count.cohort).axes
        predicates = [count.cohort, *_singles(axes), *_pairs(axes)]
        self._ahead.ask(
            (Wanted(count.signal, count.label, count.wanted.minutes, each) for each in predicates), range_at
        )

    def ask_whole(self, count: Count, range_at: Callable[[int], BucketRange]) -> None:
        """Have the sum of all profiles made over a count's range, from which that of a wide cohort is quickly
        told."""
        self._ahead.ask([Wanted(count.signal, count.label, count.wanted.minutes, EVERY_PROFILE)], range_at)

    def estimate(self, count: Count, total: I64) -> CountEstimate:
        """Estimate a count in memory from what is kept. ``total`` i64[items] are everybody's events."""
        self.estimates += 1
        table = self._table(count.cohort)
        cells = self._hot.by_profile.sample(count.signal, count.wanted, SAMPLE_CELLS)
        return estimated(table, self._known_of(count, table, total), self._sampler(cells, table, len(total)))

    def choose_cold(self, count: Count, rows_spent: int) -> Choice:
        """How a count that needs the tables is answered, after ``rows_spent`` rows were read from them."""
        rows_max = max(0, self.budget.cold_rows - rows_spent)
        rows = self._cold.rows_to_read(self._past(count.wanted), by_profile=True, enough=rows_max)
        if rows <= rows_max:
            return Choice("exact", rows, rows_max, "its rows are within the budget of the tables")
        why = f"{rows:,} rows or more would be read from the tables, the budget has {rows_max:,} left"
        return Choice("independence", rows, rows_max, f"{why}; fitted to everybody's counts and a sample")

    def estimate_cold(self, count: Count, total: I64) -> CountEstimate:
        """Estimate a count of the past from everybody's, and from all profiles in a part of that time."""
        self.estimates += 1
        table = self._table(count.cohort)
        cells = [
            piece.cells
            for part in self._affordable(self._past(count.wanted))
            for piece in self._cold.pieces(count.signal, part, None, by_profile=True)
        ]
        sampler = self._sampler(thinned(cells, _COLD_CELLS_MAX), table, len(total))
        return estimated(table, Counters(table, total, [], {}).known(), sampler)

    def _affordable(self, past: BucketRange) -> list[BucketRange]:
        """Hours that lie evenly in a range, twice as many as long as the budget is enough to read them."""
        chosen, hours = spread(past, 1), 2
        while hours < 2 * (past.high - past.low + 1):
            parts = spread(past, hours)
            rows = 0
            for part in parts:
                rows += self._cold.rows_to_read(part, by_profile=True, enough=self.budget.cold_rows - rows)
                if rows > self.budget.cold_rows:
                    return chosen
            chosen, hours = parts, 2 * hours
        return chosen

    def _past(self, wanted: BucketRange) -> BucketRange:
        """The part of a range that is not in memory."""
        return BucketRange(False, wanted.low, min(wanted.high, self._hot.by_profile.horizon_hour - 1))

    def _sampler(self, cells: Sequence[Cells], table: Table, items: int) -> Callable[[I64], Sample]:
        codes = table.codes(self._hot.profiles)
        size = max([items, *(int(part.item.max()) + 1 for part in cells if len(part))])
        return lambda rows: counted(cells, codes, table.allowed.size, rows, size)

    def _table(self, cohort: Predicate) -> Table:
        """The cohort's table; made anew when there are profiles that it may not know."""
        known = self._tables.pop(cohort, None)
        if known is None or known[0] != len(self._hot.profiles):
            known = (len(self._hot.profiles), reduced(cohort, self._hot.profiles))
        self._tables[cohort] = known
        if len(self._tables) > _TABLES_MAX:
            self._tables.popitem(last=False)
        return known[1]

    def _rows(self, count: Count, predicate: Predicate, *, enough: int = 0) -> int:
        mask = self._hot.profiles.mask(predicate)
        return self._hot.by_profile.rows_to_sum(
            count.signal, count.wanted, mask, predicate, count.label, enough=enough
        )

    def _known(self, count: Count, table: Table) -> tuple[bool, bool]:
        """Whether the counters of all classes are kept, and those of all pairs of them as well."""
        singles = self._kept(count, _singles(table.axes))
        return singles, len(table.axes) > 1 and singles and self._kept(count, _pairs(table.axes))

    def _kept(self, count: Count, predicates: Iterator[Predicate]) -> bool:
        cube, rows = self._hot.by_profile, 0
        for predicate in predicates:
            had = cube.standing_range(count.signal, count.wanted.minutes, predicate, count.label)
            if had is None or not had.low <= count.wanted.low <= had.high <= count.wanted.high:
                return False
            rows += self._rows(count, predicate)
        return rows <= _FOLLOW_ROWS_MAX

    def _known_of(self, count: Count, table: Table, total: I64) -> Known:
        singles, pairs = self._known(count, table)
        sums = Counters(
            table,
            total,
            [[self._sum(count, each, len(total)) for each in axis.classes] for axis in table.axes]
            if singles
            else [],
            {
                (first, second): [
                    [self._sum(count, pair(one, other), len(total)) for other in table.axes[second].classes]
                    for one in table.axes[first].classes
                ]
                for first, second in combinations(range(len(table.axes)), 2)
                if pairs
            },
        )
        return sums.known()

    def _sum(self, count: Count, predicate: Predicate, items: int) -> Counts:
        mask = self._hot.profiles.mask(predicate)
        standing = self._hot.by_profile.standing(count.signal, count.wanted, mask, predicate, count.label)
        standing.widen(items)
        return standing.counts[:items]


def _singles(axes: Sequence[Axis]) -> Iterator[Predicate]:
    for axis in axes:
        yield from axis.classes


def _pairs(axes: Sequence[Axis]) -> Iterator[Predicate]:
    for first, second in combinations(axes, 2):
        for one in first.classes:
            for other in second.classes:
                yield pair(one, other)
