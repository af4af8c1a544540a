"""How many rows an exact answer about a cohort may sum, and what was decided for one count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from queryd.estimate.counts import Estimator
from schemas.settings import QuerydSettings

HOT_ROWS_PER_MS: Final = 40_000
"""Matching cells summed from memory in a millisecond; ``python -m benchmarks.estimator`` measures it."""
COLD_ROWS_PER_MS: Final = 4_000
"""Rows read from the tables, decoded and summed in a millisecond."""
_SHARE_OF_DEADLINE: Final = 0.5
"""The other half is for the query's other stages."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Rows that the exact answers of one query may sum: cells in memory, and rows of the cold tier."""

    hot_rows: int
    cold_rows: int

    @classmethod
    def of(cls, settings: QuerydSettings, deadline_ms: int) -> Budget:
        """As set; a setting of 0 is what half of the deadline is enough for."""
        time_ms = deadline_ms * _SHARE_OF_DEADLINE
        return cls(
            settings.cohort_rows_max or int(time_ms * HOT_ROWS_PER_MS),
            settings.cohort_cold_rows_max or int(time_ms * COLD_ROWS_PER_MS),
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """How a count of a cohort is answered: by ``estimator``, because of ``rows`` against ``rows_max``.

    ``rows`` is what the exact answer reads now, given the sums that are kept; beyond ``rows_max`` counting
    may stop, so that it is a lower limit then.
    """

    estimator: Estimator
    rows: int
    rows_max: int
    why: str
