"""Rows in columns: loading, dirty rows, eviction."""

from __future__ import annotations

import numpy as np
import pytest

from materializers.column_table import ColumnTable
from materializers.rows.errors import RowFormatError
from materializers.rows.fixed import FixedRow
from tests.memory_rows import MemoryRows, MemoryWriter

ROW = FixedRow("counts", 3, [("count", "<i8"), ("vector", "<f4", (2,))])


class CountingRows(MemoryRows):
    """Remembers which keys were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[bytes] = []

    def get_many(self, table, keys):  # type: ignore[no-untyped-def]
        self.read.extend(keys)
        return super().get_many(table, keys)


def as_bytes(keys: np.ndarray) -> list[bytes]:
    return [int(key).to_bytes(8, "big") for key in keys]


def table_over(rows: MemoryRows, **options: object) -> ColumnTable:
    return ColumnTable("counts", ROW, rows, as_bytes, **options)  # type: ignore[arg-type]


def flush(table: ColumnTable, rows: MemoryRows) -> int:
    writer = MemoryWriter(rows)
    table.flush(writer)
    written = len(writer.changes)
    writer.commit()
    return written


def add(table: ColumnTable, keys: list[int]) -> None:
    slots = table.slots(np.array(keys, dtype=np.int64))
    table["count"][slots] += 1
    table["vector"][slots] = np.array(keys)[:, None]
    table.touch(slots)


def test_no_change_is_lost_while_the_table_grows_between_batches() -> None:
    rows = MemoryRows()
    table = table_over(rows)
    add(table, [7, 3])
    add(table, list(range(300)))  # more than is remembered one by one
    add(table, list(range(300, 4_000)))  # more slots: the bound is higher now
    add(table, [3])
    assert flush(table, rows) == 4_000
    assert table.slots(np.array([3])).shape == (1,)
    assert table["count"][table.slots(np.array([3]))].tolist() == [3]
    add(table, [1, 2])
    add(table, [2])
    assert flush(table, rows) == 2


def test_only_changed_rows_are_written_and_all_come_back() -> None:
    rows = MemoryRows()
    table = table_over(rows)
    add(table, [5, 9])
    assert flush(table, rows) == 2
    add(table, [9])
    assert flush(table, rows) == 1
    assert flush(table, rows) == 0
    again = table_over(rows)
    slots = again.slots(np.array([9, 5, 7]))
    assert again["count"][slots].tolist() == [2, 1, 0]
    assert again["vector"][slots].tolist() == [[9.0, 9.0], [5.0, 5.0], [0.0, 0.0]]


def test_a_new_row_has_the_defaults() -> None:
    table = table_over(MemoryRows(), defaults={"count": -4})
    assert table["count"][table.slots(np.array([1]))].tolist() == [-4]


def test_growth_keeps_every_row() -> None:
    rows = MemoryRows()
    table = table_over(rows)
    for start in range(0, 5000, 700):
        add(table, list(range(start, start + 900)))
    counts = table["count"][table.slots(np.arange(5000))]
    expected = [sum(start <= key < start + 900 for start in range(0, 5000, 700)) for key in range(5000)]
    assert counts.tolist() == expected


def test_the_bound_evicts_clean_rows_and_loses_nothing() -> None:
    rows = MemoryRows()
    table = table_over(rows, slots_max=100)
    for turn in range(30):
        add(table, list(range(turn * 10, turn * 10 + 40)))
        flush(table, rows)
        assert len(table) <= 100
    assert table.evicted_count > 0
    everything = table_over(rows)
    expected = [sum(turn * 10 <= key < turn * 10 + 40 for turn in range(30)) for key in range(330)]
    assert everything["count"][everything.slots(np.arange(330))].tolist() == expected


def test_a_dirty_row_is_never_evicted() -> None:
    rows = MemoryRows()
    table = table_over(rows, slots_max=10)
    add(table, list(range(50)))
    add(table, list(range(50, 90)))
    assert len(table) == 90
    assert flush(table, rows) == 90
    add(table, [200])
    assert len(table) <= 10


def test_the_rows_unused_for_longest_go_first() -> None:
    rows = MemoryRows()
    table = table_over(rows, slots_max=8)
    for key in range(8):
        add(table, [key])
    flush(table, rows)
    add(table, [0, 1])
    flush(table, rows)
    add(table, [100])
    counting = CountingRows()
    table._rows = counting
    table.slots(np.array([0, 1, 100]))
    assert counting.read == []
    table.slots(np.array([2]))
    assert counting.read == as_bytes(np.array([2]))


def test_a_row_that_is_surely_new_is_not_read_unless_rows_were_evicted() -> None:
    rows = CountingRows()
    table = table_over(rows, slots_max=4, surely_new=lambda keys: keys >= 100)
    add(table, [1, 100, 101])
    assert rows.read == as_bytes(np.array([1]))
    flush(table, rows)
    add(table, [102, 103])
    flush(table, rows)
    assert table.evicted_count
    rows.read.clear()
    add(table, [100, 101, 102, 103, 1])
    flush(table, rows)
    again = table_over(rows)
    assert again["count"][again.slots(np.array([1, 100, 101, 102, 103]))].tolist() == [2] * 5


def test_a_stated_number_of_bytes_for_each_row() -> None:
    table = table_over(MemoryRows())
    add(table, list(range(1 << 14)))
    assert table.nbytes <= (1 << 14) * (table.bytes_for_each_row + 24) * 1.01


def test_a_row_of_another_version_is_refused() -> None:
    rows = MemoryRows()
    rows.tables["counts"] = {as_bytes(np.array([1]))[0]: b"\x09" + b"\0" * 16}
    with pytest.raises(RowFormatError, match="version 9, expected 3"):
        table_over(rows).slots(np.array([1]))
    rows.tables["counts"] = {as_bytes(np.array([1]))[0]: b"\x03"}
    with pytest.raises(RowFormatError, match="1 bytes"):
        table_over(rows).slots(np.array([1]))


def test_a_table_without_rows_is_not_read_until_something_was_evicted() -> None:
    rows = CountingRows()
    table = table_over(rows, slots_max=4)
    table.restore(rows)
    add(table, [1, 2, 3])
    assert rows.read == []
    flush(table, rows)
    add(table, [4, 5, 6])
    flush(table, rows)
    add(table, [1, 2, 3])
    assert rows.read
    flush(table, rows)
    restarted = table_over(rows)
    restarted.restore(rows)
    assert restarted["count"][restarted.slots(np.array([1, 2, 3, 4]))].tolist() == [2, 2, 2, 1]
