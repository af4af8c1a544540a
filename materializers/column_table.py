"""A table's active rows as columns of arrays, with RocksDB behind them.

Rows are addressed by a non-negative int64 key and live in slots. A batch asks for the slots of its
distinct keys: known ones come from the index, the rest are read with one ``get_many``. Above a bound,
rows that were written and have not been used for longest make room; they are read again when needed, so
nothing is lost. A dirty row is never evicted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from materializers.grouping import order_of
from materializers.int_index import IntIndex
from materializers.materializer import RowReader, RowWriter
from materializers.rows.fixed import Column, FixedRow

I64 = npt.NDArray[np.int64]
Unsigned = npt.NDArray[np.unsignedinteger]
Flags = npt.NDArray[np.bool_]
KeysToBytes = Callable[[I64], list[bytes]]

_CAPACITY_MIN = 1024
_KEPT_SHARE = 0.75  # after an eviction a quarter of the bound is free, so that one is rare
_NO_KEY = -1
_FEW_ROWS = 64  # up to so many it is quicker to sort the keys themselves than to rank what they consist of
# Beyond an eighth of the rows it is no dearer to look through all flags (0.1 ms a million) than to remember.
_TOUCHED_SHIFT = 3


class ColumnTable:
    """Rows of one table of one partition.

    Args:
        table: the table's name. row: its layout. rows: what is on disk.
        key_of: table keys of int keys. tail_of: what follows the fixed part of each row, if anything.
        order_of: what the table keys consist of, as unsigned columns [n]. Rows are flushed in that order: a
            database takes them six times as fast as in any other.
        surely_new: bool[n], which keys cannot have a row on disk because they were dealt after the
            partition was acquired; spares them the read.
        defaults: value of a field in a new row; 0 when absent.
        slots_max: rows held in memory. One batch, and rows not yet flushed, may exceed it.
    """

    _touched: list[I64] | None
    _touched_count: int

    def __init__(
        self,
        table: str,
        row: FixedRow,
        rows: RowReader,
        key_of: KeysToBytes,
        *,
        order_of: Callable[[I64], Sequence[Unsigned]] | None = None,
        tail_of: KeysToBytes | None = None,
        surely_new: Callable[[I64], Flags] | None = None,
        defaults: dict[str, int | float] | None = None,
        slots_max: int = 1 << 20,
    ) -> None:
        self._table = table
        self._row = row
        self._rows = rows
        self._key_of = key_of
        self._order_of = order_of
        self._tail_of = tail_of
        self._surely_new = surely_new
        self._defaults = defaults or {}
        self._slots_max = slots_max
        self._clear()

    def __len__(self) -> int:
        """Rows in memory."""
        return len(self._index)

    def __getitem__(self, field: str) -> npt.NDArray[Any]:
        """The column of ``field`` by slot; write through it after ``touch``."""
        return self._columns[field]

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        arrays = [*self._columns.values(), self._keys, self._last_used, self._dirty]
        return sum(int(array.nbytes) for array in arrays) + self._index.nbytes

    @property
    def bytes_for_each_row(self) -> int:
        """Memory of one active row, without the index's 24 to 48 bytes."""
        return self._row.width - 1 + self._keys.itemsize + self._last_used.itemsize + self._dirty.itemsize

    def restore(self, rows: RowReader) -> None:
        """Forget what is in memory; rows are read when they are asked for.

        A table without rows, at the first start or while a view is rebuilt, is not read until something
        has been evicted: looking for absent rows costs more than folding.
        """
        self._rows = rows
        self._clear()
        self._nothing_stored = next(iter(rows.scan(self._table)), None) is None

    def slots(self, keys: I64) -> I64:
        """Slots of distinct keys, i64[n], loading or creating the rows that are not in memory.

        They hold until the next call, which may evict. Rows handed to a writer must be readable through
        the ``RowReader`` by then.
        """
        self._clock += 1
        slots = self._index.find(keys).astype(np.int64)
        known = slots[slots >= 0]
        self._last_used[known] = self._clock
        missing = np.flatnonzero(slots < 0)
        if len(missing):
            self._make_room(len(missing))
            slots[missing] = self._load(keys[missing])
        return slots

    def touch(self, slots: I64) -> None:
        """Mark rows as changed since the last flush."""
        self._dirty[slots] = True
        if self._touched is not None:
            self._touched_count += len(slots)
            self._touched.append(slots)
            if self._touched_count > len(self._dirty) >> _TOUCHED_SHIFT:
                self._touched = None

    def dirty(self) -> I64:
        """Slots of the rows changed since the last flush."""
        if self._touched is None:
            return np.flatnonzero(self._dirty)
        if not self._touched:
            return np.empty(0, dtype=np.int64)
        slots = np.unique(np.concatenate(self._touched))
        return slots[self._dirty[slots]]

    def keys(self, slots: I64) -> I64:
        """The int keys of ``slots``."""
        return self._keys[slots]

    def drop(self, unwanted: Callable[[I64], Flags]) -> None:
        """Forget the rows in memory whose int keys i64[n] are ``unwanted`` bool[n], changed or not."""
        live = np.flatnonzero(self._keys != _NO_KEY)
        gone = live[unwanted(self._keys[live])]
        if len(gone):
            self._dirty[gone] = False
            self._vacate(gone)

    def flush(self, writer: RowWriter) -> None:
        """Hand the changed rows to ``writer`` and count them as clean."""
        slots = self.dirty()
        self._touched, self._touched_count = [], 0
        if not len(slots):
            return
        slots, names = self._in_order(slots)
        keys = self._keys[slots]
        tails = self._tail_of(keys) if self._tail_of else None
        columns = {name: column[slots] for name, column in self._columns.items()}
        writer.put_many(self._table, names, self._row.encode(columns, tails))
        self._dirty[slots] = False

    def _in_order(self, slots: I64) -> tuple[I64, list[bytes]]:
        """The slots as their rows stand in the table, and the keys of these."""
        if self._order_of is not None and len(slots) > _FEW_ROWS:
            slots = slots[order_of(self._order_of(self._keys[slots]))]
        names = self._key_of(self._keys[slots])
        if self._order_of is None or len(slots) > _FEW_ROWS:
            return slots, names
        order = sorted(range(len(names)), key=names.__getitem__)
        return slots[order], [names[place] for place in order]

    def _clear(self) -> None:
        self._touched, self._touched_count = [], 0
        self.evicted_count = 0
        self._nothing_stored = False
        self._index = IntIndex()
        self._columns = {field[0]: self._column(field[0], _CAPACITY_MIN) for field in self._row.fields}
        self._keys: I64 = np.full(_CAPACITY_MIN, _NO_KEY, dtype=np.int64)
        self._last_used = np.zeros(_CAPACITY_MIN, dtype=np.uint32)
        self._dirty: Flags = np.zeros(_CAPACITY_MIN, dtype=bool)
        self._free: I64 = np.arange(_CAPACITY_MIN, dtype=np.int64)[::-1].copy()
        self._clock = 0

    def _load(self, keys: I64) -> I64:
        slots = self._allocate(len(keys))
        self._keys[slots] = keys
        self._last_used[slots] = self._clock
        for name, column in self._columns.items():
            column[slots] = self._defaults.get(name, 0)
        self._index.insert(keys, slots)
        stored = self._maybe_stored(keys)
        if len(stored):
            self._fill(slots[stored], self._rows.get_many(self._table, self._key_of(keys[stored])))
        return slots

    def _maybe_stored(self, keys: I64) -> I64:
        if self._nothing_stored and not self.evicted_count:
            return np.empty(0, dtype=np.int64)
        if self._surely_new is None or self.evicted_count:
            return np.arange(len(keys))
        return np.flatnonzero(~self._surely_new(keys))

    def _fill(self, slots: I64, values: list[bytes | None]) -> None:
        found = [value for value in values if value is not None]
        if not found:
            return
        present = slots[[value is not None for value in values]]
        stored = self._row.decode(found)
        for name, column in self._columns.items():
            column[present] = stored[name]

    def _allocate(self, n: int) -> I64:
        while len(self._free) < n:
            self._grow()
        cut = len(self._free) - n
        slots, self._free = self._free[cut:][::-1], self._free[:cut]
        return slots

    def _grow(self) -> None:
        old = len(self._keys)
        for name, column in self._columns.items():
            self._columns[name] = np.concatenate([column, self._column(name, old)])
        self._keys = np.concatenate([self._keys, np.full(old, _NO_KEY, dtype=np.int64)])
        self._last_used = np.concatenate([self._last_used, np.zeros_like(self._last_used)])
        self._dirty = np.concatenate([self._dirty, np.zeros_like(self._dirty)])
        self._free = np.concatenate([np.arange(old, 2 * old, dtype=np.int64)[::-1], self._free])

    def _column(self, name: str, length: int) -> Column:
        dtype = self._row.dtype[name]
        return np.zeros((length, *dtype.shape), dtype=dtype.base)

    def _make_room(self, arriving: int) -> None:
        """Evict clean rows, longest unused first, when the arriving ones would exceed the bound."""
        excess = len(self) + arriving - self._slots_max
        if excess <= 0:
            return
        clean = np.flatnonzero((self._keys != _NO_KEY) & ~self._dirty & (self._last_used < self._clock))
        count = min(len(clean), max(excess, len(self) - int(self._slots_max * _KEPT_SHARE)))
        if count == 0:
            return
        oldest = clean[np.argpartition(self._last_used[clean], count - 1)[:count]]
        self.evicted_count += count
        self._vacate(oldest)

    def _vacate(self, slots: I64) -> None:
        self._keys[slots] = _NO_KEY
        self._free = np.concatenate([self._free, slots])
        live = np.flatnonzero(self._keys != _NO_KEY)
        self._index.rebuild(self._keys[live], live)
