"""Reads the demo's topics as they lie in the log, with a plain Kafka consumer, from first record to last.

Nothing of the engine is used but the codec of the columnar batch: what is counted from here is counted anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from schemas.records.columnar import decode_columnar

from schemas.errors import TidalError
from schemas.weights import WEIGHT_SCALE

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


def read_events(brokers: str, topic: str) -> list[Event]:
    """Every signal of a topic, each partition in its own order; the engine's own records are passed over."""
    signals = (record for record in _records(brokers, topic) if not _is_internal(record))
    return [event for record in signals for event in _events(record)]


def read_entities(brokers: str, topic: str) -> dict[str, dict[str, Any]]:
    """The newest record of each id in a compacted topic; a null value deletes."""
    entities: dict[str, dict[str, Any]] = {}
    for record in _records(brokers, topic):
        entity_id = (record.key() or b"").decode()
        value = record.value()
        if value is None:
            entities.pop(entity_id, None)
        else:
            entities[entity_id] = msgspec.json.decode(value)
    return entities


def _records(brokers: str, topic: str) -> Iterator[Message]:
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
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
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()


def _is_internal(record: Message) -> bool:
    return any(name == TYPE_HEADER for name, _ in record.headers() or ())


def _events(record: Message) -> Iterator[Event]:
    value = record.value()
    partition, offset = record.partition(), record.offset()
    if value[:1] in (b"{", b"["):
        yield from _json_events(value, partition, offset, record.timestamp()[1])
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
            partition,
            offset,
            columns.kinds[kind],
            columns.items[item],
            columns.users[user],
            weight / WEIGHT_SCALE,
            ts_ms,
        )


def _json_events(value: bytes, partition: int, offset: int, timestamp_ms: int) -> Iterator[Event]:
    decoded = msgspec.json.decode(value)
    for event in decoded if isinstance(decoded, list) else [decoded]:
        yield Event(
            partition,
            offset,
            event["kind"],
            event["item"],
            event.get("user", ""),
            float(event.get("weight", 1.0)),
            event.get("ts", timestamp_ms),
        )
