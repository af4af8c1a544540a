"""Entries of ``tidal.signals.by-item``: what the user shard forwards to the item shard, packed.

Every entry says where it was acknowledged (source partition and offset), so that the receiver can drop what
it has; ``through`` says how far each source partition has been forwarded, also where nothing came of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.records.columns import I64, U16, U32, U64
from schemas.records.framing import MAGIC_REKEYED, frame, unframe
from schemas.records.packing import Packer, Unpacker

VERSION: Final = 1
ENTRIES_MAX: Final = 1 << 20
"""Entries of one record: in catch-up a forward packs far more than a producer's batch."""

_PARTITIONS_MAX: Final = 1 << 16


@dataclass(slots=True)
class RekeyedColumns:
    """n entries; all columns have one length.

    ``items``, ``profiles`` (cohort profile strings), ``kinds`` are dictionaries indexed by ``item`` u32[n],
    ``profile`` u32[n], ``kind`` u16[n]. ``source_partition`` u16[n], ``offset`` i64[n]: where the event was
    acknowledged. ``user`` u64[n]: EntityId, 0 = anonymous. ``weight`` i64[n] micro-units; ``ts_ms``,
    ``record_ts_ms`` i64[n]. ``through``: source partition → offset through which all has been forwarded.
    """

    items: list[str]
    profiles: list[str]
    kinds: list[str]
    source_partition: U16
    offset: I64
    item: U32
    profile: U32
    kind: U16
    user: U64
    weight: I64
    ts_ms: I64
    record_ts_ms: I64
    through: dict[int, int]

    def __len__(self) -> int:
        return len(self.item)


def encode_rekeyed(columns: RekeyedColumns) -> bytes:
    """The record of ``columns``.

    Raises:
        ValueError: more than 1,048,576 entries, or 4 GiB of strings.
    """
    if len(columns) > ENTRIES_MAX:
        raise ValueError(f"{len(columns)} entries in one record, at most {ENTRIES_MAX}; forward several")
    packer = Packer()
    packer.u32(len(columns))
    packer.u32(len(columns.through))
    packer.integers(np.array(list(columns.through), dtype=np.int64))
    packer.integers(np.array(list(columns.through.values()), dtype=np.int64))
    for dictionary in (columns.items, columns.profiles, columns.kinds):
        packer.strings(dictionary)
    for column in _integer_columns(columns):
        packer.integers(column)
    packer.words(columns.user)
    return frame(MAGIC_REKEYED, VERSION, packer.content())


def decode_rekeyed(value: bytes) -> RekeyedColumns:
    """The entries of a record, safe to index.

    Raises:
        RecordError: ``unsupported_version``, ``truncated_batch`` or ``checksum_mismatch``.
    """
    unpacker = Unpacker(unframe(MAGIC_REKEYED, VERSION, value))
    n = unpacker.u32("count", ENTRIES_MAX)
    marks = unpacker.u32("through", _PARTITIONS_MAX)
    partitions = unpacker.indexes(marks, _PARTITIONS_MAX, "through")
    through = dict(zip(partitions.tolist(), unpacker.integers(marks, "through").tolist(), strict=True))
    items, profiles, kinds = (unpacker.strings(what) for what in ("items", "profiles", "kinds"))
    source_partition = unpacker.indexes(n, _PARTITIONS_MAX, "source_partition")
    item = unpacker.indexes(n, len(items), "item")
    profile = unpacker.indexes(n, len(profiles), "profile")
    kind = unpacker.indexes(n, min(len(kinds), 2**16), "kind")
    offset, weight, ts_ms, record_ts_ms = (
        unpacker.integers(n, what) for what in ("offset", "weight", "ts", "record_ts")
    )
    user = unpacker.words(n, "user")
    unpacker.done()
    return RekeyedColumns(
        items=items,
        profiles=profiles,
        kinds=kinds,
        source_partition=source_partition.astype(np.uint16),
        offset=offset,
        item=item.astype(np.uint32),
        profile=profile.astype(np.uint32),
        kind=kind.astype(np.uint16),
        user=user,
        weight=weight,
        ts_ms=ts_ms,
        record_ts_ms=record_ts_ms,
        through=through,
    )


def _integer_columns(columns: RekeyedColumns) -> tuple[U16 | U32 | I64, ...]:
    return (
        columns.source_partition,
        columns.item,
        columns.profile,
        columns.kind,
        columns.offset,
        columns.weight,
        columns.ts_ms,
        columns.record_ts_ms,
    )
