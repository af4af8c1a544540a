"""Group a batch's rows by integer key once, then reduce each column exactly: the core of every fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]
Scalar = TypeVar("Scalar", bound=np.generic)

_KEY_BITS_MAX = 63


class Groups:
    """Rows of a batch sorted by key.

    ``keys`` i64[m] holds the distinct keys in ascending order, ``counts`` i64[m] the rows of each. Reductions
    take columns of the batch's n rows and return one value for each key. Sums run over integers with int64,
    never through float64 (``np.bincount`` would round above 2^53).
    """

    __slots__ = ("_order", "_starts", "counts", "keys")

    def __init__(self, keys: I64) -> None:
        # Methods, not numpy's functions of these names, which wrap them: few rows are all calls.
        self._order = keys.argsort()
        ordered = keys[self._order]
        fresh = np.empty(len(keys), dtype=bool)
        fresh[:1] = True
        np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
        self._starts = fresh.nonzero()[0]
        self.keys = ordered[self._starts]
        # np.diff does the same and takes five times as long for a handful of rows.
        self.counts: I64 = np.empty(len(self.keys), dtype=np.int64)
        np.subtract(self._starts[1:], self._starts[:-1], out=self.counts[:-1])
        self.counts[-1:] = len(keys) - self._starts[-1:]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def order(self) -> I64:
        """The rows ordered by key, i64[n]; rows of one key in no particular order."""
        return self._order

    def representative(self, column: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """A value of each key's rows, for columns that the key determines."""
        return column[self._order[self._starts]]

    def sum(self, column: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Sums along the first axis, in the column's own dtype."""
        if not len(self.keys):
            return column[:0]
        total: npt.NDArray[Scalar] = np.add.reduceat(column[self._order], self._starts, axis=0)
        return total

    def max(self, column: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        if not len(self.keys):
            return column[:0]
        largest: npt.NDArray[Scalar] = np.maximum.reduceat(column[self._order], self._starts)
        return largest

    def group_of_rows(self) -> I64:
        """For each of the n rows the position of its key in ``keys``, i64[n]."""
        groups = np.empty(len(self._order), dtype=np.int64)
        groups[self._order] = np.arange(len(self.keys)).repeat(self.counts)
        return groups

    def ranks(self) -> I64:
        """For each row how many rows of its key come before it in the batch, i64[n]."""
        order = self._order_by_position()
        ranks = np.empty(len(order), dtype=np.int64)
        ranks[order] = np.arange(len(order)) - self._starts.repeat(self.counts)
        return ranks

    def _order_by_position(self) -> npt.NDArray[np.intp]:
        """The sort is not stable (a stable one costs five times as much); inside a key restore log order."""
        n = len(self._order)
        composite = np.arange(len(self.keys)).repeat(self.counts) * n + self._order
        composite.sort()
        return composite % max(n, 1)


def distinct(column: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """The different values, ascending. ``np.unique`` hashes: a sort is ten to a hundred times as fast."""
    ordered = column.copy()
    ordered.sort()
    fresh = np.empty(len(ordered), dtype=bool)
    fresh[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    return ordered[fresh]


def composite_key(columns: Sequence[Ints]) -> I64:
    """One non-negative int64 for each row that sorts as the tuple of its columns does.

    Args:
        columns: non-negative integers, each [n], most significant first.
    """
    key = columns[0].astype(np.int64)
    bits = _bits(key)
    for column in columns[1:]:
        more = _bits(column)
        if bits + more > _KEY_BITS_MAX:
            key = np.unique(key, return_inverse=True)[1]
            bits = _bits(key)
        key = (key << more) | column.astype(np.int64)
        bits += more
    return key


def _bits(column: Ints) -> int:
    return int(column.max()).bit_length() if len(column) else 0


def order_of(columns: Sequence[npt.NDArray[np.unsignedinteger | np.signedinteger]]) -> I64:
    """The order of rows by columns [n], the most significant first, i64[n]: a sort of one integer each.

    ``np.lexsort`` does the same and takes five times as long.
    """
    if len(columns) == 1:
        return columns[0].argsort()
    return composite_key([ranks_of(column) for column in columns]).argsort()


def ranks_of(column: npt.NDArray[np.unsignedinteger | np.signedinteger]) -> I64:
    """For each value how many smaller different ones there are, i64[n]."""
    order = column.argsort()
    ordered = column[order]
    fresh = np.zeros(len(ordered), dtype=np.int64)
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:], casting="unsafe")
    ranks = np.empty(len(ordered), dtype=np.int64)
    ranks[order] = fresh.cumsum()
    return ranks
