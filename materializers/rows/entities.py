"""Rows of ``items``, ``users``, ``creators`` and ``edges``, and the feed section of entities' writes.

An entity's key is ``[EntityId][0x00][ENTITY_TAG]``; its value holds the record's own bytes, which
``schemas.records.entities`` decodes. An edge stands under its source (``EDGE_OUT_TAG``) and, in the same
partition, under its target (``EDGE_IN_TAG``):
``[EntityId][0x00][tag][type code u32 BE][other EntityId u64 BE]``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from materializers.rows.errors import RowFormatError, check_version
from materializers.rows.packing import Packer, Unpacker
from schemas.ids import code_of, entity_id
from schemas.keys import row_key
from schemas.model import ENTITY_KINDS, STATUSES

ENTITY_TAG: Final = 0
EDGE_OUT_TAG: Final = 5
EDGE_IN_TAG: Final = 6
VERSION: Final = 1
EDGES: Final = "edges"
ENTITIES_SECTION: Final = "entities"
TABLE_OF_KIND: Final = {"item": "items", "user": "users", "creator": "creators"}

_ENTITY: Final = struct.Struct("<BBqqH")
_EDGE: Final = struct.Struct("<BqqdHH")


class StoredEntity(NamedTuple):
    """An entity's newest record: ``raw`` as it stands in the log, with its offset and time there."""

    id: str
    status: str
    offset: int
    timestamp_ms: int
    raw: bytes


class StoredEdge(NamedTuple):
    """An explicit edge; ``ts_ms`` is when it was written by its source."""

    source: str
    target: str
    weight: float
    ts_ms: int
    offset: int


class EntityChange(NamedTuple):
    """Feed: an entity's new record, or ``raw`` None when it was deleted."""

    kind: str
    id: str
    offset: int
    timestamp_ms: int
    raw: bytes | None


def entity_key(external_id: str) -> bytes:
    return row_key(entity_id(external_id), ENTITY_TAG)


def encode_entity(entity: StoredEntity) -> bytes:
    name = entity.id.encode()
    head = _ENTITY.pack(VERSION, STATUSES.index(entity.status), entity.offset, entity.timestamp_ms, len(name))
    return head + name + entity.raw


def decode_entity_row(value: bytes) -> StoredEntity:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    _, status, offset, timestamp_ms, length = _unpacked("entity", _ENTITY, value)
    end = _ENTITY.size + length
    if status >= len(STATUSES) or end > len(value):
        raise RowFormatError("entity", f"status {status}, {len(value)} bytes")
    name = value[_ENTITY.size : end].decode()
    return StoredEntity(name, STATUSES[status], offset, timestamp_ms, value[end:])


def edge_keys_of(type_name: str, source: str, target: str) -> tuple[bytes, bytes]:
    """The two keys of an edge: under its source, and under its target."""
    return edge_keys(code_of(type_name), source, target)


def edge_keys(type_code: int, source: str, target: str) -> tuple[bytes, bytes]:
    """``edge_keys_of`` by the type's code."""
    code = type_code.to_bytes(4, "big")
    from_id, to_id = entity_id(source), entity_id(target)
    return (
        row_key(from_id, EDGE_OUT_TAG, code + to_id.to_bytes(8, "big")),
        row_key(to_id, EDGE_IN_TAG, code + from_id.to_bytes(8, "big")),
    )


def edge_range(external_id: str, type_name: str, *, outgoing: bool) -> tuple[bytes, bytes]:
    """``(start, end)`` keys of the edges of one type from an entity (or to it)."""
    tag = EDGE_OUT_TAG if outgoing else EDGE_IN_TAG
    prefix = row_key(entity_id(external_id), tag, code_of(type_name).to_bytes(4, "big"))
    return prefix + b"\x00" * 8, prefix + b"\xff" * 9


def encode_edge(edge: StoredEdge) -> bytes:
    source, target = edge.source.encode(), edge.target.encode()
    head = _EDGE.pack(VERSION, edge.ts_ms, edge.offset, edge.weight, len(source), len(target))
    return head + source + target


def decode_edge(value: bytes) -> StoredEdge:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    _, ts_ms, offset, weight, from_length, to_length = _unpacked("edge", _EDGE, value)
    middle = _EDGE.size + from_length
    if len(value) != middle + to_length:
        raise RowFormatError("edge", f"{len(value)} bytes, expected {middle + to_length}")
    return StoredEdge(value[_EDGE.size : middle].decode(), value[middle:].decode(), weight, ts_ms, offset)


def encode_entity_changes(changes: Sequence[EntityChange]) -> bytes:
    packer = Packer(VERSION, len(changes))
    packer.ints(np.array([ENTITY_KINDS.index(change.kind) for change in changes], dtype=np.int64))
    packer.strings([change.id for change in changes])
    packer.ints(np.array([change.offset for change in changes], dtype=np.int64))
    packer.ints(np.array([change.timestamp_ms for change in changes], dtype=np.int64))
    packer.ints(np.array([change.raw is not None for change in changes], dtype=np.int64))
    return packer.blobs([change.raw or b"" for change in changes]).done()


def decode_entity_changes(payload: bytes) -> list[EntityChange]:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    reader = Unpacker(ENTITIES_SECTION, payload, VERSION)
    kinds, ids = reader.ints().tolist(), reader.strings()
    offsets, times, kept = reader.ints().tolist(), reader.ints().tolist(), reader.ints().tolist()
    raws = reader.blobs()
    reader.end()
    return [
        EntityChange(ENTITY_KINDS[kind], name, offset, time, raw if keep else None)
        for kind, name, offset, time, keep, raw in zip(kinds, ids, offsets, times, kept, raws, strict=True)
    ]


def _unpacked(what: str, layout: struct.Struct, value: bytes) -> tuple[int, ...]:
    if len(value) < layout.size:
        raise RowFormatError(what, f"a row of {len(value)} bytes")
    fields = layout.unpack_from(value)
    check_version(what, fields[0], VERSION)
    return fields
