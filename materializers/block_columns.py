"""Arithmetic on bucket blocks as columns: join, cut, and reduce to one row for each cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from materializers.grouping import Groups, composite_key, distinct
from materializers.rows.blocks import BlockColumns, BlockDeltas

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
F64 = npt.NDArray[np.float64]

_BUCKET_BITS = 32


def reduced(parts: Sequence[BlockDeltas]) -> BlockDeltas:
    """One row for each bucket and cell, sorted by resolution, bucket, item, signal, profile."""
    cells = joined([part.cells for part in parts])
    resolution = np.concatenate([part.resolution for part in parts])
    bucket = np.concatenate([part.bucket for part in parts])
    groups = Groups(composite_key([resolution, _offset(bucket), *_cell_columns(cells)]))
    return BlockDeltas(
        groups.representative(resolution), groups.representative(bucket), _summed(groups, cells)
    )


def reduced_cells(parts: Sequence[BlockColumns]) -> BlockColumns:
    """One row for each cell of one bucket, sorted by item, signal, profile."""
    cells = joined(parts)
    return _summed(Groups(composite_key(_cell_columns(cells))), cells)


def joined(parts: Sequence[BlockColumns]) -> BlockColumns:
    """The rows of ``parts`` (at least one) one after another."""
    if len(parts) == 1:
        return parts[0]
    profiles = [part.profile for part in parts if part.profile is not None]
    return BlockColumns(
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.signal for part in parts]),
        np.concatenate(profiles) if profiles else None,
        np.concatenate([part.count for part in parts]),
        np.concatenate([part.sum for part in parts]),
        _joined_moments(parts),
    )


def rows_of(columns: BlockColumns, start: int, end: int) -> BlockColumns:
    """The rows ``start`` to ``end``, as copies: a slice would keep the whole flush in memory."""
    profile, moment = columns.profile, columns.moment
    return BlockColumns(
        columns.item[start:end].copy(),
        columns.signal[start:end].copy(),
        None if profile is None else profile[start:end].copy(),
        columns.count[start:end].copy(),
        columns.sum[start:end].copy(),
        None if moment is None else moment[start:end].copy(),
    )


def bucket_edges(deltas: BlockDeltas) -> list[int]:
    """Where each run of one bucket begins in sorted ``deltas``, and their length at the end."""
    if not len(deltas):
        return [0]
    bucket = (deltas.resolution.astype(np.int64) << _BUCKET_BITS) | deltas.bucket
    return [0, *(np.flatnonzero(np.diff(bucket)) + 1).tolist(), len(deltas)]


def _joined_moments(parts: Sequence[BlockColumns]) -> F64 | None:
    if all(part.moment is None for part in parts):
        return None
    return np.concatenate(
        [np.zeros(len(part), dtype=np.float64) if part.moment is None else part.moment for part in parts]
    )


def _summed(groups: Groups, cells: BlockColumns) -> BlockColumns:
    profile, moment = cells.profile, cells.moment
    return BlockColumns(
        groups.representative(cells.item),
        groups.representative(cells.signal),
        None if profile is None else groups.representative(profile),
        groups.sum(cells.count),
        groups.sum(cells.sum),
        None if moment is None else groups.sum(moment),
    )


def _cell_columns(cells: BlockColumns) -> list[npt.NDArray[np.integer]]:
    signal = np.searchsorted(distinct(cells.signal), cells.signal)
    columns: list[npt.NDArray[np.integer]] = [cells.item, signal]
    return columns if cells.profile is None else [*columns, cells.profile]


def _offset(bucket: U32) -> U32:
    """Buckets of one flush lie close together: fewer bits, so that all columns fit one integer."""
    offset: U32 = bucket - bucket.min()
    return offset
