"""The embedded log beside a real Apache Kafka that syncs every batch, and each goal that was set for it.

    python -m benchmarks.log [--short] [--records 1000000] [--rounds 3]

Both logs run at the same time and are measured in turns, so that what else the machine does meets both; a
ratio is the median over the rounds. Both get the same librdkafka producer (idempotent, acks=all, linger
10 ms, batches of 1 MiB) and the same three readers (`benchmarks.log_readers`). Each log is warmed up before
the first round. The acknowledgement is timed at 1,000 records a second. At the end: open connections and a
start with 10 GB, as in `benchmarks.log_limits`. Under three minutes on a quiet machine.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.log_limits import CONNECTIONS_GOAL_MB, START_GOAL_S, connections, start
from benchmarks.log_readers import read_raw, read_with_java, read_with_librdkafka
from benchmarks.log_servers import Log, embedded_log, real_kafka
from benchmarks.parts import cpu_seconds, peak_memory_bytes
from benchmarks.results import Result, parser, report
from tests import kafka_server

TOPIC: Final = "benchmark"
TOPIC_OF_LARGE: Final = "benchmark-1k"
TOPIC_OF_PACED: Final = "benchmark-paced"
PARTITIONS: Final = 8
RECORD: Final = b"x" * 100
LARGE_RECORD: Final = b"x" * 1_000
# How many times a round reads everything by the raw reader, which is done in a tenth of a second.
RAW_PASSES: Final = 5
# A client's own setting: how long it does not fetch when enough records wait.
WITHOUT_PAUSE: Final = {"fetch.queue.backoff.ms": 10}
PACED_PER_S: Final = 1_000
POLL_EVERY: Final = 2_000
SETTLE_S: Final = 60.0

PRODUCED = "produced/s (100 B)"
PRODUCED_LARGE = "produced/s (1 KB)"
RAW = "read/s, raw socket"
RAW_CPU = "log's CPU s for 1 M raw"
JAVA = "read/s, Kafka's Java consumer"
RDKAFKA = "read/s, librdkafka"
RDKAFKA_UNPAUSED = "read/s, librdkafka without its pause"
ACK_P50, ACK_P99 = "ack p50 ms", "ack p99 ms"

# What is compared with Kafka: (figure, least ratio); the acknowledgement may take at most as long.
GOALS: Final = ((PRODUCED, 1.3), (PRODUCED_LARGE, 1.3), (RAW, 1.5), (JAVA, 1.5), (RDKAFKA_UNPAUSED, 1.5))

Samples = dict[str, list[float]]


def main() -> None:
    """Measures and reports."""
    options = parser("log", __doc__)
    options.add_argument("--records", type=int, default=1_000_000, help="of 100 bytes, for each log")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    records, rounds, paced_s = chosen.records, chosen.rounds, 4.0
    if chosen.short:
        records, rounds, paced_s = min(records, 200_000), 1, 2.0
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as folder:
        rows, notes = side_by_side(Path(folder), records, rounds, paced_s)
        notes += limits(Path(folder))
    report(
        Result("log", f"python -m benchmarks.log --records {records} --rounds {rounds}", rows, notes),
        chosen.json,
    )


def side_by_side(
    folder: Path, records: int, rounds: int, paced_s: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each log, and a line for each goal."""
    why_not = kafka_server.why_not()
    with ExitStack() as running:
        logs = [running.enter_context(embedded_log(folder))]
        if why_not is None:
            logs.append(running.enter_context(real_kafka(folder)))
        samples = _measure(logs, max(records // rounds, 1), rounds, paced_s)
        rows = [
            {
                "log": log.name,
                **{name: _summary(name, values) for name, values in taken.items()},
                "peak MB": peak_memory_bytes(log.pid) / 1e6,
            }
            for log, taken in zip(logs, samples, strict=True)
        ]
    if why_not is not None:
        return rows, [f"no real Kafka beside it: {why_not}"]
    return rows, verdicts(*samples)


def _summary(name: str, values: list[float]) -> float:
    return float(np.percentile(values, 99 if name == ACK_P99 else 50))


def _measure(logs: list[Log], share: int, rounds: int, paced_s: float) -> list[Samples]:
    """All samples of each log; the logs take turns in everything."""
    samples: list[Samples] = [{} for _ in logs]
    producers = [_prepared(log) for log in logs]
    large = share // 4

    def in_turn(name: str, measured: Callable[[Log, Producer], float]) -> None:
        for log, producer, taken in zip(logs, producers, samples, strict=True):
            taken.setdefault(name, []).append(measured(log, producer))

    for _ in range(rounds):
        in_turn(PRODUCED, lambda _, producer: _send(producer, share))
        in_turn(PRODUCED_LARGE, lambda _, producer: _send(producer, large, TOPIC_OF_LARGE, LARGE_RECORD))
    total = PARTITIONS + share * rounds
    used = {log.name: 0.0 for log in logs}
    for _ in range(rounds * RAW_PASSES):
        in_turn(RAW, lambda log, _: _counting_cpu(used, log, lambda: _raw(log, total)))
    for log, taken in zip(logs, samples, strict=True):
        taken[RAW_CPU] = [used[log.name] / (rounds * RAW_PASSES * total) * 1e6]
    for _ in range(min(rounds, 2)):
        # Not to the end: there a consumer waits for half a second if another partition ends first.
        in_turn(JAVA, lambda log, _: read_with_java(log.brokers, TOPIC, total * 4 // 5))
        in_turn(RDKAFKA_UNPAUSED, lambda log, _: _librdkafka(log, total, WITHOUT_PAUSE))
    in_turn(RDKAFKA, lambda log, _: _librdkafka(log, total, {}))
    for _ in range(rounds):
        for log, taken in zip(logs, samples, strict=True):
            acknowledged_ms = _acknowledgements_ms(log.brokers, paced_s)
            taken.setdefault(ACK_P50, []).extend(acknowledged_ms)
            taken.setdefault(ACK_P99, []).extend(acknowledged_ms)
    return samples


def _prepared(log: Log) -> Producer:
    """A producer with its id and connections, and a log that has done everything once."""
    for topic in (TOPIC, TOPIC_OF_LARGE, TOPIC_OF_PACED):
        _create_topic(log.brokers, topic)
    producer = Producer(_producer_options(log.brokers, linger_ms=10))
    _send(producer, PARTITIONS)
    _send(producer, 100_000, TOPIC_OF_LARGE)
    read_raw(log.brokers, TOPIC_OF_LARGE, PARTITIONS, 100_000)
    return producer


def _raw(log: Log, records: int) -> float:
    return read_raw(log.brokers, TOPIC, PARTITIONS, records)


def _librdkafka(log: Log, records: int, settings: dict[str, Any]) -> float:
    return read_with_librdkafka(log.brokers, TOPIC, PARTITIONS, records, settings)


def _counting_cpu(used: dict[str, float], log: Log, work: Callable[[], float]) -> float:
    before = cpu_seconds(log.pid)
    outcome = work()
    used[log.name] += cpu_seconds(log.pid) - before
    return outcome


def verdicts(ours: Samples, kafkas: Samples) -> list[str]:
    """A line for each goal that compares, and for the figures without one."""
    lines = [verdict(name, ratio(ours[name], kafkas[name]), "× Kafka", at_least=goal) for name, goal in GOALS]
    lines.append(f"{RDKAFKA}: {ratio(ours[RDKAFKA], kafkas[RDKAFKA]):.2f} × Kafka (limited by its pause)")
    slowest = _summary(ACK_P99, ours[ACK_P99]) / _summary(ACK_P99, kafkas[ACK_P99])
    lines.append(verdict(ACK_P99, slowest, "× Kafka", at_most=1.0))
    return lines


def ratio(ours: list[float], kafkas: list[float]) -> float:
    """The median over rounds of what a round's figure is in Kafka's of the same round."""
    return median(mine / theirs for mine, theirs in zip(ours, kafkas, strict=True))


def limits(folder: Path) -> list[str]:
    """The goals that stand for themselves."""
    opened = connections(folder / "connections", 1_000)
    started = start(folder / "start", 10.0)
    return [
        verdict(opened["what"], opened["value"], "MB", at_most=CONNECTIONS_GOAL_MB),
        verdict(started["what"], started["value"], "s", at_most=START_GOAL_S),
    ]


def verdict(
    what: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None
) -> str:
    """One line that says whether a goal holds."""
    held = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    goal = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
    return f"{what}: {value:.2f} {unit} (goal: {goal}): **{'HOLDS' if held else 'MISSED'}**"


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


def _send(producer: Producer, records: int, topic: str = TOPIC, record: bytes = RECORD) -> float:
    """Records a second, the acknowledgement of the last one included."""
    failures = []
    began = time.perf_counter()

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
    return records / (time.perf_counter() - began)


def _acknowledgements_ms(brokers: str, seconds: float) -> list[float]:
    """Times from the call to its acknowledgement, one record a millisecond, without lingering."""
    producer = Producer(_producer_options(brokers, linger_ms=0))
    _send(producer, PARTITIONS, TOPIC_OF_PACED)
    taken_ms: list[float] = []
    started = time.perf_counter()
    for number in range(int(seconds * PACED_PER_S)):
        due = started + number / PACED_PER_S
        while (wait := due - time.perf_counter()) > 0:
            producer.poll(min(wait, 0.001))
        sent = time.perf_counter()
        on_delivery = partial(_note, taken_ms, sent)
        producer.produce(TOPIC_OF_PACED, RECORD, partition=number % PARTITIONS, on_delivery=on_delivery)
    producer.flush(SETTLE_S)
    return taken_ms


def _note(taken_ms: list[float], sent: float, error: object, message: object) -> None:
    assert error is None, error
    taken_ms.append((time.perf_counter() - sent) * 1000)


if __name__ == "__main__":
    main()
