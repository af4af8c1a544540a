"""What one request counts of cohorts: within one budget, and with one statement of how exact it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from queryd.estimate.budget import Choice
from queryd.estimate.counts import CountEstimate, Estimator
from queryd.estimate.estimator import CohortEstimator, Count
from queryd.hot.arrays import I64, U32
from queryd.hot.windows import BucketRange

_ORDER: Final[tuple[Estimator, ...]] = ("exact", "ipf", "independence")


class CohortCounts:
    """Choices and estimates of one request. Rows that exact answers sum are taken from its budget."""

    def __init__(self, estimator: CohortEstimator) -> None:
        self._estimator = estimator
        self._choices: dict[Count, Choice] = {}
        self._estimates: dict[Count, CountEstimate] = {}
        self._hot_rows = 0
        self._cold_rows = 0

    @property
    def estimator(self) -> Estimator:
        """The least exact one that was used."""
        return max((choice.estimator for choice in self._choices.values()), key=_ORDER.index, default="exact")

    @property
    def used(self) -> bool:
        """Whether anything was counted of a cohort."""
        return bool(self._choices)

    def choose(self, count: Count) -> Choice:
        """How a count is to be answered; nothing is taken from the budget."""
        known = self._choices.get(count)
        if known is not None:
            return known
        if self._estimator.is_hot(count):
            return self._estimator.choose(count, self._hot_rows)
        return self._estimator.choose_cold(count, self._cold_rows)

    def decide(self, count: Count) -> Choice:
        """As ``choose``, and it is answered like that throughout the request."""
        choice = self._choices.get(count)
        if choice is None:
            choice = self._choices[count] = self.choose(count)
            if choice.estimator == "exact":
                hot = self._estimator.is_hot(count)
                self._hot_rows += choice.rows if hot else 0
                self._cold_rows += 0 if hot else choice.rows
        return choice

    def estimate(self, count: Count, total: I64, range_at: Callable[[int], BucketRange]) -> CountEstimate:
        """The estimate of a count; what it lacked is made for the next one."""
        found = self._estimates.get(count)
        if found is None:
            if self._estimator.is_hot(count):
                found = self._estimator.estimate(count, total)
                self._estimator.ask_ahead(count, range_at)
            else:
                found = self._estimator.estimate_cold(count, total)
            self._estimates[count] = found
        return found

    def ask_whole(self, count: Count, range_at: Callable[[int], BucketRange]) -> None:
        """Have the sum made of what a count's cohort is a large part of."""
        self._estimator.ask_whole(count, range_at)

    def relative_bound(self, items: U32) -> float:
        """The largest bound of any count of these items that is not 0; 0 when all are exact."""
        worst = 0.0
        for estimate in self._estimates.values():
            told = items[np.rint(estimate.counts[items]) > 0]
            worst = max(worst, float(np.max(estimate.relative_bounds(told), initial=0.0)))
        return worst
