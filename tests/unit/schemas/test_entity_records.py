"""Records of items, users, creators and edges: types, limits, embeddings, keys, deletes, dead letters."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import pytest

from schemas.errors import RecordError
from schemas.loading import load_schema
from schemas.records.dead_letter import Origin, dead_letter, letter_from_headers, letter_headers
from schemas.records.edge_key import edge_key
from schemas.records.entities import EntityRecord, decode_edge, decode_entity

NOW = 1_763_600_000_000
SCHEMA = load_schema(
    """
    entities:
      item:
        fields:
          {title: text, tags: tags, category: keyword, n: int, duration_s: float, live: bool,
           created_at: time}
        embeddings: {content: {dim: 2}, raw: {dim: 2, metric: dot}}
    """
)
STRICT = load_schema("entities: {item: {fields: {title: text}, strict: true}}")


def item(key: bytes = b"i", **fields: object) -> EntityRecord:
    record = decode_entity("item", key, json.dumps(fields).encode(), SCHEMA, NOW)
    assert record is not None
    return record


def test_an_item_with_everything() -> None:
    record = item(
        id="i",
        creator="c",
        status="archived",
        title="A film",
        tags=["a", "b"],
        category="drama",
        n=3.0,
        duration_s=90,
        live=True,
        created_at="2025-11-20T00:53:20Z",
        year=1999,
        nothing=None,
        embeddings={"content": [3, 4], "raw": [3, 4], "other": [1]},
    )
    assert (record.kind, record.id, record.creator, record.status) == ("item", "i", "c", "archived")
    assert record.fields == {
        "title": "A film",
        "tags": ["a", "b"],
        "category": "drama",
        "n": 3,
        "duration_s": 90.0,
        "live": True,
        "created_at": NOW,
        "year": 1999,
    }
    assert set(record.embeddings) == {"content", "raw"}
    assert record.embeddings["content"].dtype == np.float32
    assert record.embeddings["content"].tolist() == pytest.approx([0.6, 0.8])
    assert record.embeddings["raw"].tolist() == [3.0, 4.0]
    assert json.loads(record.raw)["id"] == "i"


@pytest.mark.parametrize("value", [None, b"", b"null", b" null\n"])
def test_no_value_deletes(value: bytes | None) -> None:
    assert decode_entity("item", b"i", value, SCHEMA) is None
    assert decode_edge(edge_key("follows", "u", "c"), value, SCHEMA) is None


@pytest.mark.parametrize(
    "key, expected",
    [
        (b"i", "i"),
        (b'"i"', "i"),
        (b'{"id": "i"}', "i"),
        (b'{"schema": {}, "payload": {"id": "i"}}', "i"),
        (b'{"schema": {}, "payload": "i"}', "i"),
        (b'"quoted" and more', '"quoted" and more'),
        (b"{odd", "{odd"),
        ("日本".encode(), "日本"),
    ],
)
def test_keys_as_clients_and_connectors_write_them(key: bytes, expected: str) -> None:
    assert item(key).id == expected


@pytest.mark.parametrize(
    "fields, code, path",
    [
        ({"id": "other"}, "wrong_type", "id"),
        ({"status": "gone"}, "wrong_type", "status"),
        ({"creator": 7}, "wrong_type", "creator"),
        ({"creator": "c" * 257}, "id_too_long", "creator"),
        ({"title": 7}, "wrong_type", "title"),
        ({"tags": "a"}, "wrong_type", "tags"),
        ({"tags": ["a", 1]}, "wrong_type", "tags"),
        ({"category": ["a"]}, "wrong_type", "category"),
        ({"n": 1.5}, "wrong_type", "n"),
        ({"n": True}, "wrong_type", "n"),
        ({"n": 2**64}, "wrong_type", "n"),
        ({"duration_s": "1"}, "wrong_type", "duration_s"),
        ({"live": 1}, "wrong_type", "live"),
        ({"created_at": "yesterday"}, "wrong_type", "created_at"),
        ({"created_at": NOW + 2 * 86_400_000}, "created_at_in_future", "created_at"),
        ({"embeddings": []}, "wrong_type", "embeddings"),
        ({"embeddings": {"content": "x"}}, "wrong_type", "embeddings.content"),
        ({"embeddings": {"content": [1, True]}}, "wrong_type", "embeddings.content"),
        ({"embeddings": {"content": [1, 2, 3]}}, "embedding_dimension", "embeddings.content"),
        ({"embeddings": {"content": [1e300, 1]}}, "embedding_non_finite", "embeddings.content"),
        ({"embeddings": {"content": [10**400, 1]}}, "embedding_non_finite", "embeddings.content"),
        ({"embeddings": {"content": [float("nan"), 1]}}, "embedding_non_finite", "embeddings.content"),
        ({"embeddings": {"content": [0, 0]}}, "embedding_zero", "embeddings.content"),
    ],
)
def test_a_bad_field_is_refused_by_its_name(fields: dict[str, object], code: str, path: str) -> None:
    with pytest.raises(RecordError) as caught:
        item(**fields)
    assert (caught.value.code, caught.value.path) == (code, path)


@pytest.mark.parametrize(
    "key, value, code",
    [
        (b"", b"{}", "id_empty"),
        (b"x" * 257, b"{}", "id_too_long"),
        (b"\xff", b"{}", "wrong_type"),
        (b"i", b"[]", "wrong_type"),
        (b"i", b"{", "malformed_json"),
        (b"i", b'{"title": NaN}', "malformed_json"),
        (b"i", b'{"x":' * 5_000, "malformed_json"),
        (b"i", b'{"x": "' + b"y" * 300_000 + b'"}', "wrong_type"),
    ],
)
def test_a_record_that_is_none_is_refused(key: bytes, value: bytes, code: str) -> None:
    with pytest.raises(RecordError) as caught:
        decode_entity("item", key, value, SCHEMA, NOW)
    assert caught.value.code == code


def test_created_at_is_checked_against_the_records_own_time_alone() -> None:
    value = json.dumps({"created_at": NOW}).encode()
    assert decode_entity("item", b"i", value, SCHEMA, NOW - 86_400_000) is not None
    assert decode_entity("item", b"i", value, SCHEMA) is not None
    with pytest.raises(RecordError, match="created_at_in_future"):
        decode_entity("item", b"i", value, SCHEMA, NOW - 86_400_001)


def test_a_strict_schema_refuses_what_it_does_not_declare() -> None:
    for fields in ({"titel": "x"}, {"embeddings": {"contnet": [1]}}):
        with pytest.raises(RecordError, match="unknown_field"):
            decode_entity("item", b"i", json.dumps(fields).encode(), STRICT)
    with pytest.raises(RecordError, match="did you mean 'title'"):
        decode_entity("item", b"i", b'{"titel": "x"}', STRICT)


def test_a_user_gives_a_number_or_the_label_of_its_bucket() -> None:
    for age in (21, "18-24"):
        value = json.dumps({"id": "u", "age": age, "locale": "US"}).encode()
        record = decode_entity("user", b"u", value, SCHEMA)
        assert record is not None
        assert SCHEMA.profile_string(record.fields) == '{"age":"18-24","locale":"US"}'
    with pytest.raises(RecordError, match="age"):
        decode_entity("user", b"u", b'{"age": "18-25"}', SCHEMA)
    with pytest.raises(RecordError, match="id_too_long"):
        decode_entity("user", b"u", json.dumps({"locale": "x" * 300}).encode(), SCHEMA)


def test_an_edge_and_what_is_none() -> None:
    edge = decode_edge(edge_key("follows", "u", "c"), b'{"weight": 2, "ts": 5}', SCHEMA)
    assert edge is not None
    assert (edge.type, edge.source, edge.target, edge.weight, edge.ts_ms) == ("follows", "u", "c", 2.0, 5)
    plain = decode_edge(edge_key("blocks", "u", "c"), b"{}", SCHEMA)
    assert plain is not None
    assert (plain.weight, plain.ts_ms) == (1.0, None)
    for key, value, path in [
        (b"u", b"{}", "key"),
        (edge_key("folows", "u", "c"), b"{}", "type"),
        (edge_key("interaction_weight", "u", "c"), b"{}", "type"),
        (edge_key("follows", "", "c"), b"{}", "from"),
        (edge_key("follows", "u", "x" * 300), b"{}", "to"),
        (edge_key("follows", "u", "c"), b'{"weight": "1"}', "weight"),
        (edge_key("follows", "u", "c"), b"[]", ""),
    ]:
        with pytest.raises(RecordError) as caught:
            decode_edge(key, value, SCHEMA)
        assert caught.value.path == path


class Refused(NamedTuple):
    """A record as a reader of the log sees it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    headers: tuple[tuple[str, bytes], ...] = ()


def test_a_dead_letter_says_where_and_why() -> None:
    error = RecordError("wrong_type", "weight", "expected a number, got 'x'")
    letter = dead_letter(error, Refused("tidal.signals", 3, 42, NOW), event=1)
    headers = letter_headers(letter)
    assert dict(headers) == {
        "tidal-topic": b"tidal.signals",
        "tidal-partition": b"3",
        "tidal-offset": b"42",
        "tidal-event": b"1",
        "tidal-code": b"wrong_type",
        "tidal-path": b"weight",
        "tidal-reason": b"expected a number, got 'x'",
        "tidal-first-seen": str(NOW).encode(),
        "tidal-first": b"",
        "tidal-record-type": b"",
    }
    assert letter_from_headers([("trace", b"x"), *headers]) == letter
    with pytest.raises(RecordError, match="missing_field"):
        letter_from_headers(headers[1:])
    with pytest.raises(RecordError, match="wrong_type"):
        letter_from_headers([*headers[2:], ("tidal-topic", b"t"), ("tidal-partition", b"x")])


def test_a_letter_that_is_refused_again_names_what_was_refused_first() -> None:
    error = RecordError("unknown_kind", "kind", "no signal is called 'x'")
    first = dead_letter(error, Refused("tidal.signals", 3, 42, NOW), event=1)
    again = Refused("tidal.signals", 3, 50, NOW + 9, tuple(letter_headers(first)))
    second = dead_letter(error, again)
    assert (second.offset, second.first_seen_ms, second.root) == (
        50,
        NOW,
        Origin("tidal.signals", 3, 42, 1),
    )
    third = dead_letter(error, Refused("tidal.signals", 3, 60, NOW + 20, tuple(letter_headers(second))))
    assert third.root == first.root == Origin.parse("tidal.signals/3/42/1")


def test_one_event_of_a_record_that_was_refused_whole_has_an_identity_of_its_own() -> None:
    error = RecordError("malformed_json", "", "unexpected end")
    whole = dead_letter(error, Refused("tidal.signals", 3, 42, NOW))
    again = Refused("tidal.signals", 3, 50, NOW, tuple(letter_headers(whole)))
    assert [str(dead_letter(error, again, event=event).root) for event in (None, 0, 7)] == [
        "tidal.signals/3/42",
        "tidal.signals/3/42/0",
        "tidal.signals/3/42/7",
    ]


def test_an_event_of_a_batch_keeps_its_identity_when_its_bytes_are_a_batch_of_one() -> None:
    error = RecordError("unknown_kind", "kind", "no signal is called 'x'")
    first = dead_letter(error, Refused("tidal.signals", 3, 42, NOW), event=5)
    again = Refused("tidal.signals", 3, 50, NOW, tuple(letter_headers(first)))
    assert dead_letter(error, again, event=0).root == first.root


def test_a_letter_keeps_what_kind_of_record_it_was() -> None:
    error = RecordError("malformed_json", "", "unexpected end")
    record = Refused("tidal.signals", 0, 1, NOW, (("tidal-type", b"profile"),))
    assert letter_from_headers(letter_headers(dead_letter(error, record))).record_type == "profile"
