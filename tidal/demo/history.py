"""What the raw log says, in plain Python: loops over events, dictionaries, and the formulas as defined.

Nothing here shares code with the engine's views. It is slow and simple on purpose: the demo's answers are
held against it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from schemas.model import Schema
from tidal.demo.raw_log import Event

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

# Length of a bucket and number of buckets of each window.
WINDOWS: Final = {"1h": (60_000, 60), "24h": (HOUR_MS, 24), "7d": (HOUR_MS, 168), "30d": (DAY_MS, 30)}

# Learning rate of the long-term vector: at first, at least, and over how many updates it falls.
ETA_0: Final = 1.0
ETA_MIN: Final = 0.05
ETA_TAU: Final = 20.0

Vector = list[float]


class Weighted(NamedTuple):
    """The weight of an edge as of a time; it decays from there."""

    weight: float
    updated_ms: int


class History:
    """Everything that was published, each event once.

    items, users, creators: records by id.
    """

    def __init__(
        self,
        schema: Schema,
        events: Iterable[Event],
        items: dict[str, dict[str, Any]],
        users: dict[str, dict[str, Any]],
        creators: dict[str, dict[str, Any]],
    ) -> None:
        self.schema = schema
        self.items = {id_: item for id_, item in items.items() if item.get("status", "active") == "active"}
        self.users = users
        self.creators = creators
        self.published = 0
        self.repeated = 0
        self.by_kind: dict[str, list[Event]] = defaultdict(list)
        self.by_user: dict[str, list[Event]] = defaultdict(list)
        for event in self._first_of_each(events):
            self.by_kind[event.kind].append(event)
            self.by_user[event.user].append(event)

    def _first_of_each(self, events: Iterable[Event]) -> Iterator[Event]:
        """An event repeats an earlier one when kind, item, user and second are the same."""
        seen: set[tuple[str, str, str, int]] = set()
        for event in events:
            self.published += 1
            identity = (event.kind, event.item, event.user, event.ts_ms // 1000)
            if identity in seen:
                self.repeated += 1
                continue
            seen.add(identity)
            yield event

    def members(self, belongs: Callable[[dict[str, Any]], bool]) -> set[str]:
        """Ids of the users whose record satisfies a condition."""
        return {id_ for id_, record in self.users.items() if belongs(record)}

    def counts(self, signal: str, window: str, at_ms: int, users: set[str] | None = None) -> Counter[str]:
        """Events of a signal by item in the buckets of a window, of everybody or of some users."""
        low_ms, high_ms = window_bounds(window, at_ms)
        return Counter(
            event.item
            for event in self.by_kind[signal]
            if low_ms <= event.ts_ms < high_ms and (users is None or event.user in users)
        )

    def decayed(self, signal: str, half_life_ms: int, at_ms: int, items: Iterable[str]) -> dict[str, float]:
        """Σ weight · 2^(−age / half-life) over the events of each of some items."""
        parts: dict[str, list[float]] = {item: [] for item in items}
        for event in self.by_kind[signal]:
            if event.item in parts:
                parts[event.item].append(event.weight * 2.0 ** (-(at_ms - event.ts_ms) / half_life_ms))
        return {item: math.fsum(values) for item, values in parts.items()}

    def state(self, user: str, state: str) -> set[str]:
        """The items that a user has in a state."""
        items: set[str] = set()
        for event in self.by_user[user]:
            signal = self.schema.signals[event.kind]
            if state in signal.clears:
                items.discard(event.item)
            if state in signal.state:
                items.add(event.item)
        return items

    def preference(self, user: str, slot: str) -> Vector | None:
        """The long-term vector of a user, None before the first update."""
        vector: Vector | None = None
        updates = 0
        for event in self._on_known_items(user):
            strength = self.schema.signals[event.kind].preference * event.weight
            if strength == 0.0:
                continue
            eta = strength * max(ETA_MIN, ETA_0 / (1.0 + updates / ETA_TAU))
            step = [eta * value for value in self.embedding(event.item, slot)]
            moved = step if vector is None else [a + b for a, b in zip(vector, step, strict=True)]
            vector = unit(moved)
            updates += 1
        return vector

    def relationship(self, user: str, edge_type: str) -> dict[str, Weighted]:
        """The weights of a user's implicit edges by creator."""
        half_life_ms = self.schema.relationships[edge_type].half_life_ms
        edges: dict[str, Weighted] = {}
        for event in self._on_known_items(user):
            delta = self.schema.signals[event.kind].relationship.get(edge_type, 0.0)
            creator = self.items[event.item].get("creator")
            if delta == 0.0 or creator is None:
                continue
            before = edges.get(creator, Weighted(0.0, event.ts_ms))
            newest_ms = max(before.updated_ms, event.ts_ms)
            kept = before.weight * left(newest_ms - before.updated_ms, half_life_ms)
            added = delta * left(newest_ms - event.ts_ms, half_life_ms)
            edges[creator] = Weighted(min(1.0, max(0.0, kept + added)), newest_ms)
        return edges

    def embedding(self, item: str, slot: str) -> Vector:
        """An item's vector at length 1."""
        return unit(self.items[item]["embeddings"][slot])

    def _on_known_items(self, user: str) -> Iterator[Event]:
        return (event for event in self.by_user[user] if event.item in self.items)


def window_bounds(window: str, at_ms: int) -> tuple[float, float]:
    """First and (exclusive) last instant of the buckets of a window, the current one included."""
    if window == "all_time":
        return -math.inf, math.inf
    bucket_ms, buckets = WINDOWS[window]
    end_ms = (at_ms // bucket_ms + 1) * bucket_ms
    return end_ms - buckets * bucket_ms, end_ms


def left(elapsed_ms: int, half_life_ms: int | None) -> float:
    """What is left of 1 after a time; all of it without a half-life."""
    return 1.0 if half_life_ms is None else 2.0 ** (-elapsed_ms / half_life_ms)


def unit(vector: Vector) -> Vector:
    """The vector at length 1."""
    length = math.sqrt(math.fsum(value * value for value in vector))
    return [value / length for value in vector]


def dot(first: Vector, second: Vector) -> float:
    """The cosine of two vectors of length 1."""
    return math.fsum(a * b for a, b in zip(first, second, strict=True))
