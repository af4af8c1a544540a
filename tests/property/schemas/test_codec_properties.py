"""Batches come back whole, and no bytes whatever do anything but come back or be refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import RecordError
from schemas.records.columnar import VERSION, decode_columnar, encode_columnar
from schemas.records.columns import EventColumns
from schemas.records.framing import HEADER_BYTES, MAGIC_EVENTS, MAGIC_REKEYED, frame
from schemas.records.rekeyed import RekeyedColumns, decode_rekeyed, encode_rekeyed

I64 = st.integers(-(2**63), 2**63 - 1)
SMALL = st.integers(0, 300)
# Columns of one value, of a narrow range and of the whole range are packed in different ways.
COLUMN = st.sampled_from([st.just(1_000_000), SMALL, st.integers(0, 2**33), I64])
STRINGS = st.lists(
    st.text(max_size=8) | st.sampled_from(["", "\0", "a\0b", "é", "日本"]), min_size=1, max_size=6
)


def _column(draw: Callable[..., Any], n: int, values: st.SearchStrategy[int], dtype: type) -> Any:
    return np.array(draw(st.lists(values, min_size=n, max_size=n)), dtype=dtype)


@st.composite
def event_columns(draw: Callable[..., Any]) -> EventColumns:
    n = draw(st.integers(0, 12))
    kinds, items, users = draw(STRINGS), draw(STRINGS), draw(STRINGS)
    return EventColumns(
        kinds=kinds,
        items=items,
        users=users,
        kind=_column(draw, n, st.integers(0, len(kinds) - 1), np.uint16),
        item=_column(draw, n, st.integers(0, len(items) - 1), np.uint32),
        user=_column(draw, n, st.integers(0, len(users) - 1), np.uint32),
        weight=_column(draw, n, draw(COLUMN), np.int64),
        ts_ms=_column(draw, n, draw(COLUMN), np.int64),
        request_ids=draw(st.none() | st.lists(st.text(max_size=5), min_size=n, max_size=n)),
        contexts=draw(st.none() | st.lists(st.binary(max_size=5), min_size=n, max_size=n)),
    )


@st.composite
def rekeyed_columns(draw: Callable[..., Any]) -> RekeyedColumns:
    n = draw(st.integers(0, 12))
    items, profiles, kinds = draw(STRINGS), draw(STRINGS), draw(STRINGS)
    return RekeyedColumns(
        items=items,
        profiles=profiles,
        kinds=kinds,
        source_partition=_column(draw, n, st.integers(0, 65_535), np.uint16),
        offset=_column(draw, n, draw(COLUMN), np.int64),
        item=_column(draw, n, st.integers(0, len(items) - 1), np.uint32),
        profile=_column(draw, n, st.integers(0, len(profiles) - 1), np.uint32),
        kind=_column(draw, n, st.integers(0, len(kinds) - 1), np.uint16),
        user=_column(draw, n, st.integers(0, 2**64 - 1), np.uint64),
        weight=_column(draw, n, draw(COLUMN), np.int64),
        ts_ms=_column(draw, n, draw(COLUMN), np.int64),
        record_ts_ms=_column(draw, n, draw(COLUMN), np.int64),
        through=draw(st.dictionaries(st.integers(0, 65_535), I64, max_size=4)),
    )


def _plain(columns: EventColumns | RekeyedColumns) -> dict[str, Any]:
    values = {field.name: getattr(columns, field.name) for field in dataclasses.fields(columns)}
    return {
        name: (value.dtype, value.tolist()) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }


@given(event_columns())
def test_events_come_back_whole(columns: EventColumns) -> None:
    assert _plain(decode_columnar(encode_columnar(columns))) == _plain(columns)


@given(rekeyed_columns())
def test_rekeyed_entries_come_back_whole(columns: RekeyedColumns) -> None:
    assert _plain(decode_rekeyed(encode_rekeyed(columns))) == _plain(columns)


@given(event_columns(), st.data())
def test_a_cut_or_flipped_record_is_refused(columns: EventColumns, data: st.DataObject) -> None:
    value = encode_columnar(columns)
    cut = value[: data.draw(st.integers(0, len(value) - 1))]
    with pytest.raises(RecordError):
        decode_columnar(cut)
    at, bit = data.draw(st.integers(0, len(value) - 1)), data.draw(st.integers(0, 7))
    flipped = value[:at] + bytes((value[at] ^ (1 << bit),)) + value[at + 1 :]
    with pytest.raises(RecordError):
        decode_columnar(flipped)


@given(event_columns() | rekeyed_columns(), st.data())
def test_damage_under_a_valid_checksum_is_refused_or_safe_to_index(
    columns: EventColumns | RekeyedColumns, data: st.DataObject
) -> None:
    """A writer with a fault signs what it writes: every length and index is checked for itself."""
    events = isinstance(columns, EventColumns)
    value = encode_columnar(columns) if isinstance(columns, EventColumns) else encode_rekeyed(columns)
    content = bytearray(value[HEADER_BYTES + 4 :])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    damaged = frame(MAGIC_EVENTS if events else MAGIC_REKEYED, VERSION, bytes(content))
    try:
        decoded = decode_columnar(damaged) if events else decode_rekeyed(damaged)
    except RecordError:
        return
    assert all(decoded.items[index] is not None for index in decoded.item.tolist())
    assert all(decoded.kinds[index] is not None for index in decoded.kind.tolist())


@given(st.binary(max_size=80))
def test_noise_is_refused(noise: bytes) -> None:
    for decode in (decode_columnar, decode_rekeyed):
        for value in (noise, MAGIC_EVENTS + noise, MAGIC_REKEYED + bytes((VERSION,)) + noise):
            with pytest.raises(RecordError):
                decode(value)
