"""A partition's block columns as cells of queryd: its own ordinals, dense signal indexes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from materializers.rows.blocks import BlockColumns
from queryd.hot.arrays import I64
from queryd.hot.cells import Cells
from queryd.hot.columns import NOT_MAPPED, HotColumns, OrdinalMap

_UNKNOWN_SIGNAL = -1


def translated(hot: HotColumns, partition: int, block: BlockColumns) -> tuple[I64, I64, Cells]:
    """Positions in ``block``, signal indexes and cells, of the rows whose ids and signal are known."""
    items = hot.item_maps.get(partition, OrdinalMap()).translate(block.item)
    signals = _signal_indexes(hot, block)
    known = (items != NOT_MAPPED) & (signals != _UNKNOWN_SIGNAL)
    profiles = None
    if block.profile is not None:
        profiles = hot.profile_maps.get(partition, OrdinalMap()).translate(block.profile)
        known &= profiles != NOT_MAPPED
    cells = Cells(items, profiles, block.count.astype(np.uint32), block.sum, block.moment)
    if known.all():
        return np.arange(len(block)), signals, cells
    rows = np.flatnonzero(known)
    return rows, signals[rows], cells.take(rows)


def runs(values: I64) -> Iterator[tuple[int, I64]]:
    """Each distinct value and its positions i64[m], ascending: one sort, whatever their number."""
    if not len(values):
        return
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    edges = [0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(values)]
    for start, end in pairwise(edges):
        yield int(ordered[start]), order[start:end]


def by_signal(signals: I64, cells: Cells) -> Iterator[tuple[int, Cells]]:
    """The cells of each signal."""
    for signal, rows in runs(signals):
        yield signal, cells if len(rows) == len(cells) else cells.take(rows)


def _signal_indexes(hot: HotColumns, block: BlockColumns) -> I64:
    codes, place = np.unique(block.signal, return_inverse=True)
    known = [hot.signal_index(code) for code in codes.tolist()]
    indexes = np.array([_UNKNOWN_SIGNAL if index is None else index for index in known], dtype=np.int64)
    signals: I64 = indexes[place]
    return signals
