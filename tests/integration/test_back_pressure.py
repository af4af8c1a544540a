"""A slow table slows the reading of the log: what is in memory stays bounded, the rest waits in the log."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer

from materializers.batches import UserBatch
from materializers.materializer import (
    Forgotten,
    Materializer,
    PartitionContext,
    RowReader,
    RowWriter,
    Scope,
    View,
)
from materializers.registry import MaterializerRegistry
from materializers.steps import STEP_RECORDS_MAX
from materializers.tables.owner import OwnerSettings
from materializers.worker import Worker, WorkerConfig
from schemas.default import default_schema
from schemas.settings import TopicSettings
from streams.admin import init_topics
from streams.topics import SIGNALS, all_topics
from tests.brokers import Broker

PARTITIONS = 4
EVENTS = 60_000
UNFLUSHED_MAX = 2_000
FETCH_BYTES = 256 << 10
EVENT_BYTES_MIN = 60
FLUSH_S = 0.2
WAIT_S = 90.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@dataclass
class Tally:
    """Events that the views of all partitions have folded, and those that no flush has written."""

    folded: int = 0
    unwritten: int = 0
    unwritten_max: int = 0


@dataclass
class Slow:
    """Counts events; its rows take long to write."""

    tally: Tally

    def on_batch(self, batch: UserBatch) -> None:
        self.tally.folded += len(batch)
        self.tally.unwritten += len(batch)
        self.tally.unwritten_max = max(self.tally.unwritten_max, self.tally.unwritten)

    def checkpoint(self, writer: RowWriter) -> None:
        if self.tally.unwritten:
            time.sleep(FLUSH_S)
        self.tally.unwritten = 0

    def restore(self, reader: RowReader) -> None:
        """Nothing."""

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        return {}


def _publish(brokers: str) -> None:
    producer = Producer({"bootstrap.servers": brokers, "partitioner": "murmur2_random", "linger.ms": 20})
    now_ms = int(time.time() * 1000)
    for number in range(EVENTS):
        user = f"u{number % 97}"
        event = {"kind": "view", "user": user, "item": "i", "ts": now_ms - number * 1000}
        producer.produce(SIGNALS, json.dumps(event).encode(), key=user)
        producer.poll(0)
    assert producer.flush(WAIT_S) == 0


async def test_nothing_is_lost_and_memory_is_bounded(broker: Broker, tmp_path: Path) -> None:
    init_topics(broker.bootstrap, all_topics(TopicSettings(partitions=PARTITIONS)))
    _publish(broker.bootstrap)
    config = WorkerConfig(
        brokers=broker.bootstrap,
        data=str(tmp_path),
        partitions=PARTITIONS,
        fetch_bytes_max=FETCH_BYTES,
        owner=OwnerSettings(events_unflushed_max=UNFLUSHED_MAX),
    )
    tally = Tally()

    def build(context: PartitionContext) -> Materializer:
        return Slow(tally)

    worker = Worker(
        config, default_schema(), "slow", MaterializerRegistry([View("slow", Scope.USER, (), build)])
    )
    running = asyncio.create_task(worker.run())
    waiting_max = 0
    deadline_s = time.monotonic() + WAIT_S
    while tally.folded < EVENTS:
        assert not running.done(), running
        assert time.monotonic() < deadline_s, f"{tally.folded} of {EVENTS} events"
        if Scope.USER in worker._steps:
            waiting_max = max(waiting_max, len(worker._steps[Scope.USER].inbox))
        await asyncio.sleep(0.005)
    worker.stop()
    await running
    assert tally.folded == EVENTS
    assert tally.unwritten_max <= UNFLUSHED_MAX + STEP_RECORDS_MAX
    # Two steps and what one poll brought of one partition; the log holds the rest.
    assert 0 < waiting_max <= 2 * STEP_RECORDS_MAX + FETCH_BYTES // EVENT_BYTES_MIN
