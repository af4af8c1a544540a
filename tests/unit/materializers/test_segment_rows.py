"""Rows of segments: what is written is read, by columns and one by one; damage is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from materializers.rows.errors import RowFormatError
from materializers.rows.segments import (
    NEVER_MS,
    SegmentItem,
    SegmentRow,
    TermCount,
    decode_changes,
    decode_segment_counts,
    decode_segment_item,
    encode_changes,
    encode_segment_item,
)
from materializers.sliding import newest_after
from schemas.segment_plan import Term

TERMS = [Term(900, "a", 0, None, 3), Term(5, "b", 1, 0, 0), Term(77, "c", 1, None, 2)]
LAYOUT = SegmentRow(TERMS)


NAMES = [field[0] for field in LAYOUT.fields]


def _columns() -> Any:
    table = np.zeros(3, dtype=LAYOUT.dtype)
    for name, value in LAYOUT.defaults.items():
        table[name] = value
    table["newest_ms"] = [50, 60, 70]
    table["count_0"], table["sum_0"] = [0, 2, 9], [0, -5, 8]
    table["times_0"][1] = [60, 40, NEVER_MS]
    table["times_0"][2] = [70, 69, 68]
    table["count_1"], table["sum_1"] = [4, 0, 1], [7, 0, 1]
    table["count_2"] = [0, 0, 1]
    table["times_2"][2] = [70, NEVER_MS]
    return table


def test_columns_come_back_and_single_rows_say_the_same() -> None:
    table = _columns()
    rows = LAYOUT.encode({name: table[name] for name in NAMES})
    assert (
        LAYOUT.decode(rows)[list(table.dtype.names or ())[1:]] == table[list(table.dtype.names)[1:]]
    ).all()
    assert decode_segment_counts(rows[0]).terms == {5: TermCount(4, 7, ())}
    assert decode_segment_counts(rows[1]).terms == {900: TermCount(2, -5, (60, 40))}
    assert decode_segment_counts(rows[2]).newest_ms == 70
    assert list(decode_segment_counts(rows[2]).terms) == [5, 77, 900], "by code: equal rows are equal bytes"
    assert len(LAYOUT.decode([])) == 0


def test_another_schema_reads_what_it_knows() -> None:
    table = _columns()
    rows = LAYOUT.encode({name: table[name] for name in NAMES})
    other = SegmentRow([Term(900, "a", 0, None, 1), Term(4, "d", 0, None, 2)]).decode(rows)
    assert other["times_0"].tolist() == [[NEVER_MS], [60], [70]]
    assert other["count_1"].tolist() == [0, 0, 0]
    more = SegmentRow([Term(77, "c", 0, None, 4)]).decode(rows)
    assert more["times_0"][2].tolist() == [70, NEVER_MS, NEVER_MS, NEVER_MS]


def test_damage_is_named() -> None:
    table = _columns()
    row = LAYOUT.encode({name: table[name] for name in NAMES})[2]
    for damaged in (row[:-1], row + b"x", row[:20], b"", b"\x02" + row[1:]):
        with pytest.raises(RowFormatError):
            LAYOUT.decode([damaged])
        with pytest.raises(RowFormatError):
            decode_segment_counts(damaged)
    with pytest.raises(RowFormatError):
        decode_segment_item(b"\x01abc")


def test_items_and_changes() -> None:
    item = SegmentItem("track", ("genre = jazz",), 3, 99)
    assert decode_segment_item(encode_segment_item(item)) == item
    users = np.array([7, 2**63 + 5], dtype=np.uint64)
    found, rows = decode_changes(encode_changes(users, [b"", b"row"]))
    assert (found.tolist(), rows) == (users.tolist(), [b"", b"row"])
    with pytest.raises(RowFormatError):
        decode_changes(encode_changes(users, [b"", b"row"])[:-1])


def test_times_that_fall_are_inserted_where_they_belong() -> None:
    prior = np.array([[30, 20], [NEVER_MS, NEVER_MS], [9, 8]])
    group = np.array([0, 0, 1, 1, 1])
    found = newest_after(prior, group, np.array([25, 40, 5, 3, 4]), [1, 2])
    assert found.values.tolist() == [
        *([30, 20], [30, 25], [40, 30]),
        *([NEVER_MS, NEVER_MS], [5, NEVER_MS], [5, 3], [5, 4]),
        [9, 8],
    ]
    assert found.kept.tolist() == [[40, 30], [5, 4], [9, 8]]
