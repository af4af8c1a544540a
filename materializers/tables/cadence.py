"""When the next flush or checkpoint is due: soon when idle, seldom enough under load that rows coalesce."""

from __future__ import annotations

from typing import Final

import msgspec


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one recurring piece of work.

    Attributes:
        interval_min_s: between the end of one run and the start of the next, when runs are quick.
        rest_per_run: rest this many times as long as the last run took: a duty cycle of 1/(1 + rest_per_run).
        interval_max_s: never rest longer, however long a run took.
        interval_steady_s: while there is work whenever a run is due, the least interval doubles from run to
            run up to this.
    """

    interval_min_s: float
    rest_per_run: float = 4.0
    interval_max_s: float = 10.0
    interval_steady_s: float = 0.0

    def rest_s(self, run_s: float, runs_before: int = 0) -> float:
        """How long to rest after a run that took ``run_s`` and followed so many others without a pause."""
        steady_s = min(self.interval_min_s * 2.0**runs_before, self.interval_steady_s)
        return min(max(self.interval_min_s, steady_s, run_s * self.rest_per_run), self.interval_max_s)


FLUSH_PACE = Pace(interval_min_s=0.020, rest_per_run=2.0)
"""20 ms keeps acknowledged-to-visible far below 100 ms; a flush of a few rows takes about 1 ms."""
STEADY_CHECKPOINTS: Final = 4.0
"""Under steady load checkpoints are so many times rarer: nobody sees one, and each costs as much whatever it
carries.
"""
CHECKPOINT_PACE = Pace(interval_min_s=0.250, interval_steady_s=0.250 * STEADY_CHECKPOINTS)
"""A transaction costs the log several round trips for each partition; at 250 ms a fifth of a core."""
_DOUBLINGS_MAX: Final = 16


class Cadence:
    """Pure arithmetic on a monotonic clock that the caller reads."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._due_s = 0.0
        self._runs = 0
        self.last_run_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long from ``now_s`` until the next run may start, 0 if it may at once."""
        return max(0.0, self._due_s - now_s)

    def ran(self, ended_s: float, run_s: float, rests: float = 1.0) -> None:
        """Record a run that took ``run_s``: elapsed time, or the CPU time that it took from other work.

        ``rests``: so many times the rest in proportion to the run.
        """
        self.last_run_s = run_s
        self._due_s = ended_s + self._pace.rest_s(run_s * rests, self._runs)
        self._runs = min(self._runs + 1, _DOUBLINGS_MAX)

    def paused(self) -> None:
        """A run was due and there was nothing to do."""
        self._runs = 0
