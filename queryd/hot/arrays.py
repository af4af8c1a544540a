"""Array types of the hot columns, and how a column grows."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.integer[Any]]
"""Counts as narrow as they are kept: to compare and to take from, since arithmetic may overflow."""

_CAPACITY_MIN = 1024
_Column = TypeVar("_Column", bound=npt.NDArray[Any])


def grown(column: _Column, rows: int, fill: Any = 0) -> _Column:
    """``column`` with room for at least ``rows`` rows, new ones ``fill``; the same array when there is room.

    Growth is by half, so that appending n rows copies O(n) in all and wastes a third at most.
    """
    capacity = len(column)
    if rows <= capacity:
        return column
    capacity = max(rows, capacity + capacity // 2, _CAPACITY_MIN)
    larger = np.empty((capacity, *column.shape[1:]), dtype=column.dtype)
    larger[: len(column)] = column
    larger[len(column) :] = fill
    return larger  # type: ignore[return-value]


def lengthened(column: _Column, rows: int) -> _Column:
    """``column`` zero-padded to exactly ``rows`` rows (never shorter than it is)."""
    if rows <= len(column):
        return column
    longer = np.zeros(rows, dtype=column.dtype)
    longer[: len(column)] = column
    return longer  # type: ignore[return-value]


def edges(mask: Mask) -> I64:
    """Where each stretch of true values begins and where it ends, alternately, i64[2n]."""
    padded = np.zeros(len(mask) + 2, dtype=np.bool_)
    padded[1:-1] = mask
    return np.flatnonzero(padded[1:] != padded[:-1])
