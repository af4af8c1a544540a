"""Which items satisfy which conditions of segments, as one partition's log has told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from materializers.batches import ItemMove
from materializers.int_index import IntIndex
from materializers.interner import Interner
from materializers.materializer import RowReader, RowWriter
from materializers.rows.segments import (
    ITEMS_TABLE,
    SegmentItem,
    decode_segment_item,
    encode_segment_item,
    segment_item_key,
)

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_GROWTH_MIN: Final = 256
_UNSEEN: Final = -1


class SegmentItems:
    """Items that satisfy, or once satisfied, some condition: about 60 bytes each, the others none.

    Args:
        conditions: in canonical text; bit i of a word is the i-th. items: the worker's dictionary.
    """

    def __init__(self, conditions: Sequence[str], items: Interner) -> None:
        self._bit_of = {text: np.uint64(1 << place) for place, text in enumerate(conditions)}
        self._items = items
        self._changed: dict[int, SegmentItem] = {}
        self._clear()

    def __len__(self) -> int:
        """Items known."""
        return self._size

    def of(self, items: U32, offsets: I64, moves: Sequence[ItemMove]) -> U64:
        """The conditions that the item of each event satisfies where the event stands, a word each, u64[n].

        ``moves`` in log order are applied, and hold for the events after them.
        """
        satisfied = self._words(items)
        if not moves:
            return satisfied
        wids = self._items.ids([move.item for move in moves]).astype(np.int64)
        slots = self._slots(wids)
        news = [place for place, slot in enumerate(slots.tolist()) if self._take(slot, moves[place])]
        if news and len(items):
            applied = [moves[place] for place in news]
            self._restate(satisfied, items.astype(np.int64), offsets, wids[news], applied)
        return satisfied

    def checkpoint(self, writer: RowWriter) -> None:
        """Rows changed since the last call."""
        for item in self._changed.values():
            key = segment_item_key(int(self._items.entity_ids[self._items.ids([item.item])[0]]))
            writer.put(ITEMS_TABLE, key, encode_segment_item(item))
        self._changed.clear()

    def restore(self, reader: RowReader) -> None:
        """Load every row."""
        self._clear()
        self._changed.clear()
        stored = [decode_segment_item(row) for _, row in reader.scan(ITEMS_TABLE)]
        slots = self._slots(self._items.ids([item.item for item in stored]).astype(np.int64))
        for slot, item in zip(slots.tolist(), stored, strict=True):
            self._put(slot, item)

    def _clear(self) -> None:
        self._index = IntIndex()
        self._word: U64 = np.zeros(_GROWTH_MIN, dtype=np.uint64)
        self._source: I64 = np.full((_GROWTH_MIN, 2), _UNSEEN, dtype=np.int64)
        self._size = 0

    def _words(self, items: U32) -> U64:
        if not self._size:
            return np.zeros(len(items), dtype=np.uint64)
        slots = self._index.find(items.astype(np.int64))
        words: U64 = np.where(slots >= 0, self._word[slots], np.uint64(0))
        return words

    def _take(self, slot: int, move: ItemMove) -> bool:
        """Apply a move unless something newer was applied; the same one again changes nothing."""
        partition, offset = self._source[slot].tolist()
        if partition == move.source_partition and offset > move.source_offset:
            return False
        item = SegmentItem(move.item, move.holds, move.source_partition, move.source_offset)
        self._changed[slot] = item
        self._put(slot, item)
        return True

    def _put(self, slot: int, item: SegmentItem) -> None:
        self._word[slot] = self._word_of(item.holds)
        self._source[slot] = (item.source_partition, item.source_offset)

    def _slots(self, wids: I64) -> I64:
        """Slots of items i64[n], which need not differ; new ones satisfy nothing yet."""
        slots = self._index.find(wids).astype(np.int64)
        new = np.unique(wids[slots < 0])
        if not len(new):
            return slots
        end = self._size + len(new)
        while end > len(self._word):
            self._word = np.concatenate([self._word, np.zeros_like(self._word)])
            self._source = np.concatenate([self._source, np.full_like(self._source, _UNSEEN)])
        self._index.insert(new, np.arange(self._size, end))
        self._size = end
        return self._index.find(wids).astype(np.int64)

    def _word_of(self, holds: Sequence[str]) -> np.uint64:
        """What another schema asked for has no bit."""
        word = np.uint64(0)
        for text in holds:
            word |= self._bit_of.get(text, np.uint64(0))
        return word

    def _restate(
        self, satisfied: U64, items: I64, offsets: I64, wids: I64, moves: Sequence[ItemMove]
    ) -> None:
        """Of events on moved items: what the last move before each says; before the first one, what was."""
        at = np.array([move.offset for move in moves], dtype=np.int64)
        words = np.array([self._word_of(move.holds) for move in moves], dtype=np.uint64)
        order = np.lexsort((at, wids))
        low = int(min(at.min(), offsets.min()))
        span = np.int64(int(max(at.max(), offsets.max())) - low + 1)
        keys = wids[order] * span + (at[order] - low)
        place = np.searchsorted(keys, items * span + (offsets - low), side="right") - 1
        found = (place >= 0) & (wids[order][place] == items)
        satisfied[found] = words[order][place[found]]
