"""Durations as people write them (``30m``, ``24h``, ``7d``), and the windows that counts are kept for."""

from __future__ import annotations

import re
from typing import Final

import msgspec

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

_UNITS_MS: Final = {"ms": 1, "s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}
_DURATION: Final = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
DURATION_MS_MAX: Final = 36_500 * DAY_MS
"""A century: longer ones are typing errors, and the bound keeps sums of times far from 2^63."""


class Window(msgspec.Struct, frozen=True):
    """A window of ``buckets`` buckets of ``bucket_ms``, the current one included; all_time has none (0)."""

    name: str
    duration_ms: int
    bucket_ms: int
    buckets: int


ALL_TIME: Final = "all_time"

WINDOWS: Final[dict[str, Window]] = {
    window.name: window
    for window in (
        Window("1h", HOUR_MS, MINUTE_MS, 60),
        Window("24h", DAY_MS, HOUR_MS, 24),
        Window("7d", 7 * DAY_MS, HOUR_MS, 168),
        Window("30d", 30 * DAY_MS, DAY_MS, 30),
        Window(ALL_TIME, 0, 0, 0),
    )
}
"""Every window there is, from the shortest to all_time."""

LONGEST_WINDOW_MS: Final = max(window.duration_ms for window in WINDOWS.values())
"""An event that reaches the log later than this is *late*: no window can hold it any more."""


def parse_duration(text: str) -> int:
    """Milliseconds of ``30m``, ``24h``, ``7d``, ``90s``, ``250ms``.

    Raises:
        ValueError: not a whole positive number with a unit, or longer than a century.
    """
    found = _DURATION.fullmatch(text)
    duration_ms = int(found[1]) * _UNITS_MS[found[2]] if found else 0
    if not 0 < duration_ms <= DURATION_MS_MAX:
        raise ValueError(f"{text!r} is not a duration; write a whole number and a unit, like 30m, 24h or 7d")
    return duration_ms


def format_duration(duration_ms: int) -> str:
    """The label of a duration: the largest unit that divides it, but ``24h`` for one day."""
    if duration_ms % DAY_MS == 0 and duration_ms > DAY_MS:
        return f"{duration_ms // DAY_MS}d"
    for unit in ("h", "m", "s"):
        if duration_ms % _UNITS_MS[unit] == 0:
            return f"{duration_ms // _UNITS_MS[unit]}{unit}"
    return f"{duration_ms}ms"
