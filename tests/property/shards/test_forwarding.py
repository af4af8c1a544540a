"""Re-keying counts every event once, whatever the batches, the resends and the moments of crashes."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from materializers.materializer import Scope
from materializers.shards.events import Events
from materializers.shards.forwarding import Forward, _chunks
from schemas.default import default_schema
from schemas.records.rekeyed import decode_rekeyed
from tests.memory_rows import MemoryRows
from tests.shard_harness import PARTITIONS, Record, Sent, ShardSite, flushed

SCHEMA = default_schema()
# Sizes of source records, how they are cut into batches, and where the sender begins again.
RECORDS = st.lists(st.integers(1, 5), min_size=1, max_size=12)
CUTS = st.lists(st.integers(1, 4), min_size=1, max_size=6)


def _events(site: ShardSite, first: int, sizes: list[int]) -> Events:
    offset = np.repeat(np.arange(first, first + len(sizes)), sizes).astype(np.int64)
    n = len(offset)
    within = [number for size in sizes for number in range(size)]
    items = site.items.ids(
        [f"item{(at * 7 + number) % 5}" for at, number in zip(offset.tolist(), within, strict=True)]
    )
    return Events(
        item=items,
        user=site.users.ids([f"u{at % 3}" for at in offset.tolist()]),
        signal=np.zeros(n, dtype=np.uint16),
        weight=np.full(n, 1_000_000),
        ts_ms=offset * 1000,
        record_ts_ms=offset,
        offset=offset,
    )


def _forward(site: ShardSite, source: int, sizes: list[int], cuts: list[int], start: int) -> list[Sent]:
    """What a sender that begins at offset ``start`` sends."""
    site.forwarder.sent.clear()
    at, turn = start, 0
    while at < len(sizes):
        end = min(len(sizes), at + cuts[turn % len(cuts)])
        events = _events(site, at, sizes[at:end])
        profile = np.zeros(len(events), dtype=np.uint32)
        site.forwarder.forward([Forward(source, events, profile, end - 1)])
        if turn % 2:
            site.forwarder.send()
        at, turn = end, turn + 1
    site.forwarder.send()
    return list(site.forwarder.sent)


@settings(max_examples=30)
@given(
    sizes=RECORDS,
    cuts=CUTS,
    other_cuts=CUTS,
    resend_from=st.integers(0, 11),
    delivered=st.integers(0, 40),
    crash_after=st.integers(1, 10),
)
def test_each_event_is_counted_once(
    sizes: list[int],
    cuts: list[int],
    other_cuts: list[int],
    resend_from: int,
    delivered: int,
    crash_after: int,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        site = ShardSite(Path(folder), SCHEMA)
        first = _forward(site, 2, sizes, cuts, 0)[:delivered]  # the sender died here
        # Its successor begins at or before everything that is missing anywhere, with other batches.
        reached = min((_through(first, number) for number in range(PARTITIONS)), default=-1)
        sent = first + _forward(site, 2, sizes, other_cuts, min(resend_from, reached + 1))
        counted: Counter[int] = Counter()
        for destination in range(PARTITIONS):
            values = [each.value for each in sent if each.partition == destination]
            counted.update(_received(site, destination, values, crash_after))
    assert counted == Counter(dict(enumerate(sizes)))


def _through(sent: list[Sent], destination: int) -> int:
    marks = [decode_rekeyed(each.value).through[2] for each in sent if each.partition == destination]
    return max(marks, default=-1)


def _received(site: ShardSite, partition: int, values: list[bytes], crash_after: int) -> Counter[int]:
    """Offsets of the entries that an item shard lets through, over restarts from its last flush."""
    rows, counted = MemoryRows(), Counter[int]()
    shard = site.item_shard(partition, rows)
    view = site.views[Scope.ITEM][-1]
    records = [Record(offset, value, topic="tidal.signals.by-item") for offset, value in enumerate(values)]
    for at, record in enumerate(records):
        shard.fold(record.topic, [record])
        if at % crash_after == crash_after - 1:
            meta = flushed(shard, rows)
            for batch in view.batches:
                counted.update(batch.source_offset.tolist())
            shard = site.item_shard(partition, rows, meta)
            view = site.views[Scope.ITEM][-1]
            shard.fold(record.topic, records[: at + 1])  # the log delivers them again
    shard.settle()
    for batch in view.batches:
        counted.update(batch.source_offset.tolist())
    return counted


@given(sizes=st.lists(st.integers(1, 30_000), min_size=1, max_size=8))
def test_chunks_cut_only_between_source_records(sizes: list[int]) -> None:
    offset = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)
    chunks = _chunks(offset)
    assert np.concatenate(chunks).tolist() == list(range(len(offset)))
    owners = [set(offset[rows].tolist()) for rows in chunks]
    assert sum(map(len, owners)) == len(sizes)
    assert all(len(rows) <= 40_000 or len(owner) == 1 for rows, owner in zip(chunks, owners, strict=True))
