"""queryd's own dense numbers of items, creators and profiles: dealt at first sight, local to this process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from queryd.hot.arrays import I64, U32, U64, grown
from schemas.ids import entity_id, entity_ids

_TAIL_MAX = 16_384
ORDER_WORDS = 4


class Ordinals:
    """Dictionary id -> u32 ordinal by EntityId, and the columns that order ids.

    Memory: about 120 bytes an id besides the string. The index is a sorted array plus a short tail, because a
    Python dict of a million 64-bit integers costs ten times as much.
    ``words`` u64[capacity, 4] are the first 32 bytes of each id, big-endian: comparing them compares the ids
    (UTF-8 byte order is code point order), so that ties are broken by array operations.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._entity_ids: U64 = np.zeros(0, dtype=np.uint64)
        self._words: U64 = np.zeros((0, ORDER_WORDS), dtype=np.uint64)
        self._sorted_ids: U64 = np.zeros(0, dtype=np.uint64)
        self._sorted_ordinals: U32 = np.zeros(0, dtype=np.uint32)
        self._tail: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def entity_ids(self) -> U64:
        """EntityId by ordinal, u64[len(self)]: a view, do not keep it across ``deal``."""
        return self._entity_ids[: len(self.ids)]

    @property
    def words(self) -> U64:
        """Order words by ordinal, u64[len(self), 4]: a view, do not keep it across ``deal``."""
        return self._words[: len(self.ids)]

    def find(self, id_: str) -> int | None:
        """The ordinal of ``id_``, None when it was never seen."""
        key = entity_id(id_)
        found = self._tail.get(key)
        if found is not None:
            return found
        place = int(np.searchsorted(self._sorted_ids, np.uint64(key)))
        if place < len(self._sorted_ids) and int(self._sorted_ids[place]) == key:
            return int(self._sorted_ordinals[place])
        return None

    def find_entities(self, keys: U64) -> I64:
        """Ordinals i64[n] of EntityIds u64[n]; -1 where unknown."""
        found = np.full(len(keys), -1, dtype=np.int64)
        if len(self._sorted_ids) and len(keys):
            place = np.searchsorted(self._sorted_ids, keys)
            place[place == len(self._sorted_ids)] = 0
            hit = self._sorted_ids[place] == keys
            found[hit] = self._sorted_ordinals[place[hit]]
        if self._tail:
            tail = self._tail
            for row in np.flatnonzero(found < 0).tolist():
                found[row] = tail.get(int(keys[row]), -1)
        return found

    def deal(self, ids: Sequence[str]) -> U32:
        """Ordinals u32[n] of ``ids``; an id not seen before gets the next one (twice in one call: once)."""
        if not ids:
            return np.zeros(0, dtype=np.uint32)
        keys = np.asarray(entity_ids(list(ids)), dtype=np.uint64)
        found = self.find_entities(keys)
        unknown = np.flatnonzero(found < 0)
        if len(unknown):
            self._append(ids, keys, found, unknown)
        return found.astype(np.uint32)

    def _append(self, ids: Sequence[str], keys: U64, found: I64, unknown: I64) -> None:
        new_keys, first, inverse = np.unique(keys[unknown], return_index=True, return_inverse=True)
        rows = unknown[np.sort(first)]
        base, count = len(self.ids), len(rows)
        rank = np.empty(len(new_keys), dtype=np.int64)
        rank[np.argsort(first, kind="stable")] = np.arange(base, base + count)
        found[unknown] = rank[inverse]
        fresh = [ids[row] for row in rows.tolist()]
        self._entity_ids = grown(self._entity_ids, base + count)
        self._words = grown(self._words, base + count)
        self._entity_ids[base : base + count] = keys[rows]
        self._words[base : base + count] = order_words(fresh)
        self.ids.extend(fresh)
        self._index(keys[rows], base)

    def _index(self, keys: U64, base: int) -> None:
        if len(self._tail) + len(keys) <= _TAIL_MAX:
            self._tail.update(zip(keys.tolist(), range(base, base + len(keys)), strict=True))
            return
        tail_keys = np.fromiter(self._tail.keys(), dtype=np.uint64, count=len(self._tail))
        tail_ordinals = np.fromiter(self._tail.values(), dtype=np.uint32, count=len(self._tail))
        added = np.concatenate([tail_keys, keys])
        ordinals = np.concatenate([tail_ordinals, np.arange(base, base + len(keys), dtype=np.uint32)])
        order = np.argsort(added)
        place = np.searchsorted(self._sorted_ids, added[order])
        self._sorted_ids = np.insert(self._sorted_ids, place, added[order])
        self._sorted_ordinals = np.insert(self._sorted_ordinals, place, ordinals[order])
        self._tail = {}


def order_words(ids: Sequence[str]) -> U64:
    """The first 32 bytes of each id as four big-endian u64, zero-padded: u64[n, 4]."""
    raw = np.array([id_.encode() for id_ in ids], dtype=f"S{8 * ORDER_WORDS}")
    return raw.view(">u8").reshape(-1, ORDER_WORDS).astype(np.uint64)
