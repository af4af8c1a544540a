"""Synthetic traffic: busy and quiet users, items with a long tail, every signal of the default schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from schemas.default import default_schema
from schemas.model import SignalDef
from schemas.records.columns import EventColumns
from schemas.weights import WEIGHT_SCALE

# Six signals have most of a site's traffic; the others share the rest evenly.
BUSY_SHARES: Final = {
    "view": 0.41,
    "like": 0.05,
    "skip": 0.07,
    "share": 0.02,
    "completion": 0.09,
    "dwell_time": 0.12,
}
SECONDS: Final = 30.0
LOCALES: Final = ("US", "GB", "DE", "FR", "BR", "JP", "IN", "MX")

# Popularity of items and activity of users fall with their rank to these powers.
ITEM_EXPONENT: Final = 0.9
USER_EXPONENT: Final = 0.6


class Traffic:
    """Events of `users` users about `items` items, a seed away from the same ones again."""

    def __init__(self, users: int, items: int, seed: int = 7) -> None:
        self._rng = np.random.default_rng(seed)
        self.users = [f"user_{number}" for number in range(users)]
        self.items = [f"item_{number}" for number in range(items)]
        signals = default_schema().signal_list
        self._kinds = [signal.name for signal in signals]
        self._shares = _shares(self._kinds)
        self._weights = np.array([_weight(signal) for signal in signals])
        self._user_ends = _cumulated(users, USER_EXPONENT)
        self._item_ends = _cumulated(items, ITEM_EXPONENT)

    def events(self, count: int, first_ms: int, last_ms: int) -> EventColumns:
        """`count` events, evenly spread from `first_ms` to `last_ms`."""
        rng = self._rng
        kind = rng.choice(len(self._kinds), size=count, p=self._shares)
        return EventColumns(
            kinds=list(self._kinds),
            items=self.items,
            users=self.users,
            kind=kind.astype(np.uint16),
            item=np.searchsorted(self._item_ends, rng.random(count)).astype(np.uint32),
            user=np.searchsorted(self._user_ends, rng.random(count)).astype(np.uint32),
            weight=self._weights[kind],
            ts_ms=np.linspace(first_ms, last_ms, count).astype(np.int64),
        )

    def user_records(self) -> Iterator[dict[str, Any]]:
        """A record of each user, with locale, language and age."""
        ages = self._rng.integers(13, 70, size=len(self.users))
        locales = self._rng.choice(LOCALES, size=len(self.users))
        for user, age, locale in zip(self.users, ages.tolist(), locales.tolist(), strict=True):
            yield {"id": user, "locale": locale, "language": "en", "age": age}

    def item_records(self, dim: int, created_at_ms: int) -> Iterator[dict[str, Any]]:
        """A record of each item, with a creator and an embedding of `dim` numbers."""
        for number, item in enumerate(self.items):
            vector = self._rng.normal(size=dim)
            yield {
                "id": item,
                "creator": f"creator_{number % max(1, len(self.items) // 10)}",
                "title": f"Item {number}",
                "category": f"category_{number % 20}",
                "created_at": created_at_ms,
                "embeddings": {"content": np.round(vector / np.linalg.norm(vector), 4).tolist()},
            }


def _shares(kinds: Sequence[str]) -> list[float]:
    rest = (1.0 - sum(BUSY_SHARES.values())) / (len(kinds) - len(BUSY_SHARES))
    return [BUSY_SHARES.get(kind, rest) for kind in kinds]


def _weight(signal: SignalDef) -> int:
    """One, or so many seconds, inside the signal's range; in micro-units."""
    wanted = SECONDS if signal.name == "dwell_time" else 1.0
    low, high = signal.value_range or (wanted, wanted)
    return round(min(max(wanted, low), high) * WEIGHT_SCALE)


def _cumulated(count: int, exponent: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    ends: np.ndarray[tuple[int], np.dtype[np.float64]] = np.cumsum(weights / weights.sum())
    ends[-1] = 1.0
    return ends
