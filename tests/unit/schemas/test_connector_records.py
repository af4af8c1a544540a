"""Records as Kafka Connect and Debezium write them, byte for byte of the shapes in their documentation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.errors import RecordError
from schemas.loading import load_schema
from schemas.records.edge_key import parse_edge_key
from schemas.records.entities import EntityRecord, decode_edge, decode_entity, parse_entity_key

SCHEMA = load_schema(
    {
        "name": "connected",
        "entities": {
            "item": {
                "fields": {"title": "text", "tags": "tags", "price": "float", "created_at": "time"},
                "embeddings": {"look": {"dim": 2, "metric": "dot"}},
            }
        },
        "relationships": {"follows": {"explicit": True}},
    }
)
ROW = {"id": "film-7", "title": "Seven", "price": 2.5, "created_at": 1_763_600_000_000}
SOURCE = {
    "version": "2.7.0.Final",
    "connector": "postgresql",
    "name": "shop",
    "ts_ms": 1_763_600_000_500,
    "snapshot": "false",
    "db": "shop",
    "schema": "public",
    "table": "films",
    "txId": 781,
    "lsn": 34_512_440,
}


def _change(op: str, before: Any, after: Any) -> dict[str, Any]:
    return {
        "before": before,
        "after": after,
        "source": SOURCE,
        "transaction": None,
        "op": op,
        "ts_ms": 1_763_600_000_731,
        "ts_us": 1_763_600_000_731_104,
        "ts_ns": 1_763_600_000_731_104_000,
    }


def _schema_of(fields: list[dict[str, Any]]) -> dict[str, Any]:
    row = {"type": "struct", "fields": fields, "optional": True, "name": "shop.public.films.Value"}
    return {
        "type": "struct",
        "fields": [{**row, "field": "before"}, {**row, "field": "after"}, {"type": "string", "field": "op"}],
        "optional": False,
        "name": "shop.public.films.Envelope",
        "version": 2,
    }


def _decode(value: Any, key: bytes = b"film-7") -> EntityRecord | None:
    return decode_entity("item", key, json.dumps(value).encode(), SCHEMA, 1_763_600_000_000)


@pytest.mark.parametrize(
    "value",
    [
        ROW,
        {"schema": {"type": "struct", "fields": []}, "payload": ROW},
        {"schema": None, "payload": ROW},
        _change("c", None, ROW),
        _change("r", None, ROW),
        _change("u", {**ROW, "title": "Six"}, ROW),
        {"schema": _schema_of([]), "payload": _change("u", None, ROW)},
        {**ROW, "__deleted": "false"},
        {**ROW, "__op": "u", "__source_ts_ms": 1_763_600_000_500, "__table": "films"},
    ],
)
def test_every_envelope_holds_the_same_record(value: Any) -> None:
    found = _decode(value)
    assert found is not None
    assert found.fields == {key: ROW[key] for key in ("title", "price", "created_at")}
    assert json.loads(found.raw) == ROW
    again = decode_entity("item", b"film-7", found.raw, SCHEMA)
    assert again is not None
    assert again.fields == found.fields


@pytest.mark.parametrize(
    "value",
    [
        _change("d", ROW, None),
        {"schema": _schema_of([]), "payload": _change("d", ROW, None)},
        {"schema": {"type": "struct"}, "payload": None},
        {**ROW, "__deleted": "true"},
    ],
)
def test_every_form_of_a_delete_deletes(value: Any) -> None:
    assert _decode(value) is None


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (_change("t", None, None), "op"),
        (_change("u", ROW, None), "after"),
        ({"schema": {}, "payload": "text"}, "payload"),
        ({**ROW, "id": 7}, "id"),
    ],
)
def test_what_is_no_row_is_refused_by_name(value: Any, path: str) -> None:
    with pytest.raises(RecordError) as refused:
        _decode(value)
    assert refused.value.path == path


def test_columns_are_converted_by_the_schema_that_came_with_them() -> None:
    columns = [
        {"type": "int64", "name": "io.debezium.time.MicroTimestamp", "field": "created_at"},
        {"type": "string", "name": "io.debezium.data.Json", "field": "tags"},
        {"type": "string", "name": "io.debezium.data.Json", "field": "embeddings"},
    ]
    row = {
        "id": "film-7",
        "created_at": 1_763_600_000_000_123,
        "tags": '["noir", "city"]',
        "embeddings": '{"look": [1.5, -2]}',
    }
    found = _decode({"schema": _schema_of(columns), "payload": _change("c", None, row)})
    assert found is not None
    assert found.fields == {"created_at": 1_763_600_000_000, "tags": ["noir", "city"]}
    assert found.embeddings["look"].tolist() == [1.5, -2.0]


def test_an_item_may_have_fields_of_those_names() -> None:
    record = {"id": "film-7", "op": "remaster", "after": "1995", "payload": 3}
    found = _decode(record)
    assert found is not None
    assert found.fields == {key: record[key] for key in ("op", "after", "payload")}


@pytest.mark.parametrize(
    "key",
    [
        b"film-7",
        b'"film-7"',
        b'{"id":"film-7"}',
        b'{"schema":{"type":"string","optional":false},"payload":"film-7"}',
        b'{"schema":{"type":"struct","fields":[{"type":"string","field":"id"}]},"payload":{"id":"film-7"}}',
    ],
)
def test_every_key_states_the_same_id(key: bytes) -> None:
    assert parse_entity_key(key) == "film-7"


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (b'{"id":7}', "wrong_type"),
        (b'{"schema":{"type":"struct"},"payload":{"id":7}}', "wrong_type"),
        (b'{"film":"x"}', "missing_field"),
        (b'{"schema":{"type":"struct"},"payload":null}', "missing_field"),
    ],
)
def test_keys_without_a_text_are_refused(key: bytes, code: str) -> None:
    with pytest.raises(RecordError) as refused:
        parse_entity_key(key)
    assert refused.value.code == code


def test_text_that_only_looks_like_json_is_an_id() -> None:
    assert parse_entity_key(b"{7") == "{7"
    assert parse_entity_key(b"7") == "7"


def test_edges_come_from_a_table_too() -> None:
    key = b'{"schema":{"type":"struct"},"payload":{"type":"follows","from":"ann","to":"bob"}}'
    assert parse_edge_key(key) == ("follows", "ann", "bob")
    row = {"type": "follows", "from": "ann", "to": "bob", "weight": 2.0}
    edge = decode_edge(key, json.dumps(_change("c", None, row)).encode(), SCHEMA)
    assert edge is not None
    assert edge.weight == 2.0
    assert decode_edge(key, json.dumps(_change("d", row, None)).encode(), SCHEMA) is None
    with pytest.raises(RecordError):
        parse_edge_key(b'{"type":"follows","from":"ann"}')
