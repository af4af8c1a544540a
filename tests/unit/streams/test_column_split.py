"""A batch of columns becomes records: each event on its partition, in order, within the bounds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.records.columnar import encode_columnar
from schemas.records.columns import EventColumns
from streams.column_split import chunks, encode_within, event_partitions, split
from streams.partitioner import partition_for

Row = tuple[str, str, str, int, int, str, bytes]

rows_of_events = st.lists(
    st.tuples(
        st.sampled_from(["view", "like"]),
        st.integers(0, 20).map("item_{}".format),
        st.one_of(st.just(""), st.integers(0, 20).map("user_{}".format)),
        st.integers(-(10**6), 10**6),
        st.integers(0, 10**13),
        st.sampled_from(["", "r1"]),
        st.sampled_from([b"", b"{}"]),
    ),
    max_size=120,
)


def columns_from(rows: list[Row]) -> EventColumns:
    """Columns of plain rows."""
    kinds, items, users = (list(dict.fromkeys(row[place] for row in rows)) for place in range(3))
    return EventColumns(
        kinds=kinds,
        items=items,
        users=users,
        kind=np.array([kinds.index(row[0]) for row in rows], np.uint16),
        item=np.array([items.index(row[1]) for row in rows], np.uint32),
        user=np.array([users.index(row[2]) for row in rows], np.uint32),
        weight=np.array([row[3] for row in rows], np.int64),
        ts_ms=np.array([row[4] for row in rows], np.int64),
        request_ids=[row[5] for row in rows],
        contexts=[row[6] for row in rows],
    )


def rows_from(columns: EventColumns) -> list[Row]:
    """Plain rows of columns."""
    assert columns.request_ids is not None
    assert columns.contexts is not None
    return [
        (
            columns.kinds[columns.kind[row]],
            columns.items[columns.item[row]],
            columns.users[columns.user[row]],
            int(columns.weight[row]),
            int(columns.ts_ms[row]),
            columns.request_ids[row],
            columns.contexts[row],
        )
        for row in range(len(columns))
    ]


def partition_of(row: Row, partitions: int) -> int:
    """By user, or by item when anonymous."""
    return partition_for((row[2] or row[1]).encode(), partitions)


@given(rows_of_events, st.integers(1, 9), st.integers(1, 40))
def test_every_event_goes_to_its_partition_in_order(
    rows: list[Row], partitions: int, events_max: int
) -> None:
    """Nothing lost, nothing twice, no record above its bound."""
    found: dict[int, list[Row]] = {}
    for partition, columns in split(columns_from(rows), partitions, events_max):
        assert 1 <= len(columns) <= events_max
        found.setdefault(partition, []).extend(rows_from(columns))
    expected: dict[int, list[Row]] = {}
    for row in rows:
        expected.setdefault(partition_of(row, partitions), []).append(row)
    assert found == expected


@given(rows_of_events, st.integers(1, 9))
def test_partitions_of_columns_equal_those_of_rows(rows: list[Row], partitions: int) -> None:
    """One array for all."""
    found = event_partitions(columns_from(rows), partitions)
    assert found.tolist() == [partition_of(row, partitions) for row in rows]


@given(rows_of_events, st.integers(1, 40))
def test_chunks_are_consecutive_views(rows: list[Row], events_max: int) -> None:
    """The pieces of a large batch are the batch."""
    columns = columns_from(rows)
    pieces = list(chunks(columns, events_max))
    assert [row for piece in pieces for row in rows_from(piece)] == rows
    assert all(np.shares_memory(piece.weight, columns.weight) for piece in pieces)


def test_a_record_that_is_too_large_is_halved_until_it_fits() -> None:
    """Only a single event may be above the bound: the log will then refuse it by name."""
    columns = columns_from([("view", "i" * 250 + str(n), "u", 1, 1, "", b"") for n in range(64)])
    parts = list(encode_within(columns, encode_columnar, 3000))
    assert sum(count for count, _ in parts) == 64
    assert all(len(value) <= 3000 for _, value in parts)
    assert len(list(encode_within(columns, encode_columnar, 10))) == 64
