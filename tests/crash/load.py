"""A seeded load: who writes what, in which form, in which order. The same seed gives the same records.

Nothing here depends on the time of the run but the anchor that is handed in: two runs with one seed and one
anchor publish the same bytes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas.loading import load_schema
from schemas.records.edge_key import edge_key

SCHEMA_FILE = Path(__file__).with_name("schema.yaml")
USUAL_KINDS = ("view", "view", "view", "view", "like", "share", "completion", "dwell_time", "skip")
EDGE_TYPES = ("follows", "follows", "blocks", "mutes")
UPDATES_SHARE = 0.03
"""Of the records after the first ones: entities and edges that are written again or deleted."""
LOCALES = ("US", "GB", "BR", "JP")
DIMENSIONS = 16
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Write:
    """One record as a stranger's Kafka client would publish it."""

    topic: str
    key: bytes | None
    value: bytes | None
    events: int = 0


class Load:
    """Deterministic writes of a small site.

    Args:
        seed: everything follows from it.
        anchor_ms: the newest event time; events reach back 30 hours from it.
        users, items, creators: sizes of the populations; popularity is Zipf-like.
    """

    def __init__(
        self, seed: int, anchor_ms: int, users: int = 400, items: int = 300, creators: int = 40
    ) -> None:
        self._random = random.Random(seed)
        self._anchor_ms = anchor_ms
        self._users = [f"user_{n}" for n in range(users)]
        self._items = [f"item_{n}" for n in range(items)]
        self._creators = [f"creator_{n}" for n in range(creators)]
        self._recent: list[dict[str, object]] = []
        self._kinds = (*USUAL_KINDS, *load_schema(SCHEMA_FILE).signals)
        self._edges: list[bytes] = []

    def entities(self) -> Iterator[Write]:
        """Every user, item and creator once."""
        for user in self._users:
            yield self._user(user)
        for item in self._items:
            yield self._item(item)
        for creator in self._creators:
            yield _record("tidal.creators", creator, {"id": creator, "name": creator.title()})

    def signals(self, count: int) -> Iterator[Write]:
        """Records of at least ``count`` events: single, in arrays, repeated, late; a few are refused."""
        written = 0
        while written < count:
            write = self._signal_record()
            written += max(write.events, 1)
            yield write
            if self._random.random() < UPDATES_SHARE:
                yield self._update()

    def _update(self) -> Write:
        draw = self._random.random()
        if draw < 0.15:
            return self._user(self._random.choice(self._users))
        if draw < 0.17:  # erases the user, who may come back
            return Write("tidal.users", self._random.choice(self._users).encode(), None)
        if draw < 0.45:
            return self._item(self._random.choice(self._items))
        if draw < 0.50:
            return Write("tidal.items", self._random.choice(self._items).encode(), None)
        if draw < 0.60:
            creator = self._random.choice(self._creators)
            name = f"{creator.title()} {self._random.randint(2, 99)}"
            return _record("tidal.creators", creator, {"id": creator, "name": name})
        if draw < 0.85 or not self._edges:
            return self._edge()
        return Write("tidal.relationships", self._random.choice(self._edges), None)

    def _edge(self) -> Write:
        user, creator = self._random.choice(self._users), self._random.choice(self._creators)
        key = edge_key(self._random.choice(EDGE_TYPES), user, creator)
        self._edges = [*self._edges[-200:], key]
        value = {"weight": round(self._random.random(), 3)}
        return Write("tidal.relationships", key, json.dumps(value).encode())

    def _signal_record(self) -> Write:
        draw = self._random.random()
        if draw < 0.002:
            return self._refused()
        if draw < 0.03 and self._recent:
            return _signals([self._random.choice(self._recent)])
        if draw < 0.25:
            user = self._random.choice(self._users)
            return _signals([self._event(user) for _ in range(self._random.randint(2, 20))])
        return _signals([self._event(self._pick(self._users))])

    def _event(self, user: str) -> dict[str, object]:
        kind = self._random.choice(self._kinds)
        event: dict[str, object] = {
            "kind": kind,
            "item": self._pick(self._items),
            "user": user,
            "ts": self._time(),
        }
        if kind == "dwell_time":
            event["weight"] = round(self._random.uniform(0.1, 90.0), 3)
        self._recent = [*self._recent[-50:], event]
        return event

    def _time(self) -> int:
        draw = self._random.random()
        if draw < 0.7:
            return self._anchor_ms - int(self._random.random() * HOUR_MS)
        return self._anchor_ms - int(self._random.random() * 30 * HOUR_MS)

    def _pick(self, population: list[str]) -> str:
        return population[int(len(population) * self._random.random() ** 2.5)]

    def _refused(self) -> Write:
        user = self._random.choice(self._users)
        bad: list[bytes] = [
            b'{"kind": "view", "item": ',
            json.dumps({"kind": "no_such_kind", "item": "item_1", "user": user}).encode(),
            json.dumps({"kind": "view", "item": "x" * 300, "user": user}).encode(),
            json.dumps(
                {"kind": "view", "item": "item_1", "user": user, "ts": self._anchor_ms + 10**9}
            ).encode(),
        ]
        return Write("tidal.signals", user.encode(), self._random.choice(bad))

    def _user(self, user: str) -> Write:
        attributes = {"id": user, "locale": self._random.choice(LOCALES), "age": self._random.randint(13, 60)}
        return _record("tidal.users", user, attributes)

    def _item(self, item: str) -> Write:
        vector = [round(self._random.gauss(0, 1), 4) for _ in range(DIMENSIONS)]
        record = {
            "id": item,
            "creator": self._random.choice(self._creators),
            "title": f"Title of {item}",
            "category": self._random.choice(("music", "sport", "news")),
            "created_at": self._anchor_ms - self._random.randint(0, 100) * HOUR_MS,
            "embeddings": {"content": vector},
        }
        return _record("tidal.items", item, record)


def _record(topic: str, key: str, value: dict[str, object]) -> Write:
    return Write(topic, key.encode(), json.dumps(value).encode())


def _signals(events: list[dict[str, object]]) -> Write:
    value = events[0] if len(events) == 1 else events
    return Write("tidal.signals", str(events[0]["user"]).encode(), json.dumps(value).encode(), len(events))
