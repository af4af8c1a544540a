"""The tables of all workers, or of the changelog, as plain values to be held against the oracle."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from materializers.materializer import Scope
from materializers.registry import default_registry
from materializers.rows import blocks, cells, ordinals, preference, relationships, segments, user_state
from materializers.rows.entities import (
    EDGE_OUT_TAG,
    EDGES,
    ENTITY_TAG,
    TABLE_OF_KIND,
    decode_edge,
    decode_entity_row,
)
from materializers.shards.card_positions import CARD_POSITIONS_TABLE, decode_card_positions
from materializers.shards.parking import PARKED_TABLE, decode_parked
from materializers.shards.rejects import REJECT_COUNTS_TABLE
from materializers.tables.layout import CODE_BYTES
from materializers.tables.meta import META_TABLE, OWNERSHIP_KEY, ShardMeta, decode_shard
from materializers.tables.reader import TableReader
from materializers.worker import tables_of
from schemas.ids import code_of, entity_id
from schemas.keys import split_row_key
from schemas.model import Schema
from schemas.segment_plan import FOREVER, SumAtLeast, segment_plan
from tests.crash.log_reading import read_topics

Rows = dict[str, dict[bytes, bytes]]
"""Table -> key -> value, of one partition."""
HOUR_MS, MINUTE_MS = 3_600_000, 60_000


@dataclass
class Tables:
    """Every view's content, keyed as the oracle keys it. Sums are in micro-units."""

    hours: dict[tuple[str, str, int], tuple[int, int]] = field(default_factory=dict)
    cohort_hours: dict[tuple[str, str, str, int], tuple[int, int]] = field(default_factory=dict)
    cells: dict[tuple[str, str], tuple[int, int, int, list[float]]] = field(default_factory=dict)
    states: dict[tuple[int, int], set[str]] = field(default_factory=dict)
    preferences: dict[int, tuple[int, list[float], list[float]]] = field(default_factory=dict)
    edges: dict[tuple[int, int, int], tuple[float, int]] = field(default_factory=dict)
    segments: dict[tuple[int, int], set[str]] = field(default_factory=dict)
    explicit: dict[tuple[int, str, str], float] = field(default_factory=dict)
    rejects: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    entities: dict[tuple[str, str], bytes] = field(default_factory=dict)
    card_positions: dict[int, list[tuple[int, dict[int, int]]]] = field(default_factory=dict)
    waiting: int = 0
    metas: dict[tuple[int, str], ShardMeta] = field(default_factory=dict)


def rows_on_disk(data: Path) -> dict[int, Rows]:
    """Rows by partition, each from the worker that owns it, as a query daemon would read them."""
    reader = TableReader(data, "proof")
    try:
        reader.catch_up()
        return {
            partition: {table: dict(reader.scan(table, partition)) for table in _table_names()}
            for partition in reader.partitions(Scope.USER)
        }
    finally:
        reader.close()


def rows_in_changelog(bootstrap: str, topics: list[str]) -> dict[int, Rows]:
    """Rows by partition as a new worker would restore them: committed records, the last of each key."""
    name_of = {code_of(name).to_bytes(CODE_BYTES, "big"): name for name in _table_names()}
    partitions: dict[int, Rows] = defaultdict(lambda: defaultdict(dict))
    for record in read_topics(bootstrap, topics):
        assert record.key is not None
        rows = partitions[record.partition][name_of[record.key[:CODE_BYTES]]]
        if record.value is None:
            rows.pop(record.key[CODE_BYTES:], None)
        else:
            rows[record.key[CODE_BYTES:]] = record.value
    return dict(partitions)


def _table_names() -> list[str]:
    return [spec.name for specs in tables_of(default_registry()).values() for spec in specs] + [META_TABLE]


def logical(partitions: dict[int, Rows], schema: Schema) -> Tables:
    """Decode every row."""
    tables = Tables()
    for partition, rows in partitions.items():
        _items(tables, rows, schema)
        _users(tables, partition, rows)
        _segments(tables, partition, rows, schema)
        _entities(tables, rows)
        for key, value in rows.get(META_TABLE, {}).items():
            if key != OWNERSHIP_KEY:
                tables.metas[partition, key.decode()] = decode_shard(value)
    return tables


def _ordinals(rows: Rows, table: str) -> dict[int, str]:
    return {
        ordinals.decode_ordinal_key(key): ordinals.decode_ordinal(value)
        for key, value in rows.get(table, {}).items()
    }


def _items(tables: Tables, rows: Rows, schema: Schema) -> None:
    items, profiles = _ordinals(rows, ordinals.ITEM_IDS), _ordinals(rows, ordinals.ITEM_PROFILES)
    signals = {signal.code: signal.name for signal in schema.signal_list}
    for key, value in rows.get("global_blocks", {}).items():
        hour = _hour(key)
        for item, signal, _, count, total in _block_rows(value):
            _add(tables.hours, (items[item], signals[signal], hour), count, total)
    for key, value in rows.get("cohort_blocks", {}).items():
        hour = _hour(key)
        for item, signal, profile, count, total in _block_rows(value):
            _add(tables.cohort_hours, (items[item], signals[signal], profiles[profile], hour), count, total)
    named = {entity_id(item): item for item in items.values()}
    for key, value in rows.get(cells.TABLE, {}).items():
        item, _, suffix = split_row_key(key)
        cell = cells.decode_cells([value])
        tables.cells[named[item], signals[int.from_bytes(suffix, "big")]] = (
            int(cell.count[0]),
            int(cell.sum[0]),
            int(cell.ref_ms[0]),
            cell.acc[0].tolist(),
        )


def _hour(key: bytes) -> int:
    _, bucket, _ = blocks.split_block_key(key)
    return bucket * MINUTE_MS // HOUR_MS * HOUR_MS


def _block_rows(value: bytes) -> list[tuple[int, int, int, int, int]]:
    block = blocks.decode_block(value)
    profile = block.profile if block.profile is not None else np.zeros(len(block), dtype=np.uint32)
    columns = (block.item, block.signal, profile, block.count, block.sum)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _add(totals: dict, key: tuple, count: int, total: int) -> None:  # type: ignore[type-arg]
    before = totals.get(key, (0, 0))
    totals[key] = (before[0] + count, before[1] + total)


def _users(tables: Tables, partition: int, rows: Rows) -> None:
    items = _ordinals(rows, ordinals.USER_ITEMS)
    for key, value in rows.get(user_state.TABLE, {}).items():
        user, state, _ = user_state.split_state_key(key)
        bitmap = user_state.decode_container(value)
        tables.states.setdefault((user, state), set()).update(items[ordinal] for ordinal in bitmap)
    for key, value in rows.get(preference.TABLE, {}).items():
        row = preference.decode_preference(value)
        tables.preferences[split_row_key(key)[0]] = (row.updates, row.long.tolist(), row.short.tolist())
    for key, value in rows.get(relationships.TABLE, {}).items():
        user, code, target = relationships.split_relationship_key(key)
        edge = relationships.decode_relationship(value)
        tables.edges[user, code, target] = (edge.weight, edge.updated_ms)
    for key, value in rows.get(REJECT_COUNTS_TABLE.name, {}).items():
        tables.rejects[key.decode()] += int.from_bytes(value, "big")
    history = [
        decode_card_positions(row) for _, row in sorted(rows.get(CARD_POSITIONS_TABLE.name, {}).items())
    ]
    tables.card_positions[partition] = [(row.applied, row.next_offsets) for row in history]
    tables.waiting += len([decode_parked(value) for value in rows.get(PARKED_TABLE.name, {}).values()])


def _segments(tables: Tables, partition: int, rows: Rows, schema: Schema) -> None:
    """The segments that each user is in at the newest time counted of them, if any."""
    plan = segment_plan(schema)
    layout = segments.SegmentRow(plan.terms)
    for key, value in rows.get(segments.TABLE, {}).items():
        row = layout.decode([value])
        truths = [
            row[f"sum_{atom.term}"] >= atom.micro
            if isinstance(atom, SumAtLeast)
            else row[f"count_{atom.term}"] >= atom.events
            if atom.window_ms == FOREVER
            else row[f"times_{atom.term}"][:, atom.events - 1] > row["newest_ms"] - atom.window_ms
            for atom in plan.atoms
        ]
        found = {name for name, holds in zip(plan.names, plan.membership(truths), strict=True) if holds[0]}
        if found:
            tables.segments[partition, split_row_key(key)[0]] = found


def _entities(tables: Tables, rows: Rows) -> None:
    for kind, table in TABLE_OF_KIND.items():
        for key, value in rows.get(table, {}).items():
            assert split_row_key(key)[1] == ENTITY_TAG
            stored = decode_entity_row(value)
            if stored.status != "deleted":
                tables.entities[kind, stored.id] = stored.raw
    for key, value in rows.get(EDGES, {}).items():
        _, tag, suffix = split_row_key(key)
        if tag == EDGE_OUT_TAG:
            edge = decode_edge(value)
            code = int.from_bytes(suffix[:4], "big")
            tables.explicit[code, edge.source, edge.target] = edge.weight
