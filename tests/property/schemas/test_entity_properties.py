"""No entity record does anything but become typed fields or be refused with a code."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.default import default_schema
from schemas.errors import RECORD_CODES, RecordError
from schemas.model import EmbeddingSlot
from schemas.records.dead_letter import DeadLetter, Origin, letter_from_headers, letter_headers
from schemas.records.edge_key import edge_key, parse_edge_key
from schemas.records.entities import decode_edge, decode_entity, stored_vector

SCHEMA = default_schema()
NOW = 1_763_600_000_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    "id",
    "status",
    "creator",
    "embeddings",
    "title",
    "tags",
    "duration_s",
    "created_at",
    "age",
    "locale",
    "x",
]


@given(
    st.sampled_from(["item", "user", "creator"]),
    st.binary(max_size=6) | st.sampled_from([b"i", b'"i"', b'{"id":"i"}', b'{"payload":{"id":"i"}}', b"{"]),
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5).map(lambda fields: json.dumps(fields).encode())
    | st.binary(max_size=20)
    | st.none(),
)
def test_any_record_is_decoded_or_refused(kind: str, key: bytes, value: bytes | None) -> None:
    try:
        record = decode_entity(kind, key, value, SCHEMA, NOW)
    except RecordError:  # its code is one of RECORD_CODES, or its constructor would not have it
        return
    assert record is None or (record.raw == value and 1 <= len(record.id.encode()) <= 256)


@given(
    st.binary(max_size=12) | st.just(b'["follows","u","c"]'),
    JSON.map(lambda value: json.dumps(value).encode()),
)
def test_any_edge_is_decoded_or_refused(key: bytes, value: bytes) -> None:
    try:
        edge = decode_edge(key, value, SCHEMA)
    except RecordError:
        return
    assert edge is None or (edge.type, edge.source, edge.target) == parse_edge_key(key)


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=8), st.sampled_from(["cosine", "dot", "euclid"]))
def test_a_vector_is_stored_in_its_direction(values: list[float], metric: Any) -> None:
    slot = EmbeddingSlot(name="content", dim=len(values), metric=metric)
    exact = np.array(values, dtype=np.float64)
    norm = float(np.linalg.norm(exact))
    if metric != "cosine":
        assert stored_vector("content", values, slot).tolist() == exact.astype(np.float32).tolist()
    elif norm < 1e-30:
        with pytest.raises(RecordError, match="embedding_zero"):
            stored_vector("content", values, slot)
    else:
        stored = stored_vector("content", values, slot)
        np.testing.assert_allclose(stored, exact / norm, rtol=1e-6, atol=1e-7)
        assert abs(float(np.linalg.norm(stored)) - 1.0) < 1e-6


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)


@given(TEXT, TEXT, TEXT)
def test_an_edge_key_comes_back_whole(type_name: str, source: str, target: str) -> None:
    assert parse_edge_key(edge_key(type_name, source, target)) == (type_name, source, target)


@given(
    st.builds(
        DeadLetter,
        topic=TEXT,
        partition=st.integers(0, 100),
        offset=st.integers(0, 2**62),
        event=st.none() | st.integers(0, 1000),
        code=st.sampled_from(sorted(RECORD_CODES)),
        path=TEXT,
        reason=TEXT,
        first_seen_ms=st.integers(0, 2**53),
        first=st.none() | st.builds(Origin, st.just("tidal.signals"), st.integers(0, 9), st.integers(0, 99)),
        record_type=st.sampled_from(["", "profile"]),
    )
)
def test_a_dead_letter_comes_back_whole(letter: DeadLetter) -> None:
    assert letter_from_headers(letter_headers(letter)) == letter
