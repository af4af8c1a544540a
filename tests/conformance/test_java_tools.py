"""Kafka's own Java tools and a Kafka Streams word count, unchanged."""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from tests.brokers import Broker
from tests.conformance.clients import WAIT_S, consumer, create, producer, read, send, until
from tests.conformance.java_tools import (
    CONFIGS,
    CONSOLE_CONSUMER,
    CONSOLE_PRODUCER,
    GROUPS,
    TOPICS,
    VERIFIABLE_CONSUMER,
    VERIFIABLE_PRODUCER,
    compiled,
    java,
    run,
)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]
SOURCE = Path(__file__).parent / "java" / "WordCount.java"
WORDS = ["one", "log", "many", "views", "fold", "count"]


def test_topics_and_their_settings(log: Broker) -> None:
    name, server = f"tools-{log.variant}", ("--bootstrap-server", log.bootstrap)
    run(TOPICS, *server, "--create", "--topic", name, "--partitions", "3", "--config", "retention.ms=99999")
    assert name in run(TOPICS, *server, "--list").split()
    described = run(TOPICS, *server, "--describe", "--topic", name)
    assert "PartitionCount: 3" in described
    assert "retention.ms=99999" in described
    assert described.count("Leader: 1") == 3
    run(TOPICS, *server, "--alter", "--topic", name, "--partitions", "5")
    entity = ("--entity-type", "topics", "--entity-name", name)
    run(CONFIGS, *server, "--alter", *entity, "--add-config", "cleanup.policy=compact")
    assert "cleanup.policy=compact" in run(CONFIGS, *server, "--describe", *entity)
    run(TOPICS, *server, "--delete", "--topic", name)
    assert name not in run(TOPICS, *server, "--list").split()


def test_console_producer_and_consumer(log: Broker, topic: str) -> None:
    """Every codec of the one, read by the other and by librdkafka."""
    server = ("--bootstrap-server", log.bootstrap, "--topic", topic)
    lines = {
        codec: [f"{codec}-{number}:value {number}" for number in range(50)]
        for codec in ("none", "gzip", "snappy", "lz4", "zstd")
    }
    for codec, some in lines.items():
        run(
            CONSOLE_PRODUCER, *server, "--compression-codec", codec,
            "--property", "parse.key=true", "--property", "key.separator=:", given="\n".join(some),
        )  # fmt: skip
    everything = sorted(line for some in lines.values() for line in some)
    told = run(
        CONSOLE_CONSUMER, *server, "--from-beginning", "--max-messages", str(len(everything)),
        "--isolation-level", "read_committed", "--property", "print.key=true",
        "--property", "key.separator=:",
    )  # fmt: skip
    assert sorted(told.splitlines()) == everything
    found = [(m.key(), m.value()) for m in read(log, topic, len(everything))]
    assert sorted(found) == sorted(tuple(line.encode().split(b":")) for line in everything)


def test_groups_are_listed_described_reset_and_deleted(log: Broker, topic: str) -> None:
    send(log, topic, *(b"%d" % number for number in range(30)))
    group = f"tools-{topic}"
    member = consumer(log, group)
    member.commit(offsets=[TopicPartition(topic, 0, 12)], asynchronous=False)
    member.close()
    server = ("--bootstrap-server", log.bootstrap)
    assert group in run(GROUPS, *server, "--list").split()
    row = next(
        line.split()
        for line in run(GROUPS, *server, "--describe", "--group", group).splitlines()
        if topic in line
    )
    assert row[1:6] == [topic, "0", "12", "30", "18"]
    reset = ("--reset-offsets", "--to-earliest", "--execute", "--topic", f"{topic}:0")
    run(GROUPS, *server, "--group", group, *reset)
    assert "30 " in run(GROUPS, *server, "--describe", "--group", group)
    run(GROUPS, *server, "--delete-offsets", "--group", group, "--topic", topic)
    run(GROUPS, *server, "--delete", "--group", group)
    assert group not in run(GROUPS, *server, "--list").split()


def test_verifiable_producer_and_consumer(log: Broker, topic: str) -> None:
    """The two with which Kafka tests itself: each line is an event in JSON."""
    server, count = ("--bootstrap-server", log.bootstrap), 2_000
    told = run(
        VERIFIABLE_PRODUCER, *server, "--topic", topic, "--max-messages", str(count), "--acks", "-1",
        "--throughput", "-1",
    )  # fmt: skip
    sent = Counter(json.loads(line)["name"] for line in told.splitlines())
    assert sent["producer_send_success"] == count
    assert sent["producer_send_error"] == 0
    told = run(
        VERIFIABLE_CONSUMER, *server, "--topic", topic, "--group-id", f"verifiable-{topic}",
        "--max-messages", str(count), "--reset-policy", "earliest",
    )  # fmt: skip
    events = [json.loads(line) for line in told.splitlines()]
    assert sum(event["count"] for event in events if event["name"] == "records_consumed") == count
    commits = [event for event in events if event["name"] == "offsets_committed"]
    assert commits
    assert all(commit["success"] for commit in commits)


@contextmanager
def word_count(
    log: Broker, lines: str, counts: str, folder: Path, classes: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The application, until the end of the block."""
    command = java("WordCount", log.bootstrap, lines, counts, str(folder / "state"), classes=classes)
    with (folder / "streams.out").open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application, compiled."""
    return compiled(SOURCE, tmp_path_factory.mktemp("classes"))


def test_kafka_streams_counts_words_exactly_once_over_a_kill(
    log: Broker, topic: str, tmp_path: Path, classes: Path
) -> None:
    """Whoever reads only what is committed sees every count of every word once, in order, kill or not."""
    counts = f"{topic}-counts"
    create(log, counts, 1)
    rng = random.Random(7)
    lines = [" ".join(rng.choices(WORDS, k=5)) for _ in range(600)]
    expected = Counter(word for line in lines for word in line.split())
    sender = producer(log)

    def send_half(half: list[str]) -> None:
        for number, line in enumerate(half):
            sender.produce(topic, value=line, partition=number % 4)
        assert sender.flush(WAIT_S) == 0

    reader = consumer(log, "counts")
    reader.assign([TopicPartition(counts, 0, 0)])
    seen: dict[str, list[int]] = {word: [] for word in WORDS}

    def take() -> None:
        for message in reader.consume(1_000, 0.2):
            assert message.error() is None, message.error()
            seen[message.key().decode()].append(int(message.value()))

    send_half(lines[:300])
    with word_count(log, topic, counts, tmp_path, classes):
        until(lambda: any(seen.values()), take)
    with word_count(log, topic, counts, tmp_path, classes) as second:
        send_half(lines[300:])
        until(lambda: all(seen[word] and seen[word][-1] >= expected[word] for word in expected), take)
        assert second.stdin is not None
        second.stdin.close()
        assert second.wait(WAIT_S) == 0, (tmp_path / "streams.out").read_text()[-2_000:]
    reader.close()
    for word, numbers in seen.items():
        assert numbers == list(range(1, expected[word] + 1)), word
