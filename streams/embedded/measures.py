"""What a running log counts of itself: plain numbers, kept on its event loop, told by `metrics`."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from streams.embedded.codec import APIS

# From an answer out of memory to a long poll.
REQUEST_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
# From a drive with a battery to one that is in trouble.
SYNC_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)


class Histogram:
    """Counts of values by upper bound; the last count is of those above all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Measures:
    """Of one log since its start."""

    def __init__(self) -> None:
        # By API key; from the moment its turn came to its answer, waiting for data or the disk included.
        self.request_s = {key: Histogram(REQUEST_BOUNDS_S) for key in APIS}
        # Connections that the log refused or closed, by reason.
        self.closed: Counter[str] = Counter()
