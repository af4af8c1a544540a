"""What a shard hands to its views: columns of accepted events, strings already replaced by wids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.records.entities import EdgeRecord, EntityRecord

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class CardedEvents:
    """Events whose item record is known, in the order in which they are applied: parked ones first, then
    those of the batch. All arrays have one length.

    ``creator`` is a wid (0 = none); ``card`` a row of ``ItemCards``.
    """

    item: U32
    user: U32
    signal: U16
    weight: I64
    ts_ms: I64
    offset: I64
    creator: U32
    card: U32

    def __len__(self) -> int:
        return len(self.item)


@dataclass(slots=True)
class UserBatch:
    """Accepted, deduplicated events of one user partition in offset order. All arrays have one length.

    ``item``, ``user``, ``profile`` are wids (user 0 = anonymous: user views leave it out); ``signal`` is the
    index in ``Schema.signal_list``; ``weight`` is fixed point in micro-units; ``record_ts_ms`` log time.
    """

    item: U32
    user: U32
    signal: U16
    profile: U32
    weight: I64
    ts_ms: I64
    record_ts_ms: I64
    offset: I64
    carded: CardedEvents

    def __len__(self) -> int:
        return len(self.item)


@dataclass(frozen=True, slots=True)
class ItemMove:
    """From ``offset`` of the partition on ``item`` satisfies the item conditions ``holds``, as the item's
    record at the source position says.
    """

    offset: int
    item: str
    holds: tuple[str, ...]
    source_partition: int
    source_offset: int


@dataclass(slots=True)
class StampBatch:
    """Accepted events of one user partition in offset order, before any view folds them. All arrays have one
    length, and are those of ``UserBatch``.

    ``profile``: the wids of what users' records say; ``moves`` in log order, before, between or after the
    events.
    """

    item: U32
    user: U32
    signal: U16
    profile: U32
    weight: I64
    ts_ms: I64
    offset: I64
    moves: Sequence[ItemMove]

    def __len__(self) -> int:
        return len(self.item)


@dataclass(slots=True)
class ItemBatch:
    """Re-keyed events of one item partition, each once. All arrays have one length.

    ``user`` is the EntityId (0 = anonymous); ``source_partition`` and ``source_offset`` say where in
    ``tidal.signals`` the event was acknowledged.
    """

    item: U32
    user: U64
    signal: U16
    profile: U32
    weight: I64
    ts_ms: I64
    record_ts_ms: I64
    source_partition: U16
    source_offset: I64

    def __len__(self) -> int:
        return len(self.item)


@dataclass(slots=True)
class EntityWrite:
    """One record of a compacted entity topic; ``record`` None deletes the entity."""

    offset: int
    timestamp_ms: int
    id: str
    record: EntityRecord | None


@dataclass(slots=True)
class EdgeWrite:
    """One record of ``tidal.relationships``; ``record`` None deletes the edge."""

    offset: int
    timestamp_ms: int
    type: str
    source: str
    target: str
    record: EdgeRecord | None


@dataclass(slots=True)
class EntityBatch:
    """Writes of one partition of one entity topic in offset order; ``kind``: item, user, creator or edge."""

    kind: str
    writes: list[EntityWrite] | list[EdgeWrite]
