"""When the next flush or checkpoint is due: soon when idle, seldom enough under load that rows coalesce."""

from __future__ import annotations

import msgspec


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one recurring piece of work.

    Attributes:
        interval_min_s: between the end of one run and the start of the next, when runs are quick.
        rest_per_run: rest this many times as long as the last run took: a duty cycle of 1/(1 + rest_per_run).
        interval_max_s: never rest longer, however long a run took.
    """

    interval_min_s: float
    rest_per_run: float = 4.0
    interval_max_s: float = 10.0

    def rest_s(self, run_s: float) -> float:
        """How long to rest after a run that took ``run_s``."""
        return min(max(self.interval_min_s, run_s * self.rest_per_run), self.interval_max_s)


FLUSH_PACE = Pace(interval_min_s=0.020, rest_per_run=2.0)
"""20 ms keeps acknowledged-to-visible far below 100 ms; a flush of a few rows takes about 1 ms."""
CHECKPOINT_PACE = Pace(interval_min_s=0.250)
"""A transaction costs the log several round trips for each partition; 250 ms loses 5 % of throughput to
it.
"""


class Cadence:
    """Pure arithmetic on a monotonic clock that the caller reads."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._due_s = 0.0
        self.last_run_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long from ``now_s`` until the next run may start, 0 if it may at once."""
        return max(0.0, self._due_s - now_s)

    def ran(self, ended_s: float, run_s: float) -> None:
        """Record a run that took ``run_s``: elapsed time, or the CPU time that it took from other work."""
        self.last_run_s = run_s
        self._due_s = ended_s + self._pace.rest_s(run_s)
