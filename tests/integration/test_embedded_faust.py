"""Stock Faust on the embedded log: an agent, a table, a restart that recovers from the changelog."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.integration.embedded_process import ROOT, LogProcess

WAIT_S = 40.0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogProcess]:
    process = LogProcess(tmp_path / "log")
    process.start()
    yield process
    process.close()


def send_words(log: LogProcess, words: list[str]) -> None:
    sender = Producer({"bootstrap.servers": log.address, "partitioner": "murmur2_random"})
    for word in words:
        sender.produce("words", key=word.encode(), value=b"1")
    assert sender.flush(WAIT_S) == 0


def settled(log: LogProcess, expected: int) -> bool:
    """Are all counts in the changelog, and all offsets committed? Stock Faust is exact only then."""
    reader = Consumer({"bootstrap.servers": log.address, "group.id": "counting"})
    try:
        changelog = [TopicPartition("counting-counts-changelog", partition) for partition in range(4)]
        written = sum(reader.get_watermark_offsets(partition, WAIT_S)[1] for partition in changelog)
        committed = reader.committed([TopicPartition("words", partition) for partition in range(4)], WAIT_S)
        return written >= expected and sum(max(0, partition.offset) for partition in committed) >= expected
    finally:
        reader.close()


def counted(log: LogProcess, data: Path, expected: int) -> dict[str, int]:
    """Run a worker until its table holds `expected` counts in all; returns the table."""
    data.mkdir()
    worker = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/integration/embedded_faust_app.py")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "BROKER": log.address,
            "EXPECTED": str(expected),
            "DATA": str(data),
            "PYTHONPATH": str(ROOT),
        },
    )
    answer = data / "counts.json"
    deadline = time.monotonic() + WAIT_S
    try:
        while not answer.exists():
            assert worker.poll() is None, "the worker ended without its counts"
            assert time.monotonic() < deadline, "the worker never had its counts"
            time.sleep(0.05)
        while not settled(log, expected):
            assert time.monotonic() < deadline, "the worker never committed"
            time.sleep(0.05)
        return dict(json.loads(answer.read_text()))
    finally:
        worker.terminate()
        worker.wait(WAIT_S)


def test_an_agent_with_a_table_recovers_after_a_restart(log: LogProcess, tmp_path: Path) -> None:
    admin = AdminClient({"bootstrap.servers": log.address})
    admin.create_topics([NewTopic("words", 4, 1)])["words"].result(WAIT_S)
    words = [f"word-{i % 7}" for i in range(70)]
    send_words(log, words)
    assert counted(log, tmp_path / "first", len(words)) == Counter(words)
    log.kill()
    log.start()
    # A folder of its own: the table can only come from the changelog.
    assert counted(log, tmp_path / "second", len(words)) == Counter(words)
