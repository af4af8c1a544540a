"""Entities: the last write by log order wins, a null record deletes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from materializers.batches import EntityBatch, EntityWrite
from materializers.rows.entities import (
    EntityChange,
    decode_entity_changes,
    decode_entity_row,
    entity_key,
)
from materializers.views.entities import VIEW
from schemas.records.edge_key import edge_key
from schemas.records.entities import EntityRecord
from tests.oracle import LogRecord, fold
from tests.view_harness import Partition, flush, small_schema

SCHEMA = small_schema()


def entity(kind: str, offset: int, name: str, title: str | None) -> EntityWrite:
    if title is None:
        return EntityWrite(offset, 9, name, None)
    raw = json.dumps({"title": title, "status": "archived"}).encode()
    return EntityWrite(offset, 9, name, EntityRecord(kind, name, status="archived", raw=raw))


writes = st.lists(
    st.tuples(
        st.sampled_from(["item", "user", "creator"]),
        st.sampled_from(["a", "b", "c"]),
        st.one_of(st.none(), st.text(max_size=5)),
        st.booleans(),
    ),
    max_size=40,
)


@given(writes)
def test_records_and_feed_equal_the_fold(log: list[tuple[str, str, str | None, bool]]) -> None:
    partition = Partition(SCHEMA)
    view = VIEW.build(partition.context())
    records = []
    for offset, (kind, name, title, flushes) in enumerate(log):
        write = entity(kind, offset, name, title)
        view.on_batch(EntityBatch(kind, [write]))
        value = None if write.record is None else write.record.raw
        records.append(LogRecord(f"tidal.{kind}s", 0, offset, 9, name.encode(), value))
        if flushes:
            flush(view, partition.rows)
    flush(view, partition.rows)
    oracle = fold(records, SCHEMA)
    fed: dict[tuple[str, str], EntityChange] = {}
    for _, payload in partition.rows.fed:
        fed.update({(change.kind, change.id): change for change in decode_entity_changes(payload)})
    for kind in ("item", "user", "creator"):
        for name in ("a", "b", "c"):
            [row] = partition.rows.get_many(f"{kind}s", [entity_key(name)])
            expected = oracle.entities[kind].get(name)
            told = fed.get((kind, name))
            if expected is None:
                assert told is None or told.raw is None
                erased = told is None or kind == "user"  # others leave the fact
                assert (row is None) == erased
                assert row is None or decode_entity_row(row)[1::3] == ("deleted", b"")
                continue
            assert row is not None
            assert told is not None
            stored = decode_entity_row(row)
            assert (stored.id, stored.status, stored.raw) == (name, "archived", expected.raw)
            assert (told.raw, told.offset) == (expected.raw, stored.offset)


def test_the_oracle_folds_edges() -> None:
    log = [
        LogRecord("tidal.relationships", 0, 0, 5, edge_key("follows", "u", "c"), b"{}"),
        LogRecord("tidal.relationships", 0, 1, 6, edge_key("follows", "u", "d"), b'{"weight": 0.5}'),
        LogRecord("tidal.relationships", 0, 2, 7, edge_key("follows", "u", "c"), None),
        LogRecord("tidal.relationships", 0, 3, 8, edge_key("bond", "u", "c"), b"{}"),
    ]
    oracle = fold(log, SCHEMA)
    assert list(oracle.edges) == [("follows", "u", "d")]
    assert [reject.offset for reject in oracle.rejects] == [3]
