"""Item cards of any moment of the past: every version of every item, and which one a partition saw when.

A refold meets user partitions whose workers had read ``tidal.items`` to different places at different times.
So each version of an item gets a row of its own, once, and each partition a light table item -> version.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from materializers.batches import EntityWrite
from materializers.cards import F32, U32, Flags, SlotVectors
from materializers.interner import Interner
from schemas.model import Schema

_GROWTH_MIN: Final = 1024
_NONE: Final = 0


class _Versions:
    """Versions of one partition of ``tidal.items``, in offset order: their offsets and rows."""

    def __init__(self) -> None:
        self.offset = array("q")
        self.row = array("I")

    def until(self, next_offset: int) -> int:
        """How many stand before ``next_offset``."""
        return bisect_left(self.offset, next_offset)


class ItemHistory:
    """All versions of all items; row 0 is no version.

    Args:
        folder: of the files with the vectors, created if absent.
        schema: names the embedding slots. items, creators: the refold's dictionaries.
    """

    def __init__(self, folder: Path, schema: Schema, items: Interner, creators: Interner) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._items = items
        self._creators = creators
        slots = schema.entities["item"].embeddings
        self.vectors = {name: SlotVectors(folder / f"{name}.f32", slot) for name, slot in slots.items()}
        self._of_partition: dict[int, _Versions] = defaultdict(_Versions)
        self._size = 1
        self.item: U32 = np.zeros(_GROWTH_MIN, dtype=np.uint32)
        self.creator: U32 = np.zeros(_GROWTH_MIN, dtype=np.uint32)

    def __len__(self) -> int:
        """Versions known."""
        return self._size - 1

    @property
    def items(self) -> int:
        """Strings that the dictionary of items holds."""
        return len(self._items)

    def add(self, partition: int, write: EntityWrite) -> None:
        """Take one record; those of a partition come in offset order.

        Raises:
            IdCollisionError: another item has the same EntityId.
        """
        record, row = write.record, self._size
        item = int(self._items.ids([write.id])[0])
        creator = record.creator if record is not None and record.creator else ""
        self._reserve(row + 1)
        self.item[row] = item
        self.creator[row] = self._creators.ids([creator])[0]
        for name, vectors in self.vectors.items():
            vectors.reserve(row + 1)
            vectors.set(row, None if record is None else record.embeddings.get(name))
        versions = self._of_partition[partition]
        versions.offset.append(write.offset)
        versions.row.append(row)
        self._size = row + 1

    def rows_between(self, partition: int, start: int, end: int) -> U32:
        """Rows of the versions with ``start <= offset < end``, in offset order."""
        versions = self._of_partition[partition]
        rows = versions.row[versions.until(start) : versions.until(end)]
        return np.array(rows, dtype=np.uint32)

    def _reserve(self, size: int) -> None:
        if size > len(self.item):
            self.item = np.concatenate([self.item, np.zeros_like(self.item)])
            self.creator = np.concatenate([self.creator, np.zeros_like(self.creator)])


class CardsAsOf:
    """``Cards`` of one user partition, moved from one moment to the next."""

    NONE: Final = _NONE

    def __init__(self, history: ItemHistory) -> None:
        self._history = history
        self._version_of_item: U32 = np.zeros(_GROWTH_MIN, dtype=np.uint32)
        self.version = 0
        self.next_offsets: dict[int, int] = {}

    def move_to(self, next_offsets: Mapping[int, int]) -> None:
        """See every version before these offsets, by partition of ``tidal.items``, and no other.

        Forward it costs what is new; back, as after a move to a worker that had read less, everything.
        """
        if any(next_offsets.get(partition, 0) < seen for partition, seen in self.next_offsets.items()):
            self._version_of_item[:] = _NONE
            self.next_offsets = {}
        self._reserve()
        for partition, end in next_offsets.items():
            rows = self._history.rows_between(partition, self.next_offsets.get(partition, 0), end)
            self._version_of_item[self._history.item[rows]] = rows  # the last one of an item wins
        self.next_offsets = dict(next_offsets)
        self.version += 1

    def cards(self, items: U32) -> U32:
        """Rows of item wids u32[n]; 0 where no record is visible."""
        self._reserve()
        found: U32 = self._version_of_item[items]
        return found

    def creators(self, cards: U32) -> U32:
        """Creator wids of rows u32[n]; 0 = none."""
        found: U32 = self._history.creator[cards]
        return found

    def has_vector(self, slot: str, cards: U32) -> Flags:
        """Which rows have an embedding in ``slot``."""
        vectors = self._history.vectors[slot]
        vectors.reserve(len(self._history) + 1)
        found: Flags = vectors.present[cards]
        return found

    def vectors(self, slot: str, cards: U32) -> F32:
        """Unit vectors of rows that have one, f32[n, dim]."""
        return self._history.vectors[slot].take(cards)

    def _reserve(self) -> None:
        known = len(self._version_of_item)
        if self._history.items > known:
            longer = np.zeros(1 << self._history.items.bit_length(), dtype=np.uint32)
            longer[:known] = self._version_of_item
            self._version_of_item = longer


class EveryItem:
    """``Cards`` for a fold whose views ask for none: no event waits."""

    NONE: Final = _NONE
    version = 0
    next_offsets: dict[int, int] = {}  # noqa: RUF012 - never changed

    def cards(self, items: U32) -> U32:
        return np.ones(len(items), dtype=np.uint32)

    def creators(self, cards: U32) -> U32:
        return np.zeros(len(cards), dtype=np.uint32)

    def has_vector(self, slot: str, cards: U32) -> Flags:
        return np.zeros(len(cards), dtype=bool)

    def vectors(self, slot: str, cards: U32) -> F32:
        return np.empty((len(cards), 0), dtype=np.float32)
