"""A bound on the open files of closed segments, over all partitions."""

from __future__ import annotations

from collections import OrderedDict

from streams.embedded.segment import Segment


class OpenFiles:
    """Closes the closed segment that was not read for longest when there are too many.

    A segment that still has bytes to sync is left alone; its turn comes again with a later read.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._segments: OrderedDict[Segment, None] = OrderedDict()

    def touch(self, segment: Segment) -> None:
        """`segment` is about to be read."""
        self._segments[segment] = None
        self._segments.move_to_end(segment)
        if len(self._segments) > self._limit:
            oldest, _ = self._segments.popitem(last=False)
            if oldest.pending or oldest.syncing:
                self._segments[oldest] = None
            else:
                oldest.close()

    def forget(self, segment: Segment) -> None:
        """`segment` is gone from its partition."""
        self._segments.pop(segment, None)
        segment.close()
