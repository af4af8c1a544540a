"""Counters of one signal in one bucket of time, as columns: (item, profile) -> count, sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from queryd.hot.arrays import F64, I64, U32, U64, Mask

# A merge of this many cells costs about 10 ms with the GIL held: longer ones would show in queries' p99.
RUN_CELLS_MAX = 131_072
_TAIL_CELLS_MAX = 8_192
_TAIL_PIECES_MAX = 64
_TAIL_PIECES_READ_MAX = 4


@dataclass(frozen=True, slots=True)
class Cells:
    """Columns of one length: item u32, profile u32 (None: kept without), count u32, sum i64 (micro-units).

    ``moment`` f64 is Σ weight · (ts − start of the UTC day), of signals that decay linearly; None for others.
    """

    item: U32
    profile: U32 | None
    count: U32
    sum: I64
    moment: F64 | None = None

    def __len__(self) -> int:
        return len(self.item)

    @property
    def nbytes(self) -> int:
        """Bytes of its columns."""
        columns = (self.item, self.profile, self.count, self.sum, self.moment)
        return sum(int(column.nbytes) for column in columns if column is not None)

    def take(self, rows: I64 | Mask) -> Cells:
        """The cells of ``rows`` (positions or mask)."""
        profile = None if self.profile is None else self.profile[rows]
        moment = None if self.moment is None else self.moment[rows]
        return Cells(self.item[rows], profile, self.count[rows], self.sum[rows], moment)

    def allowed(self, mask: Mask | None) -> Cells:
        """The cells of the profiles that ``mask`` bool[profiles] allows."""
        return self if mask is None or self.profile is None else self.take(mask[self.profile])


def joined(parts: list[Cells]) -> Cells:
    """The cells of ``parts`` one after another; ``parts`` must not be empty."""
    if len(parts) == 1:
        return parts[0]
    profiles = [part.profile for part in parts if part.profile is not None]
    return Cells(
        np.concatenate([part.item for part in parts]),
        np.concatenate(profiles) if profiles else None,
        np.concatenate([part.count for part in parts]),
        np.concatenate([part.sum for part in parts]),
        _joined_moments(parts),
    )


def _joined_moments(parts: list[Cells]) -> F64 | None:
    if all(part.moment is None for part in parts):
        return None
    return np.concatenate([np.zeros(len(part)) if part.moment is None else part.moment for part in parts])


def merged(cells: Cells) -> Cells:
    """One cell for each (profile, item), sorted by profile, then item."""
    if not len(cells):
        return cells
    key = cells.item.astype(np.uint64)
    if cells.profile is not None:
        key |= cells.profile.astype(np.uint64) << np.uint64(32)
    order = np.argsort(key)
    key = key[order]
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    distinct: U64 = key[starts]
    profile = None if cells.profile is None else (distinct >> np.uint64(32)).astype(np.uint32)
    return Cells(
        (distinct & np.uint64(0xFFFFFFFF)).astype(np.uint32),
        profile,
        np.add.reduceat(cells.count[order], starts, dtype=np.uint32),
        np.add.reduceat(cells.sum[order], starts),
        None if cells.moment is None else np.add.reduceat(cells.moment[order], starts),
    )


class _Run:
    """Merged cells and, for each profile present, where its cells begin."""

    __slots__ = ("cells", "profiles", "starts")

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        profile = cells.profile
        if profile is None:
            self.profiles = np.zeros(0, dtype=np.uint32)
            self.starts = np.zeros(1, dtype=np.int64)
            return
        begins = np.flatnonzero(np.concatenate([[True], profile[1:] != profile[:-1]]))
        self.profiles = profile[begins]
        self.starts = np.append(begins, len(profile))

    def select(self, mask: Mask | None) -> Cells:
        """Cells of the profiles that ``mask`` allows; the cost follows the cells that match, not all."""
        if mask is None or self.cells.profile is None:
            return self.cells
        hit = np.flatnonzero(mask[self.profiles])
        if len(hit) == len(self.profiles):
            return self.cells
        begins, lengths = self.starts[hit], self.starts[hit + 1] - self.starts[hit]
        offsets = np.cumsum(lengths) - lengths
        return self.cells.take(np.repeat(begins - offsets, lengths) + np.arange(int(lengths.sum())))


class Bucket:
    """All cells of one signal in one bucket: merged runs of doubling size, and a short unsorted tail.

    ``mask`` arguments are bool[profiles known]; None allows every profile.
    """

    __slots__ = ("_runs", "_tail", "_tail_cells")

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._tail: list[Cells] = []
        self._tail_cells = 0

    def __len__(self) -> int:
        return self._tail_cells + sum(len(run.cells) for run in self._runs)

    @property
    def nbytes(self) -> int:
        """Bytes of its cells and of the index over their profiles."""
        runs = sum(run.cells.nbytes + run.profiles.nbytes + run.starts.nbytes for run in self._runs)
        return runs + sum(cells.nbytes for cells in self._tail)

    def add(self, cells: Cells) -> None:
        """Add counts; cells may repeat (profile, item) pairs that are there."""
        self._tail.append(cells)
        self._tail_cells += len(cells)
        if self._tail_cells > _TAIL_CELLS_MAX:
            self._seal()
        elif len(self._tail) > _TAIL_PIECES_MAX:
            self._tail = [joined(self._tail)]

    def select(self, mask: Mask | None) -> list[Cells]:
        """The cells of the allowed profiles, in pieces."""
        if len(self._tail) > _TAIL_PIECES_READ_MAX:  # each piece costs a reader as much as a thousand cells
            self._tail = [joined(self._tail)]
        pieces = [run.select(mask) for run in self._runs]
        pieces += [cells.allowed(mask) for cells in self._tail]
        return [piece for piece in pieces if len(piece)]

    def drop_items(self, dropped: Mask) -> None:
        """Forget the cells of the items that ``dropped`` bool[items] marks."""
        self._runs = [_Run(run.cells.take(~dropped[run.cells.item])) for run in self._runs]
        self._tail = [cells.take(~dropped[cells.item]) for cells in self._tail]
        self._tail_cells = sum(len(cells) for cells in self._tail)

    def _seal(self) -> None:
        run = merged(joined(self._tail))
        self._tail, self._tail_cells = [], 0
        while self._runs and len(run) >= len(self._runs[-1].cells) // 2:
            if len(run) + len(self._runs[-1].cells) > RUN_CELLS_MAX:
                break
            run = merged(joined([self._runs.pop().cells, run]))
        self._runs.append(_Run(run))
