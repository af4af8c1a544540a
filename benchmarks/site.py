"""A log with topics, records and a backlog of signals for a worker to read, and what shows how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from confluent_kafka import OFFSET_END, Consumer, KafkaError, TopicPartition
from confluent_kafka import Producer as PlainProducer

from benchmarks.parts import Part, run_to_end
from benchmarks.traffic import Traffic
from materializers.materializer import Scope
from materializers.tables.reader import TableReader
from schemas.records.columns import EventColumns
from schemas.weights import WEIGHT_SCALE
from streams.positions import Position
from streams.producer import Producer
from streams.topics import SIGNALS

EVENTS_AT_ONCE: Final = 100_000
RECORDS_IN_FLIGHT_MAX: Final = 2_000
TIMEOUT_S: Final = 600.0
WATCH_EVERY_S: Final = 0.25
BACKLOG_MS: Final = 3_600_000

Ends = dict[int, int]


@contextmanager
def log_with_topics(folder: Path) -> Iterator[Part]:
    """The embedded log with every topic."""
    with Part(folder, "log", "--data", str(folder), "--listen", "127.0.0.1:0") as log:
        run_to_end("topics", "init", "--brokers", log.address)
        yield log


def publish_records(brokers: str, traffic: Traffic, dim: int) -> None:
    """A record of every user and item."""
    now_ms = int(time.time() * 1000)
    with Producer(brokers) as producer:
        for kind, records in (
            ("user", traffic.user_records()),
            ("item", traffic.item_records(dim, now_ms - 30 * 86_400_000)),
        ):
            _put_all(producer, kind, records)


def _put_all(producer: Producer, kind: str, records: Iterable[dict[str, Any]]) -> None:
    waiting: list[Future[Position]] = []
    for record in records:
        waiting.append(producer.put_entity(kind, record["id"], record))
        if len(waiting) == RECORDS_IN_FLIGHT_MAX:
            waiting.pop(0).result(TIMEOUT_S)
    for future in waiting:
        future.result(TIMEOUT_S)


def publish_columnar(brokers: str, traffic: Traffic, events: int) -> None:
    """Signals of the last hour through the SDK: columnar batches."""
    with Producer(brokers) as producer:
        for columns in _backlog(traffic, events):
            producer.publish_columns(columns).result(TIMEOUT_S)


def publish_json(brokers: str, traffic: Traffic, events: int) -> None:
    """Signals of the last hour as any Kafka client writes them: one JSON event a record, key = user."""
    producer = PlainProducer(
        {
            "bootstrap.servers": brokers,
            "enable.idempotence": True,
            "linger.ms": 20,
            "compression.type": "lz4",
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for columns in _backlog(traffic, events):
        for user, value in _json_events(columns):
            while True:
                try:
                    producer.produce(SIGNALS, value, user)
                    break
                except BufferError:
                    producer.poll(0.05)
            producer.poll(0)
    left = producer.flush(TIMEOUT_S)
    assert not left, f"{left} events were not acknowledged"


def _backlog(traffic: Traffic, events: int) -> Iterator[EventColumns]:
    now_ms = int(time.time() * 1000)
    first_ms = now_ms - BACKLOG_MS
    for start in range(0, events, EVENTS_AT_ONCE):
        count = min(EVENTS_AT_ONCE, events - start)
        begin, end = (first_ms + (start + part) * BACKLOG_MS // events for part in (0, count))
        yield traffic.events(count, begin, end)


def _json_events(columns: EventColumns) -> Iterator[tuple[bytes, bytes]]:
    encode = msgspec.json.Encoder().encode
    rows = zip(
        columns.kind.tolist(),
        columns.item.tolist(),
        columns.user.tolist(),
        (columns.weight / WEIGHT_SCALE).tolist(),
        columns.ts_ms.tolist(),
        strict=True,
    )
    for kind, item, user, weight, ts_ms in rows:
        name = columns.users[user]
        event = {
            "kind": columns.kinds[kind],
            "item": columns.items[item],
            "user": name,
            "weight": weight,
            "ts": ts_ms,
        }
        yield name.encode(), encode(event)


class Consumed(NamedTuple):
    """What a bare consumer did: records and seconds, and the CPU seconds of its own process."""

    records: int
    seconds: float
    cpu_s: float


def consume_bare(brokers: str, topic: str) -> Consumed:
    """Reads a topic from start to end with confluent-kafka, and does nothing with the records."""
    options = {"bootstrap.servers": brokers, "group.id": "benchmark-bare", "enable.auto.commit": False}
    consumer = Consumer({**options, "enable.partition.eof": True})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    unread, records = set(partitions), 0
    started, cpu_started = time.perf_counter(), time.process_time()
    while unread:
        for message in consumer.consume(10_000, 0.05):
            error = message.error()
            if error is None:
                records += 1
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard(message.partition())
        assert time.perf_counter() - started < TIMEOUT_S, "the log does not give its records"
    consumed = Consumed(records, time.perf_counter() - started, time.process_time() - cpu_started)
    consumer.close()
    return consumed


def ends_of(brokers: str, topic: str) -> Ends:
    """The last offset of each partition of a topic, -1 for an empty one."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "benchmark-ends"})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        found = {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number, OFFSET_END), timeout=10)
            for number in partitions
        }
        return {number: marks[1] - 1 for number, marks in found.items() if marks is not None}
    finally:
        consumer.close()


class Watcher:
    """Watches a worker's tables from outside, as queryd does."""

    def __init__(self, data: Path, name: str) -> None:
        self._reader = TableReader(data, name)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()

    def signals_left(self, ends: Ends) -> int:
        """Source records that some user or item partition has not applied yet."""
        self._reader.catch_up()
        left = 0
        for partition, end in ends.items():
            applied = self._reader.applied(Scope.USER, partition).get(SIGNALS, -1)
            through = min(self._reader.forwarded(item).get(partition, -1) for item in ends)
            left += max(0, end - min(applied, through))
        return left

    def records_left(self, topic: str, ends: Ends) -> int:
        """Records of an entity topic that are not applied yet."""
        self._reader.catch_up()
        return sum(
            max(0, end - self._reader.applied(Scope.ENTITY, partition).get(topic, -1))
            for partition, end in ends.items()
        )
