"""A log that remembers what it was given."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from schemas.records.columns import EventColumns
from streams.positions import Position


class RecordingLog:
    """A log in memory. After `fail_after` batches of events it is away."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.entities: list[tuple[str, str, Mapping[str, Any] | None]] = []
        self.batches: list[EventColumns] = []
        self.raw: list[tuple[str, bytes | None, bytes]] = []
        self.fail_after = fail_after

    def put_entity(self, kind: str, id: str, record: Mapping[str, Any] | None) -> Future[Position]:
        self.entities.append((kind, id, record))
        return _resolved(Position(f"tidal.{kind}s", 0, len(self.entities) - 1))

    def publish_columns(self, columns: EventColumns) -> Future[list[Position]]:
        if self.fail_after is not None and len(self.batches) >= self.fail_after:
            future: Future[list[Position]] = Future()
            future.set_exception(ConnectionError("the log is away"))
            return future
        self.batches.append(columns)
        return _resolved([Position("tidal.signals", 0, len(self.batches) - 1)])

    def publish_raw(self, topic: str, key: bytes | None, value: bytes) -> Future[Position]:
        self.raw.append((topic, key, value))
        return _resolved(Position(topic, 1, len(self.raw) - 1))

    @property
    def events(self) -> list[tuple[str, str, str, float, int]]:
        """(kind, item, user, weight, ts_ms) of every event, in the order in which they came."""
        return [event for batch in self.batches for event in events_in(batch)]


def events_in(columns: EventColumns) -> list[tuple[str, str, str, float, int]]:
    """(kind, item, user, weight, ts_ms) of each event."""
    return [
        (
            columns.kinds[columns.kind[row]],
            columns.items[columns.item[row]],
            columns.users[columns.user[row]],
            int(columns.weight[row]) / 1e6,
            int(columns.ts_ms[row]),
        )
        for row in range(len(columns))
    ]


def _resolved(result: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(result)
    return future
