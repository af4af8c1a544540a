"""How many bytes each active cell takes, in the worker and in queryd, and what a row takes on disk.

    python -m benchmarks.memory [--items 200000] [--events 2000000]

One item partition's views fold events on Zipf-distributed items; queryd's columns follow them through the
feed, as they would in production. Bytes are those of the arrays that the structures hold. The same table says
what the default registry's other signals cost while nobody sends them, and what a rare one costs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.views import DictRows, DictWriter
from materializers.batches import ItemBatch
from materializers.interner import Interner
from materializers.materializer import PartitionContext, Scope
from materializers.rows.blocks import block_rows
from materializers.tables.feed import Change, Section
from materializers.views.cohort_signals import BLOCKS_TABLE as COHORT_BLOCKS
from materializers.views.cohort_signals import CohortSignals
from materializers.views.global_signals import BLOCKS_TABLE as GLOBAL_BLOCKS
from materializers.views.global_signals import GlobalSignals
from queryd.hot.bucket_reads import bucket_range
from queryd.hot.cold import ColdTier
from queryd.hot.columns import HotColumns
from queryd.hot.feeder import HOT_HOURS
from queryd.hot.loading import Loader
from schemas.default import default_schema
from schemas.durations import DAY_MS
from schemas.weights import WEIGHT_SCALE

START_MS = 1_763_600_000_000
SIGNALS = ("view", "like", "skip", "share", "completion", "dwell_time")
SHARES = (0.62, 0.12, 0.10, 0.03, 0.05, 0.08)
PROFILES = 200
BATCH = 50_000
RARE = "report"
RARE_CELLS = 100


class _Feed(DictWriter):
    """A writer that keeps the feed sections."""

    def __init__(self, rows: DictRows) -> None:
        super().__init__(rows)
        self.sections: list[Section] = []

    def feed(self, section: str, payload: bytes) -> None:
        self.sections.append(Section(section, 0, payload))


class _OnePartition:
    """The read side of one partition, for ``ColdTier`` and ``Loader``."""

    def __init__(self, rows: DictRows) -> None:
        self._rows = rows

    def partitions(self, scope: Scope) -> list[int]:
        return [0]

    def scan(
        self, table: str, partition: int, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._rows.scan(table, start, end)


@dataclass(frozen=True)
class Line:
    """One structure: what it holds, how many of it, and all its bytes."""

    what: str
    unit: str
    count: int
    bytes: int


class Measured:
    """The structures, filled."""

    def __init__(self, items: int, events: int) -> None:
        self._schema = default_schema()
        self._rows = DictRows()
        names, users, profiles, creators = (Interner() for _ in range(4))
        names.ids([f"item_{number}" for number in range(items)])
        profiles.ids([f'{{"locale":"{number}"}}' for number in range(PROFILES)])
        context = PartitionContext(0, 1, self._schema, names, users, profiles, creators, self._rows)
        self.cells, self.cohorts = GlobalSignals(context), CohortSignals(context)
        self.cells.restore(self._rows)
        self.cohorts.restore(self._rows)
        self.hot = HotColumns(self._schema)
        tables = _OnePartition(self._rows)
        self.cold = ColdTier(tables, self.hot)  # type: ignore[arg-type]
        self._loader = Loader(tables, self.hot, self.cold, lambda _: None)  # type: ignore[arg-type]
        for cube in (self.hot.everybody, self.hot.by_profile):
            cube.expire(START_MS + DAY_MS, HOT_HOURS)
        self._chance = np.random.default_rng(1)
        self.items = items
        for offset in range(0, events, BATCH):
            self.follow(self.fold(self._batch(START_MS + offset * DAY_MS // events)))
        rare = self._chance.integers(items // 2, items, RARE_CELLS)
        reports = np.full(RARE_CELLS, self._schema.signal_index[RARE])
        self.follow(self.fold(self.batch_of(rare, reports, START_MS + DAY_MS)))

    def lines(self) -> Iterator[Line]:
        """Everything that was measured."""
        table = self.cells._cells
        yield Line("worker: global cells (hot)", "cell", len(table), table.nbytes)
        index = self._schema.signal_index
        active = [self.hot.decayed[index[name]] for name in SIGNALS]
        cells = sum(int(np.count_nonzero(each.counts(self.items))) for each in active)
        yield Line("queryd: all-time and decay (hot)", "cell", cells, sum(each.nbytes for each in active))
        for what, cube in (("everybody", self.hot.everybody), ("by cohort profile", self.hot.by_profile)):
            yield Line(f"queryd: bucket cells, {what} (warm)", "cell", cube.cells, cube.nbytes)
        standing = self.hot.everybody
        before = standing.nbytes
        standing.standing(index["view"], bucket_range("24h", START_MS + DAY_MS), None, None, "24h")
        yield Line("queryd: a standing sum", "item", self.items, standing.nbytes - before)
        idle = [each for each in self._schema.signals if each not in (*SIGNALS, RARE)]
        unused = sum(self.hot.decayed[index[name]].nbytes for name in idle)
        yield Line("queryd: a signal that nobody sends", "signal", len(idle), unused)
        rare = self.hot.decayed[index[RARE]]
        yield Line(f"queryd: {RARE_CELLS} cells of a rare signal", "cell", RARE_CELLS, rare.nbytes)
        for name in (GLOBAL_BLOCKS, COHORT_BLOCKS):
            stored, size = self._on_disk(name)
            yield Line(f"disk: {name} (cold), uncompressed", "row", stored, size)

    def fold(self, batch: ItemBatch) -> list[Section]:
        """Fold and flush a batch; what the feed says of it."""
        writer = _Feed(self._rows)
        for view in (self.cells, self.cohorts):
            view.on_batch(batch)
            view.checkpoint(writer)
        return writer.sections

    def follow(self, sections: list[Section]) -> None:
        """Let queryd's columns apply what the feed says."""
        for _ in self._loader.apply([Change(1, START_MS, sections)]):
            pass

    def _batch(self, now_ms: int) -> ItemBatch:
        ranks = np.exp(self._chance.random(BATCH) * np.log(self.items)).astype(np.int64)
        places = self._chance.choice(len(SIGNALS), BATCH, p=SHARES)
        signals = np.array([self._schema.signal_index[name] for name in SIGNALS])[places]
        return self.batch_of(ranks * 48_271 % self.items, signals, now_ms)

    def batch_of(
        self, items: npt.NDArray[np.int64], signals: npt.NDArray[np.int64], now_ms: int
    ) -> ItemBatch:
        """Events of one moment, on items by number."""
        n = len(items)
        times = np.full(n, now_ms)
        return ItemBatch(
            item=(items + 1).astype(np.uint32),
            user=self._chance.integers(1, 1 << 40, n).astype(np.uint64),
            signal=signals.astype(np.uint16),
            profile=self._chance.integers(1, PROFILES + 1, n).astype(np.uint32),
            weight=np.full(n, WEIGHT_SCALE),
            ts_ms=times,
            record_ts_ms=times,
            source_partition=np.zeros(n, dtype=np.uint16),
            source_offset=np.arange(n),
        )

    def _on_disk(self, table: str) -> tuple[int, int]:
        rows = [(len(key) + len(value), block_rows(value)) for key, value in self._rows.scan(table)]
        return sum(count for _, count in rows), sum(size for size, _ in rows)


def main() -> None:
    """Print one table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--items", type=int, default=200_000)
    arguments.add_argument("--events", type=int, default=2_000_000)
    chosen = arguments.parse_args()
    print(f"{'what':45} {'count':>10}  {'MiB':>8}  bytes each")
    for line in Measured(chosen.items, chosen.events).lines():
        each = line.bytes / max(1, line.count)
        print(f"{line.what:45} {line.count:10,}  {line.bytes / 2**20:8.1f}  {each:8.1f} / {line.unit}")


if __name__ == "__main__":
    main()
