"""One worker on a log: what any Kafka client publishes is counted once, whatever happens to the worker."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

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
from materializers.rows import cells
from materializers.shards.card_positions import decode_card_positions
from materializers.tables.reader import TableReader
from materializers.worker import Worker, WorkerConfig
from schemas.default import default_schema
from schemas.ids import entity_id
from schemas.records.columnar import encode_columnar
from schemas.records.columns import EventColumns
from schemas.settings import TopicSettings
from streams.admin import init_topics
from streams.partitioner import partition_for
from streams.topics import DEAD_LETTER, ITEMS, SIGNALS, all_topics
from tests.brokers import Broker
from tests.crash.log_reading import read_topics
from tests.crash.site import Site
from tests.waiting import until

PARTITIONS = 4
WAIT_S = 60.0
NAME = "worker-0"


def _event(number: int, ts_ms: int) -> dict[str, Any]:
    return {"kind": "view", "user": f"u{number % 17}", "item": f"i{number % 5}", "ts": ts_ms - number * 1000}


def _publish(site: Site, numbers: range, ts_ms: int) -> Counter[str]:
    """JSON on partitions of librdkafka's choice, an array, a columnar batch: each event thrice; and trash."""
    producer = Producer({"bootstrap.servers": site.broker.bootstrap})  # CRC32: most users land elsewhere
    for number in numbers:
        value = json.dumps(_event(number, ts_ms)).encode()
        producer.produce(SIGNALS, value, key=f"u{number % 17}")
    producer.produce(SIGNALS, json.dumps([_event(number, ts_ms) for number in numbers]).encode())
    producer.produce(SIGNALS, encode_columnar(_columns(numbers, ts_ms)))
    producer.produce(SIGNALS, b'{"kind": "view"')
    producer.flush()
    return Counter(f"i{number % 5}" for number in numbers)


def _columns(numbers: range, ts_ms: int) -> EventColumns:
    n = len(numbers)
    return EventColumns(
        kinds=["view"],
        items=[f"i{item}" for item in range(5)],
        users=[f"u{user}" for user in range(17)],
        kind=np.zeros(n, dtype=np.uint16),
        item=np.array([number % 5 for number in numbers], dtype=np.uint32),
        user=np.array([number % 17 for number in numbers], dtype=np.uint32),
        weight=np.full(n, 1_000_000),
        ts_ms=np.array([ts_ms - number * 1000 for number in numbers]),
    )


def _counts(reader: TableReader) -> dict[str, int]:
    reader.catch_up()
    code = default_schema().signals["view"].code
    found = {}
    for number in range(5):
        home = partition_for(f"i{number}".encode(), PARTITIONS)
        row = reader.get_many(cells.TABLE, [(home, cells.cell_key(entity_id(f"i{number}"), code))])[0]
        if row is not None:
            found[f"i{number}"] = int(cells.decode_cells([row]).count[0])
    return found


def _await_counts(site: Site, reader: TableReader, expected: Counter[str]) -> None:
    until(
        lambda: _counts(reader) == expected,
        lambda: f"{_counts(reader)} is not {expected}: {site.tail(NAME)}",
    )


@pytest.mark.timeout(180)
def test_every_event_is_counted_once_over_kills_and_a_lost_disk(site: Site) -> None:
    now_ms = int(time.time() * 1000)
    site.start_worker(NAME)
    expected = _publish(site, range(300), now_ms)
    reader = TableReader(site.data, "test-reader")
    _await_counts(site, reader, expected)

    site.kill(NAME)
    expected += _publish(site, range(300, 600), now_ms)
    site.start_worker(NAME)
    _await_counts(site, reader, expected)

    site.kill(NAME)
    site.wipe(NAME)
    expected += _publish(site, range(600, 700), now_ms)
    site.start_worker(NAME)
    _await_counts(site, reader, expected)

    site.stop(NAME)  # SIGTERM: the last checkpoint, exit code 0
    assert _counts(reader) == expected
    reader.close()
    letters = read_topics(site.broker.bootstrap, [DEAD_LETTER])
    assert [letter.headers["tidal-code"] for letter in letters] == [b"malformed_json"] * 3


@pytest.mark.timeout(120)
def test_an_item_that_comes_late_is_applied_to_what_waited(site: Site) -> None:
    site.start_worker(NAME)
    producer = Producer({"bootstrap.servers": site.broker.bootstrap})
    home = partition_for(b"ann", PARTITIONS)
    event = {"kind": "like", "user": "ann", "item": "late", "ts": int(time.time() * 1000)}
    producer.produce(SIGNALS, json.dumps(event).encode(), partition=home)
    producer.flush()
    reader = TableReader(site.data, "test-reader")

    def parked() -> int:
        shard = site.status(NAME).get("shards", {}).get(str(home), {})
        return int(shard.get("parked", 0))

    until(lambda: parked() == 1, lambda: site.tail(NAME))
    item = partition_for(b"late", PARTITIONS)
    producer.produce(ITEMS, b'{"creator":"zoe"}', key=b"late", partition=item)
    producer.flush()

    def arrived() -> bool:
        reader.catch_up()
        history = [decode_card_positions(row) for _, row in reader.scan("card_positions", home)]
        return any(row.next_offsets.get(item, 0) for row in history)

    until(arrived, lambda: site.tail(NAME))
    assert len(list(reader.scan("relationships", home))) == 2  # to the item, and now to its creator
    memory = site.status(NAME)["memory"]
    assert 0 < sum(memory["parts"].values()) < memory["anonymous"]
    reader.close()


class _Broken:
    def on_batch(self, batch: Any) -> None:
        raise ZeroDivisionError("a view with a fault")

    def checkpoint(self, writer: RowWriter) -> None:
        """Nothing."""

    def restore(self, reader: RowReader) -> None:
        """Nothing."""

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        return {}


@pytest.mark.timeout(120)
async def test_a_fault_in_a_view_stops_the_worker_instead_of_skipping_a_batch(
    broker: Broker, tmp_path: Path
) -> None:
    init_topics(broker.bootstrap, all_topics(TopicSettings(partitions=PARTITIONS)))
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    producer.produce(SIGNALS, json.dumps(_event(1, int(time.time() * 1000))).encode())
    producer.flush()

    def build(context: PartitionContext) -> Materializer:
        return _Broken()

    config = WorkerConfig(brokers=broker.bootstrap, data=str(tmp_path), partitions=PARTITIONS)
    registry = MaterializerRegistry([View("broken", Scope.USER, (), build)])
    worker = Worker(config, default_schema(), NAME, registry)
    with pytest.raises(ZeroDivisionError, match="a view with a fault"):
        await asyncio.wait_for(worker.run(), WAIT_S)
