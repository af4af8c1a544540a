"""All cells of one signal in one bucket of time: sealed runs of doubling size, and a short unsorted tail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from queryd.hot.arrays import Mask
from queryd.hot.cells import Cells as Cells
from queryd.hot.cells import joined as joined
from queryd.hot.profile_index import Selection
from queryd.hot.run_merging import merged, sealed
from queryd.hot.runs import Run

# A merge of this many cells costs about 10 ms with the GIL held: longer ones would show in queries' p99.
RUN_CELLS_MAX: Final = 131_072
_TAIL_CELLS_MAX = 8_192
_TAIL_PIECES_MAX = 64
_TAIL_PIECES_READ_MAX = 4


class Bucket:
    """Cells of one bucket. Only small runs are merged here: a longer merge is done in slices, elsewhere."""

    __slots__ = ("_runs", "_tail", "_tail_cells")

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._tail: list[Cells] = []
        self._tail_cells = 0

    def __len__(self) -> int:
        return self._tail_cells + sum(len(run) for run in self._runs)

    @property
    def nbytes(self) -> int:
        """Bytes of its cells and of the indexes over their profiles."""
        return sum(run.nbytes for run in self._runs) + sum(cells.nbytes for cells in self._tail)

    @property
    def runs(self) -> Sequence[Run]:
        """The sealed cells, the oldest first."""
        return self._runs

    @property
    def tail(self) -> Sequence[Cells]:
        """The cells that are not sealed yet, in a few pieces."""
        if len(self._tail) > _TAIL_PIECES_READ_MAX:  # each piece costs a reader as much as a thousand cells
            self._tail = [joined(self._tail)]
        return self._tail

    def add(self, cells: Cells) -> None:
        """Add counts; cells may repeat (profile, item) pairs that are there."""
        self._tail.append(cells)
        self._tail_cells += len(cells)
        if self._tail_cells > _TAIL_CELLS_MAX:
            self.seal()
        elif len(self._tail) > _TAIL_PIECES_MAX:
            self._tail = [joined(self._tail)]

    def adopt(self, runs: Sequence[Run]) -> None:
        """Take over sealed cells as they are."""
        self._runs = [*(run for run in runs if len(run)), *self._runs]

    def has(self, runs: Sequence[Run]) -> bool:
        """Whether all of these runs are still here."""
        present = set(map(id, self._runs))
        return all(id(run) in present for run in runs)

    def remove(self, runs: Sequence[Run]) -> None:
        """Forget runs whose cells have found another place."""
        gone = set(map(id, runs))
        self._runs = [run for run in self._runs if id(run) not in gone]

    def select(self, chosen: Selection | None) -> list[Cells]:
        """The cells of the allowed profiles, in pieces; None allows every profile."""
        pieces = [run.cells(run.rows(chosen)) for run in self._runs]
        pieces += [cells.allowed(None if chosen is None else chosen.mask) for cells in self.tail]
        return [piece for piece in pieces if len(piece)]

    def drop_items(self, dropped: Mask) -> None:
        """Forget the cells of the items that ``dropped`` bool[items] marks."""
        self._runs = [kept for run in self._runs if len(kept := run.without(dropped))]
        self._tail = [cells.take(~dropped[cells.item]) for cells in self._tail]
        self._tail_cells = sum(len(cells) for cells in self._tail)

    def seal(self) -> None:
        """Make a run of the tail, and merge it with runs that are not much larger."""
        if not self._tail_cells:
            return
        found = [sealed(joined(self._tail))]
        self._tail, self._tail_cells = [], 0
        size = len(found[0])
        while self._runs and size >= len(self._runs[-1]) // 2 and size + len(self._runs[-1]) <= RUN_CELLS_MAX:
            found.append(self._runs.pop())
            size += len(found[-1])
        self._runs.append(merged(found) if len(found) > 1 else found[0])
