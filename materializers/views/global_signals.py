"""Global signals: of each item and signal all-time count and sum, decayed scores, and counts by bucket."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from materializers import decay
from materializers.batches import ItemBatch
from materializers.canonical import bucket_blocks, dictionary, global_cells, several
from materializers.column_table import ColumnTable
from materializers.grouping import Groups
from materializers.materializer import (
    Forgotten,
    PartitionContext,
    RowReader,
    RowWriter,
    Scope,
    TableSpec,
    View,
)
from materializers.ordinals import shared_ordinals
from materializers.rows import cells
from materializers.rows.ordinals import ITEM_IDS
from materializers.views.signal_blocks import block_log
from materializers.views.signal_columns import accumulator_rates, signal_codes
from schemas.weights import WEIGHT_SCALE

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

BLOCKS_TABLE = "global_blocks"
CELLS_MAX = 1 << 19  # active cells of one partition in memory, about 100 bytes each: 50 MB
_SIGNAL_BITS = 16


class GlobalSignals:
    """The fold of one item partition."""

    def __init__(self, context: PartitionContext, cells_max: int = CELLS_MAX) -> None:
        schema = context.schema
        self._codes = signal_codes(schema)
        self._rates = accumulator_rates(schema)
        self._items = shared_ordinals(ITEM_IDS, context.rows, context.items)
        accumulators = self._rates.shape[1]
        self._cells = ColumnTable(
            cells.TABLE,
            cells.cell_row(accumulators),
            context.rows,
            self._keys_of,
            order_of=self._columns_of,
            surely_new=lambda keys: self._items.dealt_since_restore(keys >> _SIGNAL_BITS),
            defaults={"ref_ms": decay.NEVER_MS, "accumulators": accumulators},
            slots_max=cells_max,
        )
        self._blocks = block_log(BLOCKS_TABLE, context)

    def on_batch(self, batch: ItemBatch) -> None:
        """Fold events into their cells and gather them for the bucket blocks."""
        if not len(batch):
            return
        item = self._items.of(batch.item)
        self._blocks.add(item, batch.signal, batch.weight, batch.ts_ms, batch.record_ts_ms)
        keys = (item.astype(np.int64) << _SIGNAL_BITS) | batch.signal
        groups = Groups(keys)
        slots = self._cells.slots(groups.keys)
        self._cells["count"][slots] += groups.counts
        self._cells["sum"][slots] += groups.sum(batch.weight)
        self._decay(groups, slots, batch)
        self._cells.touch(slots)

    def checkpoint(self, writer: RowWriter) -> None:
        """New ordinals, changed cells (rows and feed), blocks."""
        self._items.checkpoint(writer)
        slots = self._cells.dirty()
        if len(slots):
            writer.feed(cells.SECTION, cells.encode_changes(self._changes(slots)))
            self._cells.flush(writer)
        self._blocks.checkpoint(writer)

    def restore(self, reader: RowReader) -> None:
        """Ordinals at once; cells are read when an event touches them."""
        self._items.restore(reader)
        self._cells.restore(reader)
        self._blocks.restore(reader)

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        """Counts and sums name no user: nothing to erase."""
        return {}

    def _decay(self, groups: Groups, slots: I64, batch: ItemBatch) -> None:
        if not self._rates.shape[1]:
            newest = groups.max(batch.ts_ms)
            self._cells["ref_ms"][slots] = np.maximum(self._cells["ref_ms"][slots], newest)
            return
        before = decay.Accumulators(self._cells["ref_ms"][slots], self._cells["acc"][slots])
        signal = groups.keys & ((1 << _SIGNAL_BITS) - 1)
        weight = batch.weight / WEIGHT_SCALE
        after = decay.fold(before, groups.group_of_rows(), batch.ts_ms, weight, self._rates[signal])
        self._cells["ref_ms"][slots], self._cells["acc"][slots] = after

    def _changes(self, slots: I64) -> cells.CellChanges:
        keys = self._cells.keys(slots)
        values = (self._cells[name][slots] for name in ("ref_ms", "count", "sum", "acc"))
        return cells.CellChanges(
            item=(keys >> _SIGNAL_BITS).astype(np.uint32),
            signal=self._codes[keys & ((1 << _SIGNAL_BITS) - 1)],
            cells=cells.Cells(*values),
        )

    def _columns_of(self, keys: I64) -> tuple[U64, U32]:
        signal = keys & ((1 << _SIGNAL_BITS) - 1)
        return self._items.entity_ids(keys >> _SIGNAL_BITS), self._codes[signal]

    def _keys_of(self, keys: I64) -> list[bytes]:
        return cells.cell_keys(*self._columns_of(keys))


VIEW = View(
    name="global_signals",
    scope=Scope.ITEM,
    tables=(
        TableSpec(ITEM_IDS, "ordinal", bloom=False),
        TableSpec(cells.TABLE, "item, signal code"),
        TableSpec(BLOCKS_TABLE, "resolution, bucket, seq", bloom=False),
    ),
    build=GlobalSignals,
    canonical=several(dictionary(ITEM_IDS), global_cells, bucket_blocks(BLOCKS_TABLE, profiles=False)),
)
