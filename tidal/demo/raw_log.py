"""Reads the demo's topics as they lie in the log, with a plain Kafka consumer, from first record to last.

Nothing of the engine is used but the codec of the columnar batch: what is counted from here is counted anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import TidalError
from schemas.records.columnar import decode_columnar
from schemas.weights import WEIGHT_SCALE
from streams.broker_security import broker_options

READ_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.1
BATCH_RECORDS: Final = 10_000

TYPE_HEADER: Final = "tidal-type"


class Event(NamedTuple):
    """One signal as the log holds it."""

    partition: int
    offset: int
    kind: str
    item: str
    user: str
    weight: float
    ts_ms: int


class _Record(NamedTuple):
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes | None
    internal: bool


def read_events(brokers: str, topic: str) -> list[Event]:
    """Every signal of a topic, each partition in its own order; the engine's own records are passed over."""
    return [event for record in _records(brokers, topic) if not record.internal for event in _events(record)]


def read_entities(brokers: str, topic: str) -> dict[str, dict[str, Any]]:
    """The newest record of each id in a compacted topic; a null value deletes."""
    entities: dict[str, dict[str, Any]] = {}
    for record in _records(brokers, topic):
        if record.value is None:
            entities.pop(record.key.decode(), None)
        else:
            entities[record.key.decode()] = msgspec.json.decode(record.value)
    return entities


def _records(brokers: str, topic: str) -> Iterator[_Record]:
    consumer = Consumer(
        {
            **broker_options(brokers),
            "group.id": "tidal-demo-recount",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        unread = set(partitions)
        deadline = time.monotonic() + READ_TIMEOUT_S
        while unread:
            if time.monotonic() > deadline:
                raise TidalError(f"{topic} at {brokers} was not read to its end in {READ_TIMEOUT_S:.0f} s")
            for message in consumer.consume(BATCH_RECORDS, POLL_S):
                error = message.error()
                if error is None:
                    yield _record(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()


def _record(message: Message) -> _Record:
    partition, offset = message.partition(), message.offset()
    assert partition is not None, "a consumed record has a place"
    assert offset is not None, "a consumed record has a place"
    headers = {name for name, _ in list(message.headers() or [])}
    key = message.key() or b""
    assert isinstance(key, bytes), "no deserializer is configured"
    return _Record(partition, offset, message.timestamp()[1], key, message.value(), TYPE_HEADER in headers)


def _events(record: _Record) -> Iterator[Event]:
    value = record.value or b""
    if value[:1] in (b"{", b"["):
        yield from _json_events(value, record)
        return
    columns = decode_columnar(value)
    for kind, item, user, weight, ts_ms in zip(
        columns.kind.tolist(),
        columns.item.tolist(),
        columns.user.tolist(),
        columns.weight.tolist(),
        columns.ts_ms.tolist(),
        strict=True,
    ):
        yield Event(
            record.partition,
            record.offset,
            columns.kinds[kind],
            columns.items[item],
            columns.users[user],
            weight / WEIGHT_SCALE,
            ts_ms,
        )


def _json_events(value: bytes, record: _Record) -> Iterator[Event]:
    decoded = msgspec.json.decode(value)
    for event in decoded if isinstance(decoded, list) else [decoded]:
        yield Event(
            record.partition,
            record.offset,
            event["kind"],
            event["item"],
            event.get("user", ""),
            float(event.get("weight", 1.0)),
            event.get("ts", record.timestamp_ms),
        )
