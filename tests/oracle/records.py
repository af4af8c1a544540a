"""From raw log records to events, one record at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from schemas.model import Schema
from schemas.records.decode import decode_records

SIGNALS = "tidal.signals"
RELATIONSHIPS = "tidal.relationships"
KIND_OF_TOPIC = {"tidal.items": "item", "tidal.users": "user", "tidal.creators": "creator"}


class LogRecord(NamedTuple):
    """One record as a consumer sees it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes] = {}

    @property
    def type(self) -> str:
        """``tidal-type`` of the engine's own records, else ``""``."""
        return self.headers.get("tidal-type", b"").decode()


class Event(NamedTuple):
    """One event; ``weight`` in micro-units. ``partition`` and ``offset`` say where it was folded,
    ``profile`` the user's cohort profile at that place of the log."""

    partition: int
    offset: int
    record_ms: int
    kind: str
    item: str
    user: str
    weight: int
    ts_ms: int
    profile: str = "{}"


class Reject(NamedTuple):
    """A refused event, or a whole record (``event`` None)."""

    topic: str
    partition: int
    offset: int
    event: int | None
    code: str


def events_of(
    record: LogRecord, schema: Schema, first_seen_ms: int | None = None
) -> tuple[list[Event], list[Reject]]:
    """The good events of a signals record in order, and what is refused.

    ``first_seen_ms`` is the time of the record that this one repeats, if it does: the default of ``ts``.
    """
    times = np.array([record.timestamp_ms], dtype=np.int64)
    first = times if first_seen_ms is None else np.array([first_seen_ms], dtype=np.int64)
    decoded = decode_records([record.value or b""], times, schema, first)
    columns = decoded.columns
    rows = zip(
        columns.kind.tolist(),
        columns.item.tolist(),
        columns.user.tolist(),
        columns.weight.tolist(),
        columns.ts_ms.tolist(),
        strict=True,
    )
    events = [
        Event(
            partition=record.partition,
            offset=record.offset,
            record_ms=record.timestamp_ms,
            kind=columns.kinds[kind],
            item=columns.items[item],
            user=columns.users[user],
            weight=weight,
            ts_ms=ts_ms,
        )
        for kind, item, user, weight, ts_ms in rows
    ]
    rejects = [
        Reject(record.topic, record.partition, record.offset, reject.event, reject.error.code)
        for reject in decoded.rejects
    ]
    return events, rejects


def in_log_order(records: list[LogRecord], topic: str) -> Iterator[LogRecord]:
    """Records of one topic, partition by partition."""
    chosen = [record for record in records if record.topic == topic]
    yield from sorted(chosen, key=lambda record: (record.partition, record.offset))
