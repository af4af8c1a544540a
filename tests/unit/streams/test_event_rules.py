"""What `publish` refuses, and which field it names."""

from __future__ import annotations

import math
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from schemas.default import default_schema
from schemas.errors import RecordError
from schemas.records.columns import EventColumns
from schemas.settings import ProducerSettings
from streams.pending_event import EventRules, PendingEvent, columns_of
from streams.positions import Position
from streams.producer_requests import Requests

NOW_MS = 1_760_000_000_000
GOOD: dict[str, Any] = {
    "kind": "view",
    "item": "item_1",
    "user": "user_1",
    "weight": 1.0,
    "ts": NOW_MS,
    "request_id": None,
    "context": None,
}


def accept(rules: EventRules | None = None, **changes: Any) -> PendingEvent:
    """A good event with changes."""
    rules = rules or EventRules(None, 1_000_000)
    future: Future[Position] = Future()
    return rules.accept(**{**GOOD, **changes}, now_ms=NOW_MS, accepted_s=0.0, future=future)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("kind", "", "id_empty"),
        ("kind", None, "wrong_type"),
        ("item", "", "id_empty"),
        ("item", 7, "wrong_type"),
        ("item", "i" * 257, "id_too_long"),
        ("item", "é" * 129, "id_too_long"),
        ("item", "\ud800", "wrong_type"),
        ("user", "u" * 300, "id_too_long"),
        ("user", "", "id_empty"),
        ("request_id", "r" * 257, "id_too_long"),
        ("weight", math.nan, "non_finite_weight"),
        ("weight", math.inf, "non_finite_weight"),
        ("weight", 1e6 + 1, "weight_out_of_range"),
        ("weight", "1", "wrong_type"),
        ("weight", True, "wrong_type"),
        ("ts", NOW_MS + 3_600_000, "timestamp_in_future"),
        ("ts", -1, "timestamp_out_of_range"),
        ("ts", 1.5, "wrong_type"),
        ("context", [1], "wrong_type"),
        ("context", {"x": object()}, "wrong_type"),
        ("context", {"x": "y" * 600_000}, "wrong_type"),
    ],
)
def test_a_bad_field_is_named_with_its_code(field: str, value: object, code: str) -> None:
    """The caller gets at once what would else be a dead letter."""
    with pytest.raises(RecordError) as raised:
        accept(**{field: value})
    assert (raised.value.path, raised.value.code) == (field, code)


@pytest.mark.parametrize(
    ("field", "value"),
    [("item", "i" * 256), ("item", "é" * 128), ("user", None), ("weight", -1e6), ("ts", NOW_MS + 300_000)],
)
def test_the_bounds_themselves_are_accepted(field: str, value: object) -> None:
    """Inclusive on both ends."""
    accept(**{field: value})


def test_a_schema_adds_its_kinds_and_weight_ranges() -> None:
    """Without one, the reader's schema decides."""
    rules = EventRules(default_schema(), 1_000_000)
    accept(rules)
    with pytest.raises(RecordError, match="'viev' is no signal of the schema: view") as raised:
        accept(rules, kind="viev")
    assert raised.value.code == "unknown_kind"
    ranged = next((s for s in default_schema().signal_list if s.value_range is not None), None)
    if ranged is not None:
        assert ranged.value_range is not None
        with pytest.raises(RecordError) as raised:
            accept(rules, kind=ranged.name, weight=ranged.value_range[1] + 1)
        assert raised.value.code == "weight_out_of_range"


def test_defaults_are_filled_in() -> None:
    """An anonymous event is partitioned by its item; the time is now; the weight is fixed point."""
    event = accept(user=None, ts=None, weight=0.25)
    assert (event.user, event.key, event.ts_ms, event.weight_micro) == ("", "item_1", NOW_MS, 250_000)


def test_events_become_columns_with_each_text_once() -> None:
    """Optional columns only where an event has one."""
    events = [accept(item=f"item_{n % 2}", weight=n) for n in range(4)]
    columns = columns_of(events)
    assert columns.items == ["item_0", "item_1"]
    assert columns.item.tolist() == [0, 1, 0, 1]
    assert columns.weight.tolist() == [0, 1_000_000, 2_000_000, 3_000_000]
    assert (columns.request_ids, columns.contexts) == (None, None)
    columns = columns_of([*events, accept(request_id="r", context={"page": 1})])
    assert columns.request_ids == ["", "", "", "", "r"]
    assert columns.contexts == [b"", b"", b"", b"", b'{"page":1}']


def good_columns(**changes: Any) -> EventColumns:
    """Two good events."""
    fields: dict[str, Any] = {
        "kinds": ["view"],
        "items": ["a", "b"],
        "users": ["u", ""],
        "kind": np.zeros(2, np.uint16),
        "item": np.arange(2, dtype=np.uint32),
        "user": np.arange(2, dtype=np.uint32),
        "weight": np.full(2, 1_000_000, np.int64),
        "ts_ms": np.full(2, NOW_MS, np.int64),
    }
    return EventColumns(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "path", "code"),
    [
        ({"kinds": [""]}, "kind", "id_empty"),
        ({"items": ["a", ""]}, "item", "id_empty"),
        ({"users": ["u", "x" * 257]}, "user", "id_too_long"),
        ({"weight": np.array([0, 10**12 + 1], np.int64)}, "weight", "weight_out_of_range"),
        ({"weight": np.array([-(2**63), 0], np.int64)}, "weight", "weight_out_of_range"),
        ({"ts_ms": np.array([NOW_MS, -1], np.int64)}, "ts", "timestamp_out_of_range"),
        ({"ts_ms": np.array([NOW_MS, NOW_MS + 10**7], np.int64)}, "ts", "timestamp_in_future"),
    ],
)
def test_columns_obey_the_same_rules(changes: dict[str, Any], path: str, code: str) -> None:
    """Checked by dictionary and by extremes, not event by event."""
    with pytest.raises(RecordError) as raised:
        EventRules(None, 1_000_000).check_columns(good_columns(**changes), NOW_MS)
    assert (raised.value.path, raised.value.code) == (path, code)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weight": np.zeros(3, np.int64)}, "weight has 3 entries, kind has 2"),
        ({"item": np.array([0, 2], np.uint32)}, "item has index 2, its dictionary 2 entries"),
        ({"contexts": [b""]}, "contexts has 1 entries, kind has 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, Any], says: str) -> None:
    """Not a record's fault but a programmer's: ValueError."""
    with pytest.raises(ValueError, match=says):
        EventRules(None, 1_000_000).check_columns(good_columns(**changes), NOW_MS)


def test_good_columns_pass() -> None:
    """Empty ones too."""
    rules = EventRules(None, 1_000_000)
    rules.check_columns(good_columns(), NOW_MS)
    rules.check_columns(good_columns().take(np.empty(0, np.int64)), NOW_MS)


def requests(with_schema: bool) -> Requests:
    """The checks of a producer."""
    return Requests(ProducerSettings(), default_schema() if with_schema else None)


@pytest.mark.parametrize(
    ("kind", "id_", "record", "path"),
    [
        ("film", "a", {}, "kind"),
        ("item", "", {}, "id"),
        ("item", "a", {"id": "b"}, "id"),
        ("item", "a", {"embeddings": {"content": [0.1, math.nan]}}, "embeddings.content"),
        ("item", "a", {"embeddings": {"content": np.array([math.inf])}}, "embeddings.content"),
        ("item", "a", {"title": object()}, ""),
        ("item", "a", {"title": "t" * 1_000_001}, ""),
    ],
)
def test_entity_records_are_checked(kind: str, id_: str, record: dict[str, Any], path: str) -> None:
    """Numbers that JSON lacks are refused, where the encoder would write null."""
    with pytest.raises(RecordError) as raised:
        requests(with_schema=False).entity(kind, id_, record, Future())
    assert raised.value.path.startswith(path)


def test_with_a_schema_records_are_checked_as_their_readers_do() -> None:
    """An embedding of the wrong size, an edge of an unknown type."""
    with pytest.raises(RecordError) as raised:
        requests(with_schema=True).entity("item", "a", {"embeddings": {"content": [1.0]}}, Future())
    assert raised.value.code == "embedding_dimension"
    with pytest.raises(RecordError):
        requests(with_schema=True).relationship("folows", "a", "b", {}, Future())


def test_an_entity_record_carries_its_id_and_arrays() -> None:
    """numpy arrays are written as lists; None is a delete."""
    made = requests(with_schema=False).entity("item", "a", {"e": np.array([1.0, 2.0], np.float32)}, Future())
    assert (made.topic, made.key, made.value) == ("tidal.items", b"a", b'{"id":"a","e":[1.0,2.0]}')
    assert requests(with_schema=False).entity("user", "u", None, Future()).value is None


def test_an_edge_lies_with_its_source_and_its_key_names_all_three() -> None:
    """So compaction keeps one record for each edge, and one partition has all edges of a source."""
    made = requests(with_schema=False).relationship("follows", "u", "c", {"weight": 2}, Future())
    assert (made.topic, made.partition_key) == ("tidal.relationships", b"u")
    assert made.key == b'["follows","u","c"]'
    assert made.value == b'{"weight":2}'
