"""Explicit edges and their counts equal the plain fold: deletes in between, any flushes, any crashes."""

from __future__ import annotations

import json
from collections import Counter
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from materializers.batches import EdgeWrite, EntityBatch
from materializers.materializer import Materializer
from materializers.rows.edge_counts import TABLE as EDGE_COUNTS
from materializers.rows.edge_counts import decode_edge_count, edge_count_key
from materializers.rows.entities import decode_edge, edge_range
from materializers.views.edges import VIEW
from schemas.loading import load_schema
from schemas.records.edge_key import edge_key
from schemas.records.entities import decode_edge as decode_record
from tests.memory_rows import MemoryRows
from tests.oracle import LogRecord, fold
from tests.view_harness import Partition, flush

TYPES = ("follows", "admires")
NAMES = ("a", "b", "c")
SCHEMA = load_schema({"relationships": {"admires": {"explicit": True, "half_life": "1h"}}})


class Write(NamedTuple):
    """One record of ``tidal.relationships`` and what happens after it."""

    type: str
    source: str
    target: str
    weight: float | None
    ts: int | None
    then: str


writes = st.lists(
    st.builds(
        Write,
        st.sampled_from(TYPES),
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
        st.one_of(st.none(), st.floats(0.0, 2.0)),
        st.one_of(st.none(), st.integers(1, 10_000)),
        st.sampled_from(["go on", "go on", "flush", "crash"]),
    ),
    max_size=30,
)


def record_of(offset: int, write: Write) -> LogRecord:
    value = None
    if write.weight is not None:
        value = json.dumps({"weight": write.weight, "ts": write.ts}).encode()
    return LogRecord("tidal.relationships", 0, offset, 5, edge_key(*write[:3]), value)


def batch_of(record: LogRecord, write: Write) -> EntityBatch:
    edge = decode_record(record.key or b"", record.value, SCHEMA)
    return EntityBatch("edge", [EdgeWrite(record.offset, 5, *write[:3], edge)])


def started(partition: Partition) -> Materializer:
    view = VIEW.build(partition.context())
    view.restore(partition.rows)
    return view


def stored(
    rows: MemoryRows, name: str, type_name: str, *, outgoing: bool
) -> set[tuple[str, str, float, int]]:
    found = rows.scan("edges", *edge_range(name, type_name, outgoing=outgoing))
    edges = [decode_edge(value) for _, value in found]
    return {(edge.source, edge.target, edge.weight, edge.ts_ms) for edge in edges}


@given(writes)
def test_edges_and_counts_equal_the_fold(log: list[Write]) -> None:
    partition = Partition(SCHEMA)
    view = started(partition)
    records = [record_of(offset, write) for offset, write in enumerate(log)]
    unflushed: list[EntityBatch] = []
    for record, write in zip(records, log, strict=True):
        unflushed.append(batch_of(record, write))
        view.on_batch(unflushed[-1])
        if write.then == "crash":
            view = started(partition)
            for batch in unflushed:
                view.on_batch(batch)
        elif write.then == "flush":
            flush(view, partition.rows)
            unflushed.clear()
    flush(view, partition.rows)
    check(partition.rows, records)


def check(rows: MemoryRows, records: list[LogRecord]) -> None:
    edges = fold(records, SCHEMA).edges
    out = Counter((name[0], name[1]) for name in edges)
    into = Counter((name[0], name[2]) for name in edges)
    for type_name in TYPES:
        for name in NAMES:
            for outgoing, counts in ((True, out), (False, into)):
                expected = {
                    (source, target, edge.weight, 5 if edge.ts_ms is None else edge.ts_ms)
                    for (kind, source, target), edge in edges.items()
                    if kind == type_name and (source if outgoing else target) == name
                }
                assert stored(rows, name, type_name, outgoing=outgoing) == expected
                [row] = rows.get_many(EDGE_COUNTS, [edge_count_key(name, type_name, outgoing=outgoing)])
                assert decode_edge_count(row) == counts[type_name, name] == len(expected)
                assert (row is None) == (not expected)
