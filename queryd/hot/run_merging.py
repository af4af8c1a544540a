"""How runs are made: cells are sealed into one; several are merged in slices, and queries run in between."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from queryd.hot.arrays import F64, I64, U32, U64
from queryd.hot.cells import Cells
from queryd.hot.profile_index import ProfileIndex
from queryd.hot.runs import (
    HOUR_BITS,
    SPAN_HOURS,
    Counts,
    RareCounts,
    Run,
    Sums,
    narrowed,
    narrowed_counts,
    taken,
)
from schemas.weights import WEIGHT_SCALE

_PROFILE_SHIFT: Final = np.uint64(32)
_PLACE_MASK: Final = np.uint64(0xFFFFFFFF)
_SAMPLE_EVERY: Final = 1024
_SPARE_SHARE: Final = 1.1  # of a column's room, what may stay unused
_NO_ROWS: Final[I64] = np.zeros(0, dtype=np.int64)


def sealed(cells: Cells) -> Run:
    """A run of cells in any order; (profile, item) pairs may repeat."""
    keys = cells.item.astype(np.uint64)
    if cells.profile is not None:
        keys |= cells.profile.astype(np.uint64) << _PROFILE_SHIFT
    count = None if bool((cells.count == 1).all()) else cells.count
    unit = bool((cells.sum == cells.count * np.int64(WEIGHT_SCALE)).all())
    folded = _folded(_Part(keys, count, None if unit else cells.sum, cells.moment))
    part = _stretch(folded)
    index = None if cells.profile is None else _index_of([part])
    place: U32 = (folded.key & _PLACE_MASK).astype(np.uint32)
    return Run(place, index, *_narrowed_columns([part], index))


def merged(runs: Sequence[Run]) -> Run:
    """One run of all cells, at once."""
    return completed(merging(runs, sum(map(len, runs)) + 1))


def completed(steps: Generator[None, None, Run]) -> Run:
    """What ``merging`` makes, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            run: Run = end.value
            return run


def merging(
    runs: Sequence[Run], slice_cells: int, hours: Sequence[int] | None = None
) -> Generator[None, None, Run]:
    """Merge runs in slices of about ``slice_cells`` cells; yields after each slice, returns the merged run.

    Args:
        hours: makes a span of runs and spans: the hour of each, of a span its first. All of one span.
    """
    first_hour = None if hours is None else hours[0] // SPAN_HOURS * SPAN_HOURS
    offsets = [0] * len(runs) if first_hour is None else [hour - first_hour for hour in hours or ()]
    parts: list[_Stretch] = []
    places: U32 = np.empty(
        sum(map(len, runs)), dtype=np.uint32
    )  # filled on the way: no large copy at the end
    lows, filled = [0] * len(runs), 0
    cuts = _cuts(runs, slice_cells)
    yield
    for cut in (*cuts, None):
        highs = [len(run) if cut is None else run.row_of(*cut) for run in runs]
        pieces = [
            _piece(run, low, high, None if first_hour is None else offset)
            for run, low, high, offset in zip(runs, lows, highs, offsets, strict=True)
            if low < high
        ]
        lows = highs
        if pieces:
            folded = _folded(_joined(pieces))
            parts.append(_stretch(folded))
            places[filled : filled + len(folded)] = folded.key & _PLACE_MASK
            filled += len(folded)
        yield
    place = places[:filled] if filled * _SPARE_SHARE >= len(places) else places[:filled].copy()
    yield
    index = _index_of(parts) if runs[0].index is not None else None
    yield
    return Run(place, index, *_narrowed_columns(parts, index), first_hour)


@dataclass(frozen=True, slots=True)
class _Part:
    """Cells on the way into a run: ``key`` u64 = profile << 32 | place; count and sum as in ``Run``."""

    key: U64
    count: U32 | None
    sum: I64 | None
    moment: F64 | None

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Sorted cells of a run to be, besides their places: profiles u32[m] and where each begins, i64[m]."""

    length: int
    profiles: U32
    begins: I64
    count: U32 | None
    sum: I64 | None
    moment: F64 | None

    def __len__(self) -> int:
        return self.length


def _cuts(runs: Sequence[Run], slice_cells: int) -> list[tuple[int, int]]:
    """(profile, item) pairs between which lie about ``slice_cells`` cells of all runs together."""
    total = sum(map(len, runs))
    if total <= slice_cells:
        return []
    every = max(1, min(_SAMPLE_EVERY, slice_cells // 8))
    samples = []
    for run in runs:
        rows = np.arange(every // 2, len(run), every)
        keys = run.items(rows).astype(np.uint64)
        if run.index is not None:
            keys |= run.index.at(rows).astype(np.uint64) << _PROFILE_SHIFT
        samples.append(keys)
    keys = np.sort(np.concatenate(samples))
    chosen = np.unique(keys[:: max(1, slice_cells // every)][1:]).tolist()
    return [(key >> 32, key & 0xFFFFFFFF) for key in chosen]


def _piece(run: Run, low: int, high: int, hour: int | None) -> _Part:
    """Rows ``low`` to before ``high``; ``hour``: of the span that they go into, for a run without hours."""
    place = run.place[low:high]
    if hour is not None and run.first_hour is None:
        place = place << np.uint32(HOUR_BITS) | np.uint32(hour)
    key = place.astype(np.uint64)
    if run.index is not None:
        key |= run.index.column(low, high).astype(np.uint64) << _PROFILE_SHIFT
    rows = slice(low, high)
    return _Part(
        key,
        run.counts_between(low, high),
        None if run.sum is None else run.sum[rows].astype(np.int64),
        None if run.moment is None else run.moment[rows],
    )


def _joined(parts: Sequence[_Part]) -> _Part:
    """The parts one after another; what is left out in some is written out where others have it."""
    return _Part(np.concatenate([part.key for part in parts]), *_columns(parts))


def _columns(parts: Sequence[_Part | _Stretch]) -> tuple[U32 | None, I64 | None, F64 | None]:
    count = total = moment = None
    if any(part.count is not None for part in parts):
        count = np.concatenate([_counts_of(part) for part in parts])
    if any(part.sum is not None for part in parts):
        total = np.concatenate([_sums_of(part) for part in parts])
    if any(part.moment is not None for part in parts):
        moment = np.concatenate(
            [np.zeros(len(part)) if part.moment is None else part.moment for part in parts]
        )
    return count, total, moment


def _counts_of(part: _Part | _Stretch) -> U32:
    return np.ones(len(part), dtype=np.uint32) if part.count is None else part.count


def _sums_of(part: _Part | _Stretch) -> I64:
    return _unit_sums(part.count, len(part)) if part.sum is None else part.sum


def _folded(part: _Part) -> _Part:
    """Sorted by key, equal keys added up."""
    # Stable sorts look for ascending stretches, of which merged runs consist.
    order = np.argsort(part.key, kind="stable")
    key = part.key[order]
    count, total, moment = taken(part.count, order), taken(part.sum, order), taken(part.moment, order)
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else order
    if len(starts) == len(key):
        return _Part(key, count, total, moment)
    if count is None:
        counts = np.diff(np.append(starts, len(key))).astype(np.uint32)
    else:
        counts = np.add.reduceat(count, starts, dtype=np.uint32)
    return _Part(
        key[starts],
        counts,
        None if total is None else np.add.reduceat(total, starts),
        None if moment is None else np.add.reduceat(moment, starts),
    )


def _stretch(part: _Part) -> _Stretch:
    """What stays of a folded part: a third of its bytes, and no work is left for the end of a merge."""
    profile = (part.key >> _PROFILE_SHIFT).astype(np.uint32)
    begins = (
        np.flatnonzero(np.concatenate([[True], profile[1:] != profile[:-1]])) if len(profile) else _NO_ROWS
    )
    total = part.sum
    if total is not None and (total == _unit_sums(part.count, len(total))).all():
        total = None
    return _Stretch(len(part), profile[begins], begins, part.count, total, part.moment)


def _index_of(parts: Sequence[_Stretch]) -> ProfileIndex:
    before = np.cumsum([0, *(len(part) for part in parts)])
    starts = [part.begins + begin for part, begin in zip(parts, before.tolist(), strict=False)]
    edges = np.append(np.concatenate(starts), before[-1]).astype(np.uint32)
    return ProfileIndex.of(np.concatenate([part.profiles for part in parts]), edges)


def _narrowed_columns(
    parts: Sequence[_Stretch], index: ProfileIndex | None
) -> tuple[Counts | RareCounts | None, Sums | None, F64 | None]:
    count, total, moment = _columns(parts)
    return (
        None if count is None else narrowed_counts(count, index),
        None if total is None else narrowed(total),
        moment if moment is not None and moment.any() else None,
    )


def _unit_sums(count: U32 | None, length: int) -> I64:
    counts = np.ones(length, dtype=np.int64) if count is None else count.astype(np.int64)
    return counts * WEIGHT_SCALE
