"""The sync is real: system calls are counted, and no acknowledgement comes before its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.embedded import EmbeddedLog

pytestmark = pytest.mark.skipif(not hasattr(os, "fdatasync"), reason="this system has no fdatasync to count")

RECORDS = 25


class Syncs:
    """Counts calls of fdatasync; they wait while `free` is not set."""

    def __init__(self) -> None:
        self.total = 0
        self.free = threading.Event()
        self.free.set()
        self._real = os.fdatasync
        self._lock = threading.Lock()

    def __call__(self, fd: int) -> None:
        assert self.free.wait(20)
        self._real(fd)
        with self._lock:
            self.total += 1


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Syncs]:
    counted = Syncs()
    monkeypatch.setattr(os, "fdatasync", counted)
    yield counted
    counted.free.set()


@pytest.fixture
async def log(tmp_path: Path, syncs: Syncs):  # type: ignore[no-untyped-def]
    running = EmbeddedLog(tmp_path / "log")
    await running.start()
    admin = AIOKafkaAdminClient(bootstrap_servers=running.address)
    await admin.start()
    await admin.create_topics([NewTopic("events", 1, 1)])
    await admin.close()
    yield running
    await running.stop()


async def test_every_acknowledgement_had_a_sync_of_its_own(log: EmbeddedLog, syncs: Syncs) -> None:
    sender = AIOKafkaProducer(bootstrap_servers=log.address, acks="all")
    await sender.start()
    assert log._commit is not None
    await sender.send_and_wait("events", b"first")
    before, files_before = syncs.total, sum(log._commit.sync_s.counts)
    for _ in range(RECORDS):
        count = syncs.total
        await sender.send_and_wait("events", b"v")
        assert syncs.total > count
    assert syncs.total - before == sum(log._commit.sync_s.counts) - files_before == RECORDS
    await sender.stop()


async def test_records_that_wait_for_one_sync_share_the_next(log: EmbeddedLog, syncs: Syncs) -> None:
    sender = AIOKafkaProducer(bootstrap_servers=log.address, acks="all", enable_idempotence=True)
    await sender.start()
    await sender.send_and_wait("events", b"first")
    before = syncs.total
    syncs.free.clear()
    futures = [await sender.send("events", b"%d" % number) for number in range(RECORDS)]
    await sender.send("events", b"last")
    assert not any(future.done() for future in futures), "acknowledged before its sync"
    syncs.free.set()
    offsets = [(await future).offset for future in futures]
    assert offsets == list(range(1, RECORDS + 1))
    assert 0 < syncs.total - before < RECORDS
    await sender.stop()
