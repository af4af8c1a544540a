"""Retention of the embedded log waits for the checkpoint of a worker that is away, and for that alone."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # no __all__

from materializers.rows import cells
from materializers.tables.reader import TableReader
from schemas.ids import code_of, entity_id
from streams.partitioner import partition_for
from streams.topics import SIGNALS
from tests.brokers import EmbeddedBroker
from tests.crash.site import Site
from tests.waiting import until

PARTITIONS = 2
RETENTION_MS = 1_500
SEGMENT_BYTES = 16_384
EVENTS = 3_000
ITEMS = [f"i{number}" for number in range(5)]
WORKER = "worker-0"

# The log with the guard that `tidal log` sets, and housekeeping that need not be waited for.
SERVE = """
import sys
from pathlib import Path
from streams.embedded.embedded_log import EmbeddedLog, run
from streams.embedded.metadata import Guard
from streams.embedded.settings import LogSettings
settings = LogSettings(housekeeping_interval_s=0.2, segment_age_ms=300)
guards = (Guard("tidal", ("tidal.signals", "tidal.signals.by-item")),)
run(EmbeddedLog(Path(sys.argv[1]), "127.0.0.1", int(sys.argv[2]), settings, guards=guards), on_ready=print)
"""


class GuardedLog(EmbeddedBroker):
    def command(self, data: Path, port: int) -> list[str]:
        return [sys.executable, "-c", SERVE, str(data), str(port)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    log = GuardedLog(tmp_path)
    config = {"retention.ms": str(RETENTION_MS), "segment.bytes": str(SEGMENT_BYTES)}
    admin = AdminClient({"bootstrap.servers": log.bootstrap})
    admin.create_topics([NewTopic(SIGNALS, PARTITIONS, config=config)])[SIGNALS].result(10)
    found = Site(log, tmp_path, PARTITIONS)
    found.create_topics()
    yield found
    found.close()
    log.close()


def _publish(producer: Producer, first: int) -> None:
    ts_ms = int(time.time() * 1000)
    for number in range(first, first + EVENTS):
        user = f"u{number}"
        event = {"kind": "view", "item": ITEMS[number % 5], "user": user, "ts": ts_ms}
        home = partition_for(user.encode(), PARTITIONS)
        producer.produce(SIGNALS, json.dumps(event).encode(), key=user.encode(), partition=home)
        if number % 50 == 0:
            producer.flush()
    producer.flush()


def _starts(site: Site) -> list[int]:
    consumer = Consumer({"bootstrap.servers": site.broker.bootstrap, "group.id": "looks-only"})
    try:
        return [
            consumer.get_watermark_offsets(TopicPartition(SIGNALS, number), timeout=10)[0]
            for number in range(PARTITIONS)
        ]
    finally:
        consumer.close()


def _views(reader: TableReader) -> int:
    reader.catch_up()
    keys = [
        (partition_for(item.encode(), PARTITIONS), cells.cell_key(entity_id(item), code_of("view")))
        for item in ITEMS
    ]
    rows = reader.get_many(cells.TABLE, keys)
    return sum(int(cells.decode_cells([row]).count[0]) for row in rows if row is not None)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_what_no_checkpoint_holds_outlives_its_retention(site: Site) -> None:
    producer = Producer({"bootstrap.servers": site.broker.bootstrap, "linger.ms": 0})
    reader = TableReader(site.data, "test-reader")
    site.start_worker(WORKER)
    _publish(producer, 0)
    until(lambda: _views(reader) == EVENTS, lambda: site.tail(WORKER))
    # Checkpoints hold it all: retention takes what is old.
    until(lambda: min(_starts(site)) > 0, lambda: f"nothing was deleted: {_starts(site)}")

    site.kill(WORKER)
    site.wipe(WORKER)
    _publish(producer, EVENTS)
    before = _starts(site)
    time.sleep(4 * RETENTION_MS / 1000)
    site.broker.restart()  # a log that starts again has not forgotten for whom it waits
    time.sleep(2 * RETENTION_MS / 1000)
    held = sum(_starts(site)) - sum(before)
    assert held <= EVENTS  # of the first half, not of the second
    site.start_worker(WORKER)
    until(lambda: _views(reader) == 2 * EVENTS, lambda: f"{_views(reader)}: {site.tail(WORKER)}")
    until(lambda: sum(_starts(site)) > EVENTS, lambda: f"nothing more was deleted: {_starts(site)}")
    reader.close()
