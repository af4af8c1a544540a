"""Relative trending by loops over the events of one signal and one scope, as ``queryd.ranking.relative`` and
``queryd.hot.history`` define it. For sites whose hours are all kept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

HOUR_MS, DAY_MS, MINUTE_MS = 3_600_000, 86_400_000, 60_000
WINDOW_HOURS = {"1h": 1, "24h": 24, "7d": 168}


class Score(NamedTuple):
    """A score and what it was made of; ``windows`` of own past."""

    score: float
    expected: float
    deviation: float
    windows: int


def relative_scores(
    events: Sequence[tuple[str, int]],
    created_ms: Mapping[str, int],
    window: str,
    at_ms: int,
    now_ms: int,
) -> dict[str, Score]:
    """The score of each item with an event in the window, from (item, ts_ms) of every event."""
    current, first_hour, last_hour, passed = _current(events, window, at_ms, now_ms)
    hours = last_hour - first_hour + 1
    period = max(24, hours)
    most = 28 * 24 // period

    by_hour = Counter((item, ts_ms // HOUR_MS) for item, ts_ms in events)

    def had(item: str, ago: int) -> float:
        low, high = first_hour - ago * period, last_hour - ago * period
        return sum(by_hour[item, hour] for hour in range(low, high)) + passed * by_hour[item, high]

    items = {item for item, _ in events}
    held = [ago for ago in range(1, most + 2) if any(had(item, ago) for item in items)]
    windows = max(held, default=1) - 1
    past = {item: [had(item, ago) for ago in range(1, windows + 1)] for item in items}
    own = {item: _windows_of(past[item], created_ms.get(item), first_hour, period) for item in items}
    if windows >= 3:
        known = [item for item in items if any(past[item])]
        mean, strength = _prior([(sum(past[item]), own[item]) for item in known])
    else:
        mean, strength = _prior([(float(count), 1) for count in current.values()])
        past, own = {item: [] for item in items}, dict.fromkeys(items, 0)
    return {item: _score(count, past[item], own[item], mean, strength) for item, count in current.items()}


def _current(
    events: Sequence[tuple[str, int]], window: str, at_ms: int, now_ms: int
) -> tuple[dict[str, int], int, int, float]:
    """Counts of the window, its hours, and the part of the last one that has passed."""
    hours = WINDOW_HOURS[window]
    at_hour = at_ms // HOUR_MS
    by_minute = hours == 1 and at_ms // MINUTE_MS - 59 >= now_ms // MINUTE_MS - 180
    passed = 1.0
    if by_minute:
        low = at_ms // MINUTE_MS - 59
        inside = [item for item, ts_ms in events if low <= ts_ms // MINUTE_MS < low + 60]
        first = last = (at_ms - HOUR_MS // 2) // HOUR_MS
    else:
        first, last = at_hour - hours + 1, at_hour
        inside = [item for item, ts_ms in events if first <= ts_ms // HOUR_MS <= last]
        if hours > 1 and at_hour == now_ms // HOUR_MS:
            passed = (at_ms // MINUTE_MS % 60 + 1) / 60
    return {item: inside.count(item) for item in set(inside)}, first, last, passed


def _windows_of(past: list[float], created_ms: int | None, first_hour: int, period: int) -> int:
    """How many of the scope's windows an item was there for."""
    oldest = max((ago for ago, count in enumerate(past, 1) if count), default=0)
    lived = 0
    if created_ms is not None:
        lived = sum((first_hour - ago * period) * HOUR_MS >= created_ms for ago in range(1, len(past) + 1))
    return max(oldest, lived)


def _prior(pasts: list[tuple[float, int]]) -> tuple[float, float]:
    """Mean and strength of the gamma prior by moments."""
    exposure = sum(windows for _, windows in pasts)
    if not exposure:
        return 0.0, 1e9
    mean = math.fsum(total for total, _ in pasts) / exposure
    spread = math.fsum(windows * (total / windows - mean) ** 2 for total, windows in pasts) / exposure
    between = spread - mean / (exposure / len(pasts))
    return mean, mean / between if between > mean / 1e9 else 1e9


def _score(count: int, past: list[float], windows: int, mean: float, strength: float) -> Score:
    total = math.fsum(past)
    if windows >= 3 and total / windows >= 10:
        expected = total / windows
        # Windows before the item's own past hold nothing of it: they are no part of its spread.
        within = math.fsum((each - expected) ** 2 for each in past[:windows]) / (windows - 1)
        variance = max(within, expected)
    else:
        expected = (mean * strength + total) / (strength + windows)
        variance = expected + (expected / (strength + windows) if windows < 3 else 0.0)
    deviation = math.sqrt(max(variance, 1.0))
    return Score((count - expected) / deviation, expected, deviation, windows)
