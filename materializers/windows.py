"""Counts over the last N buckets, kept as running sums by item for the reader.

A window is a whole number of buckets: 1h is 60 minutes, 24h and 7d are 24 and 168 hours, 30d is 30 days
(UTC). At time t it covers the bucket that holds t and the N − 1 before it, so its count is exact at the
bucket's resolution in whatever order events arrive. Deltas are added to the sum they belong to; when time
passes into the next bucket, the one that expires is subtracted. The window before the current one is kept
the same way, for acceleration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from materializers.grouping import Groups
from materializers.rows.blocks import Resolution
from schemas.errors import TidalError
from schemas.weights import WEIGHT_SCALE

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]

ALL_TIME: Final = "all_time"
_MINUTE_MS: Final = 60_000
_ITEM_BITS: Final = 32
_ITEM_MASK: Final = (1 << _ITEM_BITS) - 1
_CAPACITY_MIN: Final = 1024
_CHUNKS_MAX: Final = 16  # deltas of one bucket are merged when there are more: flushes are small and many
_NEVER: Final = -(1 << 40)


@dataclass(frozen=True, slots=True)
class Window:
    """A window's bucket size and number of buckets."""

    label: str
    resolution: Resolution
    buckets: int

    @property
    def duration_s(self) -> int:
        return self.resolution.minutes * 60 * self.buckets

    def current(self, at_ms: int) -> int:
        """Number of the bucket that holds ``at_ms``, counted from 1970."""
        return at_ms // (_MINUTE_MS * self.resolution.minutes)

    def range_minutes(self, at_ms: int) -> tuple[int, int]:
        """The window at ``at_ms`` as ``[first minute, end minute)`` since 1970."""
        end = self.current(at_ms) + 1
        return (end - self.buckets) * self.resolution.minutes, end * self.resolution.minutes


WINDOWS: Final = {
    window.label: window
    for window in (
        Window("1h", Resolution.MINUTE, 60),
        Window("24h", Resolution.HOUR, 24),
        Window("7d", Resolution.HOUR, 168),
        Window("30d", Resolution.DAY, 30),
    )
}


class UnknownWindowError(TidalError):
    """A window that is not kept for a signal."""

    def __init__(self, label: str, known: Sequence[str]) -> None:
        super().__init__(f"window {label!r} is not kept here, expected one of {', '.join(known)}; declare it")


def velocity(count: I64, window: Window) -> F64:
    """Events a second: ``count / duration``."""
    return count / window.duration_s


def acceleration(count: I64, previous: I64, window: Window) -> F64:
    """Velocity now minus velocity one window ago, events/s."""
    return (count - previous) / window.duration_s


def mean(total_micro: I64, count: I64) -> F64:
    """Mean weight: sum / count; 0 where nothing was counted."""
    return np.divide(
        total_micro / WEIGHT_SCALE, count, out=np.zeros(len(count), dtype=np.float64), where=count != 0
    )


@dataclass(slots=True, frozen=True)
class WindowDeltas:
    """n increments: ``resolution`` and ``bucket`` (start, minutes since 1970) as in a block, ``item`` the
    reader's ordinal, ``signal`` the dense index of the schema, ``count``, ``sum`` in micro-units."""

    resolution: Ints
    bucket: Ints
    item: Ints
    signal: Ints
    count: I64
    sum: I64

    def __len__(self) -> int:
        return len(self.bucket)


@dataclass(slots=True)
class _Chunk:
    """Distinct cells (signal << 32 | item) in ascending order with their increments."""

    cell: I64
    count: I64
    sum: I64

    @staticmethod
    def grouped(cell: I64, count: I64, total: I64) -> _Chunk:
        groups = Groups(cell)
        return _Chunk(groups.keys, groups.sum(count), groups.sum(total))

    @staticmethod
    def merged(chunks: Sequence[_Chunk]) -> _Chunk:
        if len(chunks) == 1:
            return chunks[0]
        return _Chunk.grouped(
            np.concatenate([chunk.cell for chunk in chunks]),
            np.concatenate([chunk.count for chunk in chunks]),
            np.concatenate([chunk.sum for chunk in chunks]),
        )


class _Ring:
    """Buckets of one resolution that some window can still reach, sparse."""

    def __init__(self, resolution: Resolution) -> None:
        self.resolution = resolution
        self.current = _NEVER
        self._buckets: dict[int, list[_Chunk]] = {}

    def append(self, bucket: int, chunk: _Chunk) -> None:
        chunks = self._buckets.setdefault(bucket, [])
        chunks.append(chunk)
        if len(chunks) > _CHUNKS_MAX:
            chunks[:] = [_Chunk.merged(chunks)]

    def numbers(self) -> list[int]:
        return list(self._buckets)

    def chunk(self, bucket: int) -> _Chunk:
        merged = _Chunk.merged(self._buckets[bucket])
        self._buckets[bucket] = [merged]
        return merged

    def drop_before(self, bucket: int) -> None:
        for number in [number for number in self._buckets if number < bucket]:
            del self._buckets[number]

    @property
    def nbytes(self) -> int:
        chunks = [chunk for bucket in self._buckets.values() for chunk in bucket]
        return sum(chunk.cell.nbytes + chunk.count.nbytes + chunk.sum.nbytes for chunk in chunks)


class _Sums:
    """Running sums of one signal and window by item; ``sum`` only once a weight was not 1."""

    def __init__(self, capacity: int) -> None:
        self.count: I64 = np.zeros(capacity, dtype=np.int64)
        self.previous: I64 = np.zeros(capacity, dtype=np.int64)
        self.sum: I64 | None = None

    def add(self, item: I64, count: I64, total: I64) -> None:
        """``item`` holds distinct ordinals."""
        if self.sum is None and not np.array_equal(total, count * WEIGHT_SCALE):
            self.sum = self.count * WEIGHT_SCALE
        self.count[item] += count
        if self.sum is not None:
            self.sum[item] += total

    def total(self) -> I64:
        return self.count * WEIGHT_SCALE if self.sum is None else self.sum

    def grow(self, capacity: int) -> None:
        self.count = _extended(self.count, capacity)
        self.previous = _extended(self.previous, capacity)
        if self.sum is not None:
            self.sum = _extended(self.sum, capacity)

    @property
    def nbytes(self) -> int:
        return self.count.nbytes + self.previous.nbytes + (0 if self.sum is None else self.sum.nbytes)


class RunningWindows:
    """Window sums of every item by signal.

    Args:
        windows: the declared windows of each signal, by dense signal index.
        now_ms: the time that the windows end at; ``advance`` moves it.

    Memory: 16 bytes (24 with weights) for each item, active signal and window, and 24 for each active
    cell of a bucket within reach of twice its longest window.
    """

    def __init__(self, windows: Sequence[Sequence[str]], now_ms: int) -> None:
        self._declared = [tuple(labels) for labels in windows]
        kept = {label for labels in windows for label in labels if label != ALL_TIME}
        unknown = kept - WINDOWS.keys()
        if unknown:
            raise UnknownWindowError(min(unknown), list(WINDOWS))
        self._rings = {resolution: _Ring(resolution) for resolution in Resolution}
        self._windows = [window for label, window in WINDOWS.items() if label in kept]
        self._sums: dict[tuple[int, str], _Sums] = {}
        self._capacity = _CAPACITY_MIN
        self.late_count = 0
        self.advance(now_ms)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return sum(ring.nbytes for ring in self._rings.values()) + sum(
            sums.nbytes for sums in self._sums.values()
        )

    def reserve(self, items: int) -> None:
        """Make room for ordinals below ``items``."""
        if items <= self._capacity:
            return
        self._capacity = 1 << (items - 1).bit_length()
        for sums in self._sums.values():
            sums.grow(self._capacity)

    def add(self, deltas: WindowDeltas) -> None:
        """Count increments in every window that covers their bucket.

        One later than every window counts in ``late_count`` only: the table and all_time have it.
        """
        if not len(deltas):
            return
        self.reserve(int(deltas.item.max()) + 1)
        cell = (deltas.signal.astype(np.int64) << _ITEM_BITS) | deltas.item
        reached = np.zeros(len(deltas), dtype=bool)
        for ring in self._rings.values():
            windows = self._windows_of(ring)
            if windows:
                reached |= self._add_to_ring(ring, windows, deltas, cell)
        self.late_count += int(deltas.count[~reached].sum())

    def set_totals(self, signal: int, item: Ints, count: I64, total: I64) -> None:
        """All-time values as the table has them (absolute, not increments) for distinct items."""
        if not len(item):
            return
        self.reserve(int(item.max()) + 1)
        sums = self._of(signal, ALL_TIME)
        if sums.sum is None:
            sums.sum = np.zeros(self._capacity, dtype=np.int64)
        sums.count[item] = count
        sums.sum[item] = total

    def advance(self, now_ms: int) -> None:
        """Let time pass: subtract what expires. An earlier time than the last is ignored."""
        for ring in self._rings.values():
            current = now_ms // (_MINUTE_MS * ring.resolution.minutes)
            if current > ring.current:
                self._rotate(ring, current)

    def count(self, signal: int, window: str) -> I64:
        """Events by item, i64[capacity]: a view, to be read before the next ``add`` or ``advance``."""
        return self._read(signal, window).count

    def sum(self, signal: int, window: str) -> I64:
        """Sums of weights by item in micro-units, i64[capacity]."""
        return self._read(signal, window).total()

    def previous_count(self, signal: int, window: str) -> I64:
        """Events of the window before the current one."""
        return self._read(signal, window).previous

    def velocity(self, signal: int, window: str) -> F64:
        """Events a second by item."""
        return velocity(self.count(signal, window), _known(window))

    def acceleration(self, signal: int, window: str) -> F64:
        """Change of velocity against one window ago, by item."""
        sums = self._read(signal, window)
        return acceleration(sums.count, sums.previous, _known(window))

    def mean(self, signal: int, window: str) -> F64:
        """Mean weight by item, 0 where nothing was counted."""
        sums = self._read(signal, window)
        return mean(sums.total(), sums.count)

    def _windows_of(self, ring: _Ring) -> list[Window]:
        return [window for window in self._windows if window.resolution is ring.resolution]

    def _add_to_ring(
        self, ring: _Ring, windows: list[Window], deltas: WindowDeltas, cell: I64
    ) -> npt.NDArray[np.bool_]:
        """Which increments lie in a bucket that the ring holds; a bucket finer than their own it cannot."""
        number = deltas.bucket.astype(np.int64) // ring.resolution.minutes
        oldest = ring.current - 2 * max(window.buckets for window in windows) + 1
        held = (deltas.resolution <= ring.resolution) & (number >= oldest)
        for bucket in np.unique(number[held]).tolist():
            rows = held & (number == bucket)
            chunk = _Chunk.grouped(cell[rows], deltas.count[rows], deltas.sum[rows])
            ring.append(bucket, chunk)
            for window in windows:
                self._apply(chunk, window, _age(bucket, ring.current, window), 1)
        return held

    def _rotate(self, ring: _Ring, current: int) -> None:
        windows = self._windows_of(ring)
        for bucket in ring.numbers():
            for window in windows:
                before, after = _age(bucket, ring.current, window), _age(bucket, current, window)
                if before != after:
                    chunk = ring.chunk(bucket)
                    self._apply(chunk, window, before, -1)
                    self._apply(chunk, window, after, 1)
        ring.current = current
        if windows:
            ring.drop_before(current - 2 * max(window.buckets for window in windows) + 1)

    def _apply(self, chunk: _Chunk, window: Window, age: int | None, sign: int) -> None:
        """Add or subtract a bucket that is ``age`` windows old: 0 the current, 1 the previous one."""
        if age not in (0, 1):
            return
        signals = chunk.cell >> _ITEM_BITS
        for signal in np.unique(signals).tolist():
            if window.label not in self._declared[signal]:
                continue
            start, end = np.searchsorted(signals, (signal, signal + 1))
            item = chunk.cell[start:end] & _ITEM_MASK
            sums = self._of(signal, window.label)
            if age == 0:
                sums.add(item, sign * chunk.count[start:end], sign * chunk.sum[start:end])
            else:
                sums.previous[item] += sign * chunk.count[start:end]

    def _of(self, signal: int, window: str) -> _Sums:
        sums = self._sums.get((signal, window))
        if sums is None:
            sums = self._sums[signal, window] = _Sums(self._capacity)
        return sums

    def _read(self, signal: int, window: str) -> _Sums:
        if window not in self._declared[signal]:
            raise UnknownWindowError(window, self._declared[signal])
        return self._of(signal, window)


def _age(bucket: int, current: int, window: Window) -> int | None:
    """In which window back from the current one a bucket lies; None = in the future or long ago."""
    back = current - bucket
    return back // window.buckets if 0 <= back < 2 * window.buckets else None


def _known(label: str) -> Window:
    if label not in WINDOWS:
        raise UnknownWindowError(label, list(WINDOWS))
    return WINDOWS[label]


def _extended(column: I64, capacity: int) -> I64:
    longer = np.zeros(capacity, dtype=column.dtype)
    longer[: len(column)] = column
    return longer
