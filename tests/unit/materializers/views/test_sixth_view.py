"""Adding a view is one class and one registration."""

from __future__ import annotations

import numpy as np
import pytest

from materializers.batches import ItemBatch
from materializers.column_table import ColumnTable
from materializers.materializer import (
    Forgotten,
    PartitionContext,
    RowReader,
    RowWriter,
    Scope,
    TableSpec,
    View,
)
from materializers.registry import MaterializerRegistry, RegistryError, default_registry
from materializers.rows.fixed import FixedRow
from tests.oracle import Event
from tests.view_harness import Partition, run, small_schema

SCHEMA = small_schema()
ROW = FixedRow("item_peaks", 1, [("largest", "<i8")])


class ItemPeaks:
    """The largest weight that an item ever got: a view that nobody planned for."""

    def __init__(self, context: PartitionContext) -> None:
        items = context.items
        self._peaks = ColumnTable(
            "item_peaks",
            ROW,
            context.rows,
            lambda wids: [items.string(int(wid)).encode() for wid in wids],
            defaults={"largest": -(2**63)},
        )

    def on_batch(self, batch: ItemBatch) -> None:
        wids = np.unique(batch.item)
        slots = self._peaks.slots(wids.astype(np.int64))
        np.maximum.at(self._peaks["largest"], slots[np.searchsorted(wids, batch.item)], batch.weight)
        self._peaks.touch(slots)

    def checkpoint(self, writer: RowWriter) -> None:
        self._peaks.flush(writer)

    def restore(self, reader: RowReader) -> None:
        self._peaks.restore(reader)

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        return {}


SIXTH = View(
    name="item_peaks", scope=Scope.ITEM, tables=(TableSpec("item_peaks", "item id"),), build=ItemPeaks
)


def event(offset: int, item: str, weight: int) -> Event:
    return Event(0, offset, 1_763_600_000_000, "stay", item, "u", weight, 1_763_600_000_000)


def test_a_sixth_view_is_registered_beside_the_others() -> None:
    registry = MaterializerRegistry([*default_registry(), SIXTH])
    assert SIXTH in registry.of(Scope.ITEM)
    assert len(registry.of(Scope.ITEM)) == len(default_registry().of(Scope.ITEM)) + 1
    assert SIXTH.tables[0] in registry.tables(Scope.ITEM)
    with pytest.raises(RegistryError):
        MaterializerRegistry([SIXTH, SIXTH])


def test_all_views_of_the_scope_fold_and_come_back_after_a_crash() -> None:
    registry = MaterializerRegistry([*default_registry(), SIXTH])
    batches = [[event(0, "a", 5), event(1, "b", 7)], [event(2, "a", 3)], [event(3, "a", 9)]]
    for view in registry.of(Scope.ITEM):
        partition = run(
            Partition(SCHEMA),
            view.build,
            "item_batch",
            batches,
            flush_after=frozenset({0}),
            crash_after=frozenset({1}),
        )
        declared = {table.name for table in view.tables}
        assert set(partition.rows.tables) <= declared, "a view writes only to tables that it declares"
        if view is SIXTH:
            peaks = ROW.decode([value for _, value in partition.rows.scan("item_peaks")])
            assert peaks["largest"].tolist() == [9, 7]
