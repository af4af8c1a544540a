"""The logs that are measured: the embedded one, and a real Apache Kafka that syncs every batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.parts import Part
from tests import kafka_server
from tests.kafka_server import KafkaServer


class Log(NamedTuple):
    """A running log, and the process whose memory counts."""

    name: str
    brokers: str
    pid: int


@contextmanager
def embedded_log(folder: Path) -> Iterator[Log]:
    """`tidal log` on a folder of its own."""
    options = ("--data", str(folder / "embedded"), "--listen", "127.0.0.1:0")
    with Part(folder, "log", *options) as part:
        yield Log("embedded log, fsync", part.address, part.pid)


@contextmanager
def real_kafka(folder: Path) -> Iterator[Log]:
    """One node of Apache Kafka; its topics have to ask for `flush.messages=1`."""
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
