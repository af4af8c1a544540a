"""Decoding a batch in columns gives what reading each event by itself in plain Python gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.default import default_schema
from schemas.errors import RECORD_CODES
from schemas.records.columnar import encode_columnar
from schemas.records.columns import EventColumns
from schemas.records.decode import Decoded, decode_records

SCHEMA = default_schema()
NOW = 1_763_600_000_000
LONG = "x" * 300

GOOD_KIND = st.sampled_from(["view", "like", "skip"])
GOOD_ID = st.sampled_from(["a", "b", "item_1", "é", "x" * 256, "日" * 85])
EVENT = st.fixed_dictionaries(
    {"kind": GOOD_KIND | st.just("vew"), "item": GOOD_ID | st.sampled_from(["", LONG, "日" * 86])},
    optional={
        "user": st.none() | GOOD_ID | st.sampled_from(["", LONG]),
        "weight": st.integers(-5, 5) | st.floats(-1e7, 1e7) | st.sampled_from([True, "1", None]),
        "ts": st.integers(NOW - 10**9, NOW + 10**6) | st.sampled_from([-1, 10**30, 1.5, "now", None]),
        "extra": st.just([1, {"kind": "no"}]),
    },
)


def expected(event: dict[str, Any], record_ts: int) -> tuple[str, str, str, int, int] | str:
    """The event as (kind, item, user, micro weight, ts), or the code of its refusal."""
    user, weight, ts = event.get("user"), event.get("weight", 1.0), event.get("ts")
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        return "wrong_type"
    if ts is not None and not isinstance(ts, int):
        return "wrong_type"
    ts = record_ts if ts is None else ts
    if event["kind"] not in SCHEMA.signals:
        return "unknown_kind"
    if not event["item"]:
        return "id_empty"
    if len(event["item"].encode()) > 256 or len((user or "").encode()) > 256:
        return "id_too_long"
    if ts > record_ts + 300_000:
        return "timestamp_in_future"
    if ts < 0:
        return "timestamp_out_of_range"
    micro = round(weight * 1_000_000)  # to the even neighbour, as numpy rounds
    if abs(micro) > 10**12:
        return "weight_out_of_range"
    return event["kind"], event["item"], user or "", micro, ts


def accepted(decoded: Decoded) -> list[tuple[int, tuple[str, str, str, int, int]]]:
    columns = decoded.columns
    return [
        (
            int(decoded.record[row]),
            (
                columns.kinds[columns.kind[row]],
                columns.items[columns.item[row]],
                columns.users[columns.user[row]],
                int(columns.weight[row]),
                int(columns.ts_ms[row]),
            ),
        )
        for row in range(len(columns))
    ]


def columnar(events: list[dict[str, Any]], record_ts: int) -> bytes | None:
    """The events as a batch; None where one of them cannot be written as one."""
    rows = []
    for event in events:
        row = expected(event, record_ts)
        if row in ("wrong_type", "weight_out_of_range") or abs(event.get("ts") or 0) >= 2**63:
            return None
        ts = event.get("ts")
        weight = round(event.get("weight", 1.0) * 1_000_000)
        rows.append(
            (event["kind"], event["item"], event.get("user") or "", weight, record_ts if ts is None else ts)
        )
    index = np.arange(len(rows))
    return encode_columnar(
        EventColumns(
            kinds=[row[0] for row in rows],
            items=[row[1] for row in rows],
            users=[row[2] for row in rows],
            kind=index.astype(np.uint16),
            item=index.astype(np.uint32),
            user=index.astype(np.uint32),
            weight=np.array([row[3] for row in rows], dtype=np.int64),
            ts_ms=np.array([row[4] for row in rows], dtype=np.int64),
        )
    )


@st.composite
def records(draw: Callable[..., Any]) -> tuple[list[bytes], list[list[dict[str, Any]]], list[str]]:
    values, contents, forms = [], [], []
    for _ in range(draw(st.integers(0, 6))):
        events = draw(st.lists(EVENT, min_size=1, max_size=5))
        form = draw(st.sampled_from(["event", "array", "columnar", "spaced"]))
        batch = columnar(events, NOW) if form == "columnar" else None
        if batch is not None:
            values.append(batch)
        elif form == "array" or form == "columnar":
            form = "array"
            values.append(json.dumps(events).encode())
        else:
            events = events[:1]
            values.append((b" \n" if form == "spaced" else b"") + json.dumps(events[0]).encode())
        contents.append(events)
        forms.append(form)
    return values, contents, forms


@given(records())
def test_batches_of_all_forms_decode_as_their_events_one_by_one(
    batch: tuple[list[bytes], list[list[dict[str, Any]]], list[str]],
) -> None:
    values, contents, forms = batch
    decoded = decode_records(values, np.full(len(values), NOW, dtype=np.int64), SCHEMA)
    good, bad = [], []
    for record, (events, form) in enumerate(zip(contents, forms, strict=True)):
        for position, event in enumerate(events):
            row = expected(event, NOW)
            at = None if form in ("event", "spaced") else position
            if isinstance(row, str):
                bad.append((record, at, row))
            else:
                good.append((record, row))
    assert accepted(decoded) == good
    assert [(reject.record, reject.event, reject.error.code) for reject in decoded.rejects] == bad


@given(records())
def test_what_is_refused_is_refused_again_by_itself(
    batch: tuple[list[bytes], list[list[dict[str, Any]]], list[str]],
) -> None:
    """``raw`` of a reject can be published again as it is: it holds that event and no other."""
    values, _, _ = batch
    for reject in decode_records(values, np.full(len(values), NOW, dtype=np.int64), SCHEMA).rejects:
        again = decode_records([reject.raw], np.array([NOW]), SCHEMA)
        assert len(again.columns) == 0
        assert [other.error.code for other in again.rejects] == [reject.error.code]


@given(
    st.lists(
        st.binary(max_size=30) | st.sampled_from([b"", b"TDL", b"[", b"{", b"[[]]", b"null"]), max_size=5
    )
)
def test_noise_is_refused_record_by_record(values: list[bytes]) -> None:
    decoded = decode_records(values, np.full(len(values), NOW, dtype=np.int64), SCHEMA)
    assert len(decoded.columns) == 0
    whole = {reject.record for reject in decoded.rejects}
    empty_arrays = {row for row, value in enumerate(values) if value.strip() == b"[]"}
    assert whole | empty_arrays == set(range(len(values)))
    assert all(reject.error.code in RECORD_CODES for reject in decoded.rejects)
