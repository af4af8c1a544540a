"""What ranking and filtering need of item records, as columns by queryd ordinal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from queryd.hot.arrays import F32, I32, I64, U8, U32, Mask, grown
from queryd.hot.embeddings import EmbeddingMatrix
from queryd.hot.fields import ABSENT_TIME, FieldIndexes
from queryd.hot.ordinals import Ordinals
from schemas.model import EntityDef
from schemas.records.entities import EntityRecord

NO_CREATOR = -1
_STATUS = {"active": 1, "archived": 2, "deleted": 3}
_UNKNOWN = 0  # signals may come before the record: such an item counts, ranks and has no fields


@dataclass(frozen=True, slots=True)
class ItemWrite:
    """The newest record of an item; ``record`` None when it was deleted."""

    id: str
    record: EntityRecord | None


class ItemColumns:
    """Items by ordinal: visibility, creator, created_at, filter indexes, embeddings.

    An item without a record is visible (its signals count at once); one that is archived or deleted is not.
    """

    def __init__(self, item: EntityDef) -> None:
        self.ordinals = Ordinals()
        self.creators = Ordinals()
        self.fields = FieldIndexes(item.fields)
        self.embeddings: Mapping[str, EmbeddingMatrix] = {
            slot.name: EmbeddingMatrix(slot.dim) for slot in item.embeddings.values()
        }
        self._status: U8 = np.zeros(0, dtype=np.uint8)
        self._creator: I32 = np.full(0, NO_CREATOR, dtype=np.int32)
        self._created: I64 = np.full(0, ABSENT_TIME, dtype=np.int64)
        self.version = 0

    def __len__(self) -> int:
        return len(self.ordinals)

    def apply(self, writes: Sequence[ItemWrite]) -> U32:
        """Apply records in order (the last write of an item wins); returns the ordinals written, distinct."""
        newest = {write.id: write.record for write in writes}
        ordinals = self.ordinals.deal(list(newest))
        records = list(newest.values())
        self._ensure()
        self._status[ordinals] = [
            _STATUS["deleted"] if record is None else _STATUS[record.status] for record in records
        ]
        self._creator[ordinals] = self._creator_ordinals(records)
        self._created[ordinals] = [_created_at(record) for record in records]
        self.fields.set(ordinals, [{} if record is None else record.fields for record in records])
        for slot, matrix in self.embeddings.items():
            vectors = [None if record is None else record.embeddings.get(slot) for record in records]
            _store(matrix, ordinals, vectors)
        self.version += 1
        return ordinals

    def visible(self) -> Mask:
        """Items that queries may show, bool[len(self)]."""
        self._ensure()
        return self._status[: len(self)] <= _STATUS["active"]

    def recorded(self) -> Mask:
        """Items whose record is known and active, bool[len(self)]."""
        self._ensure()
        return np.asarray(self._status[: len(self)] == _STATUS["active"])

    def creator(self, ordinals: U32) -> I32:
        """Creator ordinals i32[n] of items, ``NO_CREATOR`` where unknown."""
        self._ensure()
        return self._creator[ordinals]

    def creator_column(self) -> I32:
        """Creator ordinal of every item, i32[len(self)]: a view."""
        self._ensure()
        return self._creator[: len(self)]

    def catalog(self, creator: str) -> U32:
        """Ordinals of the items of a creator that are not deleted, u32[n]."""
        self._ensure()
        ordinal = self.creators.find(creator)
        if ordinal is None:
            return np.zeros(0, dtype=np.uint32)
        mine = self._creator[: len(self)] == ordinal
        mine &= self._status[: len(self)] != _STATUS["deleted"]
        return np.flatnonzero(mine).astype(np.uint32)

    def created_column(self) -> I64:
        """created_at of every item in epoch ms, i64[len(self)], ``ABSENT_TIME`` where unknown: a view."""
        self._ensure()
        return self._created[: len(self)]

    def _creator_ordinals(self, records: Sequence[EntityRecord | None]) -> list[int]:
        names = [record.creator for record in records if record is not None and record.creator]
        dealt = iter(self.creators.deal(names).tolist())
        return [next(dealt) if record is not None and record.creator else NO_CREATOR for record in records]

    def _ensure(self) -> None:
        rows = len(self.ordinals)
        if rows > len(self._status):
            self._status = grown(self._status, rows, _UNKNOWN)
            self._creator = grown(self._creator, rows, NO_CREATOR)
            self._created = grown(self._created, rows, ABSENT_TIME)


def _created_at(record: EntityRecord | None) -> int:
    value = None if record is None else record.fields.get("created_at")
    return int(value) if isinstance(value, int | float) else int(ABSENT_TIME)


def _store(matrix: EmbeddingMatrix, ordinals: U32, vectors: Sequence[F32 | None]) -> None:
    present = np.array([vector is not None for vector in vectors], dtype=np.bool_)
    if present.any():
        matrix.set(ordinals[present], np.stack([vector for vector in vectors if vector is not None]))
    matrix.clear(ordinals[~present])
