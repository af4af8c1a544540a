"""Dense u32 ordinals that a partition deals to strings: state like any other, never dealt again.

Bitmaps and blocks hold ordinals, so that they are small; the dictionary turns them back. It belongs to the
partition's rows and not to a view: views that share a table share its dictionary, and whichever is
checkpointed first writes what is new.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from materializers.interner import Interner
from materializers.materializer import RowReader, RowWriter
from materializers.rows.ordinals import (
    decode_ordinal,
    decode_ordinal_key,
    encode_new_ordinals,
    encode_ordinals,
    ordinal_keys,
)

U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_GROWTH_MIN = 1024
_UNDEALT = -1
_SECTION_STRINGS_MAX = 1 << 20


class Ordinals:
    """The dictionary of one table of one partition: string ↔ ordinal, by way of the worker's wids.

    Memory: 4 bytes for each wid of the worker and 4 for each ordinal.
    """

    _ordinal_of: npt.NDArray[np.int32]
    _wid_of: U32
    _size: int
    _written: int
    _restored: int

    def __init__(self, table: str, strings: Interner) -> None:
        self._table = table
        self._strings = strings
        self._clear()

    def __len__(self) -> int:
        return self._size

    def of(self, wids: U32) -> U32:
        """Ordinals of ``wids`` u32[n]; new ones are dealt in order of first appearance."""
        self._reserve()
        ordinals = self._ordinal_of[wids]
        missing = ordinals == _UNDEALT
        if missing.any():
            self._deal(wids[missing])
            ordinals = self._ordinal_of[wids]
        dealt: U32 = ordinals.astype(np.uint32)
        return dealt

    def wids(self, ordinals: npt.NDArray[np.integer]) -> U32:
        """The wids of dealt ordinals, u32[n]."""
        wids: U32 = self._wid_of[ordinals]
        return wids

    def entity_ids(self, ordinals: npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
        """The EntityIds of dealt ordinals, u64[n]."""
        ids: npt.NDArray[np.uint64] = self._strings.entity_ids[self._wid_of[ordinals]]
        return ids

    def dealt_since_restore(self, ordinals: npt.NDArray[np.integer]) -> Flags:
        """Which ordinals are new in this life of the partition: no row on disk can mention them."""
        fresh: Flags = ordinals >= self._restored
        return fresh

    def checkpoint(self, writer: RowWriter) -> None:
        """Write and feed what was dealt since the last call."""
        first = self._written
        while first < self._size:
            end = min(self._size, first + _SECTION_STRINGS_MAX)
            fresh = self._strings.strings(self._wid_of[first:end])
            writer.put_many(self._table, ordinal_keys(first, len(fresh)), encode_ordinals(fresh))
            writer.feed(self._table, encode_new_ordinals(first, fresh))
            first = end
        self._written = self._size

    def restore(self, reader: RowReader) -> None:
        """Load the whole dictionary, replacing what is in memory."""
        self._clear()
        strings: list[str] = []
        for key, value in reader.scan(self._table):
            assert decode_ordinal_key(key) == len(strings), "ordinals are dense"
            strings.append(decode_ordinal(value))
        if strings:
            wids = self._strings.ids(strings)
            self._reserve()
            self._append(wids)
        self._written = self._restored = self._size

    def _clear(self) -> None:
        self._ordinal_of = np.full(_GROWTH_MIN, _UNDEALT, dtype=np.int32)
        self._wid_of = np.zeros(_GROWTH_MIN, dtype=np.uint32)
        self._size = self._written = self._restored = 0

    def _reserve(self) -> None:
        known = len(self._ordinal_of)
        if len(self._strings) > known:
            longer = np.full(1 << len(self._strings).bit_length(), _UNDEALT, dtype=np.int32)
            longer[:known] = self._ordinal_of
            self._ordinal_of = longer

    def _deal(self, wids: U32) -> None:
        distinct, first = np.unique(wids, return_index=True)
        self._append(distinct[np.argsort(first)])

    def _append(self, wids: U32) -> None:
        end = self._size + len(wids)
        if end > len(self._wid_of):
            longer = np.zeros(1 << end.bit_length(), dtype=np.uint32)
            longer[: self._size] = self._wid_of[: self._size]
            self._wid_of = longer
        self._wid_of[self._size : end] = wids
        self._ordinal_of[wids] = np.arange(self._size, end, dtype=np.int32)
        self._size = end


_of_rows: WeakKeyDictionary[RowReader, dict[str, Ordinals]] = WeakKeyDictionary()


def shared_ordinals(table: str, rows: RowReader, strings: Interner) -> Ordinals:
    """The one dictionary of ``table`` over these rows: the same object for every view that asks.

    It lives as long as ``rows``, the reader that a partition's views share.
    """
    tables = _of_rows.setdefault(rows, {})
    ordinals = tables.get(table)
    if ordinals is None:
        ordinals = tables[table] = Ordinals(table, strings)
    return ordinals
