"""What a caller hands to the producer, checked and turned into requests: the part that both faces share."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from schemas.errors import RecordError, shown
from schemas.model import Schema
from schemas.records.columns import EventColumns
from schemas.records.edge_key import edge_key
from schemas.records.entities import decode_edge, decode_entity
from schemas.settings import ProducerSettings
from streams.bulk_ack import BulkAck
from streams.column_split import chunks
from streams.log_client import Headers
from streams.pending_event import EVENT_OVERHEAD_BYTES, EventRules, PendingEvent
from streams.producer_core import ColumnsRequest, Publication, RecordRequest
from streams.settled import Settled
from streams.topics import ENTITY_TOPICS, RELATIONSHIPS

# Events of a large batch that go into the inbox as one request: a bounded share of the buffer.
PIECE_EVENTS = 65_536
# Arrays of one event: kind, item, user, weight, ts.
EVENT_ARRAY_BYTES = 2 + 4 + 4 + 8 + 8
RECORD_OVERHEAD_BYTES = 512


class Requests:
    """Builds requests for one producer; raises RecordError for what the log's readers would refuse."""

    def __init__(self, settings: ProducerSettings, schema: Schema | None) -> None:
        self._settings = settings
        self._schema = schema
        self._rules = EventRules(schema, settings.record_bytes_max)

    def event(
        self,
        kind: str,
        item: str,
        user: str | None,
        weight: float,
        ts: int | None,
        request_id: str | None,
        context: Mapping[str, Any] | None,
        future: Settled,
    ) -> PendingEvent:
        """One event, as `Producer.publish` takes it."""
        return self._rules.accept(
            kind,
            item,
            user,
            weight,
            ts,
            request_id,
            context,
            now_ms=_now_ms(),
            accepted_s=time.monotonic(),
            future=future,
        )

    def check_columns(self, columns: EventColumns) -> None:
        """Raises RecordError or ValueError for a batch that cannot be published."""
        self._rules.check_columns(columns, _now_ms())

    def part_count(self, columns: EventColumns) -> int:
        """How many requests `parts` makes of a batch of at least one event."""
        return len(columns) if self._is_small(columns) else -(-len(columns) // PIECE_EVENTS)

    def parts(self, columns: EventColumns, ack: BulkAck) -> Sequence[Publication]:
        """A checked batch as requests in order, each of bounded size, that report to `ack`.

        The events of a small one join the open groups, so that the batches of many callers share a record.
        """
        if self._is_small(columns):
            return self._events_of(columns, ack)
        return list(self._pieces_of(columns, ack))

    def _is_small(self, columns: EventColumns) -> bool:
        return len(columns) <= self._settings.group_events_max

    def _events_of(self, columns: EventColumns, ack: BulkAck) -> list[PendingEvent]:
        accepted_s = time.monotonic()
        kinds, items, users = columns.kinds, columns.items, columns.users
        return [
            PendingEvent(
                kinds[kind],
                items[item],
                users[user],
                weight,
                ts_ms,
                columns.request_ids[row] if columns.request_ids else "",
                columns.contexts[row] if columns.contexts else b"",
                EVENT_OVERHEAD_BYTES
                + len(kinds[kind])
                + len(items[item])
                + len(users[user])
                + (len(columns.contexts[row]) if columns.contexts else 0),
                accepted_s,
                ack,
            )
            for row, (kind, item, user, weight, ts_ms) in enumerate(
                zip(
                    columns.kind.tolist(),
                    columns.item.tolist(),
                    columns.user.tolist(),
                    columns.weight.tolist(),
                    columns.ts_ms.tolist(),
                    strict=True,
                )
            )
        ]

    def _pieces_of(self, columns: EventColumns, ack: BulkAck) -> Iterator[ColumnsRequest]:
        per_event = EVENT_ARRAY_BYTES + _text_bytes_per_event(columns)
        for piece in chunks(columns, PIECE_EVENTS):
            cost_bytes = min(int(per_event * len(piece)) + 1, self._settings.buffer_bytes_max)
            yield ColumnsRequest(piece, cost_bytes, time.monotonic(), ack, ack.expect, ack.part_done)

    def entity(self, kind: str, id: str, record: Mapping[str, Any] | None, future: Settled) -> RecordRequest:
        """A record of an item, user or creator; None deletes it."""
        topic = ENTITY_TOPICS.get(kind)
        if topic is None:
            raise RecordError("wrong_type", "kind", f"{shown(kind)} is none of {', '.join(ENTITY_TOPICS)}")
        self._rules.check_id("id", id)
        if record is not None and record.get("id", id) != id:
            raise RecordError(
                "wrong_type", "id", f"the record's own id is {shown(record['id'])}, not {shown(id)}"
            )
        key = id.encode()
        value = None if record is None else self._json({"id": id, **record})
        if self._schema is not None:
            decode_entity(kind, key, value, self._schema, _now_ms())
        return self._record(topic, key, key, value, future)

    def relationship(
        self, type: str, src: str, dst: str, record: Mapping[str, Any] | None, future: Settled
    ) -> RecordRequest:
        """An explicit edge; None deletes it. It lies in the partition of its source."""
        for path, id_ in (("type", type), ("from", src), ("to", dst)):
            self._rules.check_id(path, id_)
        key = edge_key(type, src, dst)
        value = None if record is None else self._json(record)
        if self._schema is not None:
            decode_edge(key, value, self._schema)
        return self._record(RELATIONSHIPS, src.encode(), key, value, future)

    def raw(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None,
        future: Settled,
    ) -> RecordRequest:
        """A record as it is, for whoever reads the topic to judge; only its size is checked."""
        if key is None and partition is None:
            raise ValueError("a record without a key needs a partition")
        cost_bytes = RECORD_OVERHEAD_BYTES + len(key or b"") + len(value or b"")
        if cost_bytes > self._settings.record_bytes_max:
            raise RecordError(
                "wrong_type",
                "",
                f"the record has {cost_bytes} bytes, the log takes {self._settings.record_bytes_max}",
            )
        return RecordRequest(
            topic, key or b"", key, value, headers, cost_bytes, time.monotonic(), future, partition
        )

    def _record(
        self, topic: str, partition_key: bytes, key: bytes, value: bytes | None, future: Settled
    ) -> RecordRequest:
        cost_bytes = RECORD_OVERHEAD_BYTES + len(key) + len(value or b"")
        return RecordRequest(topic, partition_key, key, value, (), cost_bytes, time.monotonic(), future)

    def _json(self, record: Mapping[str, Any]) -> bytes:
        try:
            _check_finite("", record)
            value = msgspec.json.encode(record, enc_hook=_encode_array)
        except (TypeError, ValueError, UnicodeEncodeError, RecursionError) as error:
            raise RecordError("wrong_type", "", f"the record cannot be written as JSON: {error}") from error
        if len(value) > self._settings.record_bytes_max - RECORD_OVERHEAD_BYTES:
            raise RecordError(
                "wrong_type",
                "",
                f"the record has {len(value)} bytes of JSON, the log takes {self._settings.record_bytes_max}",
            )
        return value


def _text_bytes_per_event(columns: EventColumns) -> float:
    """Bytes of texts for each event, the dictionaries' share included."""
    texts = sum(map(len, columns.items)) + sum(map(len, columns.users))
    texts += sum(map(len, columns.contexts or ())) + sum(map(len, columns.request_ids or ()))
    return texts / max(1, len(columns))


def _check_finite(path: str, value: object) -> None:
    """Raises RecordError for a number that JSON lacks: the encoder would write null in its place."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_finite(f"{path}.{name}" if path else str(name), inner)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _check_finite(f"{path}[{index}]", inner)
    elif (isinstance(value, float) and not math.isfinite(value)) or (
        isinstance(value, (np.floating, np.ndarray)) and not np.all(np.isfinite(value))
    ):
        code = "embedding_non_finite" if path.startswith("embeddings.") else "wrong_type"
        raise RecordError(code, path, "must be finite")


def _encode_array(value: object) -> object:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"{shown(value)} has no JSON form")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
