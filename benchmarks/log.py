"""The embedded log beside a real Apache Kafka that syncs every batch: 100 bytes and 1 KB, one producer.

    python -m benchmarks.log [--short] [--records 2000000]

Both get the same librdkafka producer (idempotent, acks=all, linger 10 ms, batches of 1 MiB) and consumer.
librdkafka's consumer pauses for a second (`fetch.queue.backoff.ms`) whenever 100,000 records wait for the
application, whatever the log does; it is measured as it comes and without that pause. The acknowledgement is
timed at 1,000 records a second, after a warm-up for the producer id.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.parts import Part, cpu_seconds, peak_memory_bytes
from benchmarks.results import Result, parser, report
from tests import kafka_server
from tests.kafka_server import KafkaServer

TOPIC: Final = "benchmark"
TOPIC_OF_LARGE: Final = "benchmark-1k"
PARTITIONS: Final = 8
RECORD: Final = b"x" * 100
LARGE_RECORD: Final = b"x" * 1_000
# A client's own setting: how long it does not fetch when enough records wait.
WITHOUT_PAUSE: Final = {"fetch.queue.backoff.ms": 10}
PACED_PER_S: Final = 1_000
POLL_EVERY: Final = 2_000
CONSUMED_AT_ONCE: Final = 10_000
SETTLE_S: Final = 60.0


class Log(NamedTuple):
    """A running log, and the process whose memory counts."""

    name: str
    brokers: str
    pid: int


def main() -> None:
    """Measures and reports."""
    options = parser("log", __doc__)
    options.add_argument("--records", type=int, default=2_000_000)
    chosen = options.parse_args()
    records = 200_000 if chosen.short else chosen.records
    paced_s = 2.0 if chosen.short else 10.0
    rows, notes = [], []
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as folder:
        with embedded_log(Path(folder)) as log:
            rows.append(measure(log, records, paced_s))
        why_not = kafka_server.why_not()
        if why_not is None:
            with real_kafka(Path(folder)) as log:
                rows.append(measure(log, records, paced_s))
            notes += ratios(*rows)
        else:
            notes.append(f"no real Kafka beside it: {why_not}")
    report(Result("log", f"python -m benchmarks.log --records {records}", rows, notes), chosen.json)


@contextmanager
def embedded_log(folder: Path) -> Iterator[Log]:
    """`tidal log` on a folder of its own."""
    options = ("--data", str(folder / "embedded"), "--listen", "127.0.0.1:0")
    with Part(folder, "log", *options) as part:
        yield Log("embedded log, fsync", part.address, part.pid)


@contextmanager
def real_kafka(folder: Path) -> Iterator[Log]:
    """One node of Apache Kafka."""
    own = folder / "kafka"
    own.mkdir()
    server = KafkaServer(own)
    server.start()
    try:
        yield Log(
            f"Apache Kafka {kafka_server.KAFKA_VERSION}, flush.messages=1",
            f"127.0.0.1:{server.port}",
            server.pid,
        )
    finally:
        server.stop()


def ratios(ours: dict[str, Any], kafkas: dict[str, Any]) -> list[str]:
    """What each figure of the embedded log is in Kafka's."""
    names = [name for name, value in ours.items() if isinstance(value, float)]
    return [f"{name}: {ours[name] / kafkas[name]:.2f} × Kafka" for name in names]


def measure(log: Log, records: int, paced_s: float) -> dict[str, Any]:
    """One row: records a second in and out, acknowledgement times, peak memory."""
    _create_topic(log.brokers, TOPIC)
    _create_topic(log.brokers, TOPIC_OF_LARGE)
    producer = Producer(_producer_options(log.brokers, linger_ms=10))
    _send(producer, PARTITIONS)  # the producer id and the connections are not what is measured
    produced_s = _timed(lambda: _send(producer, records))
    large = records // 4
    large_s = _timed(lambda: _send(producer, large, TOPIC_OF_LARGE, LARGE_RECORD))
    consumed_s = _timed(lambda: _consume(log.brokers, records, {}))
    busy_s = cpu_seconds(log.pid)
    unpaused_s = _timed(lambda: _consume(log.brokers, records, WITHOUT_PAUSE))
    busy_s = cpu_seconds(log.pid) - busy_s
    acknowledged_ms = _acknowledgements_ms(log.brokers, paced_s)
    return {
        "log": log.name,
        "records": records,
        "produced/s": records / produced_s,
        "1 KB: produced MB/s": large * len(LARGE_RECORD) / 1e6 / large_s,
        "consumed/s": records / consumed_s,
        "consumed/s, no pause": records / unpaused_s,
        "CPU s for 1 M read": busy_s / records * 1e6,
        "ack p50 ms": float(np.percentile(acknowledged_ms, 50)),
        "ack p99 ms": float(np.percentile(acknowledged_ms, 99)),
        "peak MB": peak_memory_bytes(log.pid) / 1e6,
    }


def _create_topic(brokers: str, name: str) -> None:
    topic = NewTopic(name, num_partitions=PARTITIONS, replication_factor=1, config={"flush.messages": "1"})
    admin = AdminClient({"bootstrap.servers": brokers})
    admin.create_topics([topic])[name].result(SETTLE_S)


def _producer_options(brokers: str, linger_ms: int) -> dict[str, Any]:
    return {
        "bootstrap.servers": brokers,
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": linger_ms,
        "batch.size": 1 << 20,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 1 << 20,
    }


def _send(producer: Producer, records: int, topic: str = TOPIC, record: bytes = RECORD) -> None:
    failures = []

    def delivered(error: object, message: object) -> None:
        if error is not None:
            failures.append(error)

    for number in range(records):
        while True:
            try:
                producer.produce(topic, record, partition=number % PARTITIONS, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.01)
        if number % POLL_EVERY == 0:
            producer.poll(0)
    left = producer.flush(SETTLE_S)
    assert not left, f"{left} records were not acknowledged"
    assert not failures, failures[0]


def _consume(brokers: str, records: int, settings: dict[str, Any]) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "benchmark",
            "enable.auto.commit": False,
            "fetch.min.bytes": 1,
            **settings,
        }
    )
    consumer.assign([TopicPartition(TOPIC, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    read = 0
    deadline = time.monotonic() + 10 * SETTLE_S
    while read < records:
        read += len(consumer.consume(CONSUMED_AT_ONCE, 0.05))
        assert time.monotonic() < deadline, f"only {read} of {records} records were read"
    consumer.close()


def _acknowledgements_ms(brokers: str, seconds: float) -> list[float]:
    """Times from the call to its acknowledgement, one record a millisecond, without lingering."""
    producer = Producer(_producer_options(brokers, linger_ms=0))
    _send(producer, PARTITIONS)
    taken_ms: list[float] = []
    started = time.perf_counter()
    for number in range(int(seconds * PACED_PER_S)):
        due = started + number / PACED_PER_S
        while (wait := due - time.perf_counter()) > 0:
            producer.poll(min(wait, 0.001))
        sent = time.perf_counter()
        on_delivery = partial(_note, taken_ms, sent)
        producer.produce(TOPIC, RECORD, partition=number % PARTITIONS, on_delivery=on_delivery)
    producer.flush(SETTLE_S)
    return taken_ms


def _note(taken_ms: list[float], sent: float, error: object, message: object) -> None:
    assert error is None, error
    taken_ms.append((time.perf_counter() - sent) * 1000)


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
