"""Ranges of buckets: minutes or hours, first to last."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.durations import HOUR_MS, MINUTE_MS

FOREVER = 1 << 62


@dataclass(frozen=True, slots=True)
class BucketRange:
    """Buckets ``low`` to ``high``, both included, of ``unit`` minute or hour."""

    minutes: bool
    low: int
    high: int

    def shifted(self, windows: int) -> BucketRange:
        """The range as long as this one, ``windows`` lengths later (negative: earlier)."""
        length = (self.high - self.low + 1) * windows
        return BucketRange(self.minutes, self.low + length, self.high + length)

    @property
    def unit_ms(self) -> int:
        """Length of one bucket."""
        return MINUTE_MS if self.minutes else HOUR_MS


ALL_TIME = BucketRange(False, -FOREVER, FOREVER)


def since(hour: int) -> BucketRange:
    """Every hour from ``hour`` on."""
    return BucketRange(False, hour, FOREVER)
