"""Faust's hooks: one message for each partition batch, acknowledged as a whole, nothing to recover."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from faust.types import TP

from streams.faust.batch import RecordBatch
from streams.faust.scheduler import BatchScheduler
from streams.faust.schema import BatchSchema
from streams.faust.transport import BatchConsumer
from streams.records import Records


def _part(*offsets: int, timestamp: int = 5) -> Records:
    n = len(offsets)
    return Records("a", 0, np.array(offsets), np.full(n, timestamp), [None] * n, [b"v"] * n, {})


def test_each_partition_of_a_fetch_is_one_message() -> None:
    fetched = {
        TP("a", 0): [_part(3, 4), _part(9)],
        TP("a", 1): [_part(7)],
        TP("b", 0): [],
        TP("c", 2): [_part(0)],
    }
    found = dict(BatchScheduler().iterate(fetched))
    assert set(found) == {TP("a", 0), TP("a", 1), TP("c", 2)}
    assert found[TP("a", 0)].value == fetched[TP("a", 0)]
    assert found[TP("a", 0)].offset == 9


def test_topics_take_turns() -> None:
    fetched = {TP("a", 0): [_part(1)], TP("a", 1): [_part(1)], TP("b", 0): [_part(1)]}
    order = [tp.topic for tp, _ in BatchScheduler().iterate(fetched)]
    assert order.index("b") < 2


def test_a_batch_has_what_a_consumer_record_has() -> None:
    batch = RecordBatch("a", 2, [_part(1), _part(2, timestamp=8)])
    assert (batch.topic, batch.partition, batch.offset, batch.timestamp) == ("a", 2, 2, 8)
    names = ("headers", "key", "checksum", "timestamp_type", "serialized_key_size", "serialized_value_size")
    assert all(hasattr(batch, name) for name in names)


def test_the_schema_passes_batches_through() -> None:
    message = SimpleNamespace(key=None, value=[1, 2])
    assert BatchSchema().loads_value(None, message) == [1, 2]
    assert BatchSchema().loads_key(None, message) is None


class Consumer(BatchConsumer):
    """Only what the overridden methods touch."""

    def __init__(self, ready: set[int]) -> None:
        self._acked = defaultdict(list)
        self._acked_index = defaultdict(set)
        self._paused_partitions = set()
        self._active_partitions = set()
        owner = SimpleNamespace(is_ready=ready.__contains__)
        tables = SimpleNamespace(changelog_topics={"changelog"})
        self.app = cast(Any, SimpleNamespace(partition_owner=owner, tables=tables))


def test_the_highest_acknowledged_batch_is_committed() -> None:
    consumer, tp = Consumer(set()), TP("a", 0)
    assert consumer._new_offset(tp) is None
    consumer._acked[tp].extend([40, 99])
    consumer._acked_index[tp].update([40, 99])
    assert consumer._new_offset(tp) == 100
    assert consumer._new_offset(tp) is None
    assert not consumer._acked_index[tp]


def test_partitions_without_state_stay_paused() -> None:
    consumer = Consumer({1})
    consumer._paused_partitions = {TP("a", 0), TP("a", 1)}
    consumer.resume_partitions({TP("a", 0), TP("a", 1)})
    assert consumer._active_partitions == {TP("a", 1)}
    assert consumer._paused_partitions == {TP("a", 0)}


async def test_faust_is_told_that_there_is_nothing_to_recover() -> None:
    consumer, tp = Consumer(set()), TP("changelog", 0)
    assert await consumer.highwaters(tp) == {tp: 0}
    assert await consumer.earliest_offsets(tp) == {tp: 0}


def test_a_changelog_that_is_never_read_is_no_fault() -> None:
    consumer, seen = Consumer(set()), list[TP]()
    consumer._thread = cast(Any, SimpleNamespace(verify_event_path=lambda _now, tp: seen.append(tp)))
    for tp in (TP("a", 0), TP("changelog", 0)):
        consumer.verify_event_path(1.0, tp)
    assert seen == [TP("a", 0)]


@pytest.mark.parametrize("committed", [None, 5])
async def test_offsets_inside_a_batch_are_no_gap(committed: int | None) -> None:
    consumer = Consumer(set())
    assert await consumer._add_gap(TP("a", 0), 3, 9) is None  # type: ignore[func-returns-value]
