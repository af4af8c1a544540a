"""Global all-time counts, sums and decayed scores by signal and item, as the item shard last wrote them.

Most of a registry's signals are rare: their cells lie on a few items. Columns are therefore kept by pages of
256 items, and a page exists once one of its items has a cell. A signal that has cells on half of the pages
gets all of them, in order, and its columns are then read without copying.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from materializers.decay import NEVER_MS
from queryd.hot.arrays import F64, I32, I64, U32, grown, lengthened

PAGE_ITEMS = 256
_PAGE_BITS = 8
_EMPTY = 0  # the number of the page that items without cells share
_Column = TypeVar("_Column", bound=npt.NDArray[Any])


class DecayedColumns:
    """Cells of one signal: count i64, sum i64 (micro-units), ref_ms i64 and acc f64[items, half-lives]."""

    def __init__(self, half_lives_ms: tuple[int, ...]) -> None:
        self.half_lives_ms = half_lives_ms
        self._number: I32 = np.zeros(0, dtype=np.int32)  # of each page of items: where its rows are
        self._pages = 1
        self._in_order = False
        self._count: I64 = np.zeros(PAGE_ITEMS, dtype=np.int64)
        self._sum: I64 = np.zeros(PAGE_ITEMS, dtype=np.int64)
        self._ref_ms: I64 = np.full(PAGE_ITEMS, NEVER_MS, dtype=np.int64)
        self._acc: F64 = np.zeros((PAGE_ITEMS, len(half_lives_ms)), dtype=np.float64)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        columns = (self._number, self._count, self._sum, self._ref_ms, self._acc)
        return sum(int(column.nbytes) for column in columns)

    def set(self, items: U32, count: I64, sum_: I64, ref_ms: I64, acc: F64) -> None:
        """Replace the cells of distinct items; ``acc`` f64[n, k]."""
        if not len(items):
            return
        self._allocate(items)
        rows = self._rows(items)
        self._count[rows] = count
        self._sum[rows] = sum_
        self._ref_ms[rows] = ref_ms
        self._acc[rows] = acc[:, : len(self.half_lives_ms)]

    def counts(self, items: int) -> I64:
        """All-time counts i64[items]."""
        return self._whole(self._count, items)

    def sums(self, items: int) -> I64:
        """All-time sums i64[items] in micro-units."""
        return self._whole(self._sum, items)

    def scores(self, items: U32, half_life_ms: int, at_ms: int) -> F64:
        """Decayed scores f64[n] of items at ``at_ms``: acc · 2^(−(at − ref)/half-life), 0 without an event.

        Raises:
            ValueError: the signal is not decayed with that half-life.
        """
        column = self.half_lives_ms.index(half_life_ms)
        scores = np.zeros(len(items), dtype=np.float64)
        rows = self._rows(items)
        known = np.flatnonzero(self._ref_ms[rows] != NEVER_MS)
        rows = rows[known]
        elapsed = at_ms - self._ref_ms[rows]
        scores[known] = self._acc[rows, column] * np.exp2(-elapsed / half_life_ms)
        return scores

    def newest(self, items: U32) -> I64:
        """Timestamp of the newest event of each item, i64[n]; the least there is where it has none."""
        return self._ref_ms[self._rows(items)]

    def drop(self, items: U32) -> None:
        """Forget cells: their partition is about to be read anew."""
        rows = self._rows(items)
        rows = rows[rows >= PAGE_ITEMS]
        self._count[rows] = 0
        self._sum[rows] = 0
        self._ref_ms[rows] = NEVER_MS
        self._acc[rows] = 0.0

    def _rows(self, items: U32) -> I64:
        """Where the columns have each item, i64[n]; rows of the empty page for those without."""
        page = (items >> _PAGE_BITS).astype(np.int64)
        number = np.full(len(items), _EMPTY, dtype=np.int64)
        known = page < len(self._number)
        number[known] = self._number[page[known]]
        rows: I64 = number * PAGE_ITEMS + (items & (PAGE_ITEMS - 1))
        return rows

    def _allocate(self, items: U32) -> None:
        """Have a page for each of ``items``."""
        wanted = np.unique(items >> _PAGE_BITS).astype(np.int64)
        end = int(wanted[-1]) + 1
        self._number = lengthened(self._number, end)
        if self._in_order:
            wanted = np.arange(len(self._number))
        missing = wanted[self._number[wanted] == _EMPTY]
        if len(missing):
            self._number[missing] = np.arange(self._pages, self._pages + len(missing))
            self._pages += len(missing)
            self._grow()
        if not self._in_order and 2 * (self._pages - 1) >= len(self._number):
            self._put_in_order()

    def _grow(self) -> None:
        rows = self._pages * PAGE_ITEMS
        self._count = grown(self._count, rows)
        self._sum = grown(self._sum, rows)
        self._ref_ms = grown(self._ref_ms, rows, NEVER_MS)
        self._acc = grown(self._acc, rows)

    def _put_in_order(self) -> None:
        """All pages, one after another."""
        order = np.append(_EMPTY, self._number)
        self._count, self._sum = _by_pages(self._count, order), _by_pages(self._sum, order)
        self._ref_ms, self._acc = _by_pages(self._ref_ms, order), _by_pages(self._acc, order)
        self._number = np.arange(1, len(order), dtype=np.int32)
        self._pages = len(order)
        self._in_order = True

    def _whole(self, column: I64, items: int) -> I64:
        """``column`` by item, [items]."""
        if self._in_order:
            return lengthened(column[PAGE_ITEMS : self._pages * PAGE_ITEMS], items)[:items]
        return lengthened(_by_pages(column, self._number), items)[:items]


def _by_pages(column: _Column, numbers: npt.NDArray[np.integer]) -> _Column:
    """The rows of these pages, one page after another."""
    shape = column.shape[1:]
    held = len(column) // PAGE_ITEMS
    pages = column[: held * PAGE_ITEMS].reshape(held, PAGE_ITEMS, *shape)
    return cast(_Column, pages[numbers].reshape(len(numbers) * PAGE_ITEMS, *shape))
