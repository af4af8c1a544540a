"""Records of events: every way in which one is refused, with its code, its place and its own bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from schemas.default import default_schema
from schemas.errors import RecordError
from schemas.loading import load_schema
from schemas.records.columnar import decode_columnar, encode_columnar
from schemas.records.columns import EventColumns
from schemas.records.decode import Decoded, decode_records
from schemas.records.profile_record import (
    PROFILE_HEADERS,
    PROFILE_TYPE,
    ProfileRecord,
    decode_profile_record,
    encode_profile_record,
    record_type,
)

SCHEMA = default_schema()
NOW = 1_763_600_000_000
GOOD = {"kind": "view", "item": "i", "user": "u", "weight": 2.5, "ts": NOW - 5}


def decode(*values: bytes) -> Decoded:
    return decode_records(values, np.full(len(values), NOW, dtype=np.int64), SCHEMA)


def event(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def batch(n: int = 3) -> EventColumns:
    rows = np.arange(n)
    return EventColumns(
        kinds=["view"],
        items=[f"i{row}" for row in range(n)],
        users=["u"],
        kind=np.zeros(n, dtype=np.uint16),
        item=rows.astype(np.uint32),
        user=np.zeros(n, dtype=np.uint32),
        weight=np.full(n, 1_000_000, dtype=np.int64),
        ts_ms=NOW + rows,
    )


def test_an_event_and_its_defaults() -> None:
    columns = decode(event(), b'{"kind":"like","item":"i"}', event(user=""), event(user=None)).columns
    assert columns.kinds == ["view", "like"]
    assert [columns.users[user] for user in columns.user] == ["u", "", "", ""]
    assert columns.weight.tolist() == [2_500_000, 1_000_000, 2_500_000, 2_500_000]
    assert columns.ts_ms.tolist() == [NOW - 5, NOW, NOW - 5, NOW - 5]
    assert columns.request_ids is None
    assert columns.contexts is None
    dtypes = [column.dtype for column in (columns.kind, columns.item, columns.user, columns.weight)]
    assert dtypes == [np.uint16, np.uint32, np.uint32, np.int64]


def test_request_ids_and_contexts_are_kept_as_they_came() -> None:
    columns = decode(event(request_id="r1", context={"page": 2}), event(), event(context=None)).columns
    assert columns.request_ids == ["r1", "", ""]
    assert columns.contexts == [b'{"page": 2}', b"", b""]


@pytest.mark.parametrize(
    "value, code, path",
    [
        (b"", "malformed_json", ""),
        (b"{", "malformed_json", ""),
        (b'{"kind":"view","item":"\xff"}', "malformed_json", ""),
        (b'{"kind":"view","item":"\\ud800"}', "malformed_json", ""),
        (b'{"kind":"view","item":"i","x":' + b"[" * 5_000, "malformed_json", ""),
        (b"{}{}", "malformed_json", ""),
        (b"7", "wrong_type", ""),
        (b'{"item":"i"}', "missing_field", "kind"),
        (b'{"kind":"view"}', "missing_field", "item"),
        (event(kind=None), "wrong_type", "kind"),
        (event(item=7), "wrong_type", "item"),
        (event(user=7), "wrong_type", "user"),
        (event(weight=True), "wrong_type", "weight"),
        (event(weight="1"), "wrong_type", "weight"),
        (event(ts=1.5), "wrong_type", "ts"),
        (event(ts="now"), "wrong_type", "ts"),
        (event(request_id=1), "wrong_type", "request_id"),
        (event(weight=float("nan")), "non_finite_weight", "weight"),
        (event(weight=float("inf")), "non_finite_weight", "weight"),
        (event().replace(b"2.5", b"1e999"), "non_finite_weight", "weight"),
        (event(context=float("nan")), "malformed_json", ""),
        (event(weight=1_000_001), "weight_out_of_range", "weight"),
        (event(weight=-1e300), "weight_out_of_range", "weight"),
        (event(kind="vew"), "unknown_kind", "kind"),
        (event(kind=""), "unknown_kind", "kind"),
        (event(item=""), "id_empty", "item"),
        (event(item="x" * 257), "id_too_long", "item"),
        (event(user="é" * 129), "id_too_long", "user"),
        (event(ts=NOW + 3_600_000), "timestamp_in_future", "ts"),
        (event(ts=10**30), "timestamp_in_future", "ts"),
        (event(ts=-1), "timestamp_out_of_range", "ts"),
        (b"TDL", "truncated_batch", ""),
        (b"TDX" + bytes(40), "unsupported_version", ""),
    ],
)
def test_a_bad_record_is_refused_and_the_others_go_on(value: bytes, code: str, path: str) -> None:
    decoded = decode(event(), value, event())
    assert decoded.record.tolist() == [0, 2]
    (reject,) = decoded.rejects
    assert (reject.record, reject.event, reject.raw) == (1, None, value)
    assert (reject.error.code, reject.error.path) == (code, path)
    assert reject.error.message


def test_limits_are_met_exactly() -> None:
    first_ms = default_schema().limits.ts_ms_min
    values = (event(item="x" * 256), event(ts=NOW + 300_000), event(weight=-1_000_000), event(ts=first_ms))
    assert decode(*values).rejects == []
    assert [reject.error.code for reject in decode(event(ts=first_ms - 1)).rejects] == [
        "timestamp_out_of_range"
    ]


def test_a_bad_event_in_an_array_does_not_spoil_the_others() -> None:
    value = b'[{"kind":"view","item":"a"}, {"kind":"vew","item":"b"}, 7, {"kind":"view", "item":"d"}]'
    decoded = decode(value)
    assert [decoded.columns.items[item] for item in decoded.columns.item] == ["a", "d"]
    assert [(reject.event, reject.error.code, reject.raw) for reject in decoded.rejects] == [
        (1, "unknown_kind", b'{"kind":"vew","item":"b"}'),
        (2, "wrong_type", b"7"),
    ]


@pytest.mark.parametrize("value", [b'[{"kind":"view","item":"a"},', b"[1", b'[{"kind":"view","item":"a"}] x'])
def test_an_array_that_is_no_json_is_refused_whole(value: bytes) -> None:
    decoded = decode(value)
    assert len(decoded.columns) == 0
    assert [(reject.event, reject.raw) for reject in decoded.rejects] == [(None, value)]


def test_an_empty_array_holds_nothing_and_is_no_fault() -> None:
    decoded = decode(b"[]", b" [ ] ")
    assert len(decoded.columns) == 0
    assert decoded.rejects == []


def test_events_keep_the_order_of_the_log_in_mixed_forms() -> None:
    value = encode_columnar(batch(2))
    decoded = decode(event(item="a"), value, b'[{"kind":"view","item":"b"}]', b"  " + event(item="c"), value)
    items = [decoded.columns.items[item] for item in decoded.columns.item]
    assert items == ["a", "i0", "i1", "b", "c", "i0", "i1"]
    assert decoded.record.tolist() == [0, 1, 1, 2, 3, 4, 4]
    assert len(set(decoded.columns.items)) == len(decoded.columns.items)


def test_dictionaries_hold_nothing_of_what_was_refused() -> None:
    columns = decode(event(), event(kind="vew"), event(item="x" * 300), event(user="y" * 300)).columns
    assert (columns.kinds, columns.items, columns.users) == (["view"], ["i"], ["u"])


def test_an_event_of_a_batch_is_refused_as_a_batch_of_its_own() -> None:
    columns = batch()
    columns.items[1] = "x" * 300
    decoded = decode(encode_columnar(columns))
    assert decoded.columns.items == ["i0", "i2"]
    (reject,) = decoded.rejects
    assert (reject.event, reject.error.code) == (1, "id_too_long")
    assert decode_columnar(reject.raw).items == ["x" * 300]


def test_weights_of_a_batch_are_bounded_too() -> None:
    columns = batch()
    columns.weight = np.array([10**12, 10**12 + 1, -(2**63)], dtype=np.int64)
    codes = [(reject.event, reject.error.code) for reject in decode(encode_columnar(columns)).rejects]
    assert codes == [(1, "weight_out_of_range"), (2, "weight_out_of_range")]


def test_a_signals_own_range_is_a_bound() -> None:
    schema = load_schema("signals: {rate: {value_range: [1, 5]}}")
    values = [event(kind="rate", weight=weight) for weight in (0.5, 1, 5, 5.000001)] + [event(weight=9)]
    decoded = decode_records(values, np.full(5, NOW), schema)
    assert decoded.record.tolist() == [1, 2, 4]


def test_a_damaged_batch_is_refused_whole_with_its_reason() -> None:
    value = encode_columnar(batch())
    damaged = {
        "truncated_batch": value[:-3],
        "checksum_mismatch": value[:-1] + bytes((value[-1] ^ 1,)),
        "unsupported_version": b"TDL\x09" + value[4:],
    }
    for code, bad in damaged.items():
        (reject,) = decode(bad).rejects
        assert (reject.error.code, reject.event, reject.raw) == (code, None, bad)


def test_a_batch_of_everyday_events_is_compact() -> None:
    assert len(encode_columnar(batch(100))) < 100 * (
        4 + 3 + 3
    )  # ids of 3 to 4 bytes with their end, and columns


def test_a_profile_record_comes_back_and_is_known_by_its_header() -> None:
    record = ProfileRecord(user="u", profile={"locale": "US", "age": "18-24"}, source=(3, 17))
    assert decode_profile_record(encode_profile_record(record)) == record
    assert json.loads(encode_profile_record(record)) == {
        "user": "u",
        "profile": {"locale": "US", "age": "18-24"},
        "source": [3, 17],
    }
    assert record.profile_string == '{"age":"18-24","locale":"US"}'
    assert record_type(PROFILE_HEADERS) == PROFILE_TYPE
    assert record_type(None) == record_type([("trace", b"x")]) == b""
    with pytest.raises(RecordError, match="malformed_json"):
        decode_profile_record(b'{"user": 1}')
