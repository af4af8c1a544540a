"""The oracle itself, on logs small enough to count by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from schemas.records.rekeyed import RekeyedColumns, encode_rekeyed
from streams.partitioner import partition_for
from tests.oracle import LogRecord, fold
from tests.view_harness import small_schema

SCHEMA = small_schema()
START_MS = 1_763_600_400_000
HOUR_MS = 3_600_000


def signal(offset: int, value: object, *, partition: int = 0, at_ms: int = START_MS) -> LogRecord:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return LogRecord("tidal.signals", partition, offset, at_ms, None, body)


def cheer(user: str, item: str, ts_ms: int = START_MS, **more: object) -> dict[str, object]:
    return {"kind": "cheer", "item": item, "user": user, "ts": ts_ms, **more}


def test_counts_sums_windows_and_states() -> None:
    log = [
        signal(0, [cheer("u", "a"), cheer("u", "b", START_MS - 2 * HOUR_MS, weight=2.5)]),
        signal(1, cheer("v", "a", START_MS - 30 * HOUR_MS)),
        signal(2, {"kind": "jeer", "item": "b", "user": "u", "ts": START_MS}),
    ]
    oracle = fold(log, SCHEMA)
    assert oracle.count("a", "cheer") == 2
    assert oracle.count("a", "cheer", "24h", START_MS) == 1
    assert oracle.count("b", "cheer", "1h", START_MS) == 0
    assert oracle.sum("b", "cheer", "24h", START_MS) == 2_500_000
    assert oracle.previous_count("a", "cheer", "24h", START_MS) == 1
    assert oracle.state("u", "cheered") == {"a"}
    assert oracle.state("v", "cheered") == {"a"}
    assert oracle.decay("a", "cheer", 30 * HOUR_MS, START_MS) == pytest.approx(1.5)
    assert oracle.linear("a", "cheer", 60 * HOUR_MS, START_MS) == pytest.approx(1.5)


def test_duplicates_within_the_horizon_count_once() -> None:
    generation_ms = SCHEMA.limits.dedup_generation_ms
    again = cheer("u", "a", START_MS + 999 - START_MS % 1000)
    log = [
        signal(0, cheer("u", "a", START_MS - START_MS % 1000)),
        signal(1, again),
        signal(2, again, at_ms=START_MS + generation_ms),
        signal(3, again, at_ms=START_MS + 3 * generation_ms),
    ]
    oracle = fold(log, SCHEMA)
    assert oracle.count("a", "cheer") == 2
    assert oracle.duplicates == 2


def test_rejects_say_where_and_why() -> None:
    log = [
        signal(0, b"{not json"),
        signal(1, [cheer("u", "a"), {"kind": "unheard", "item": "a", "user": "u"}]),
        signal(2, cheer("u", "a", START_MS + HOUR_MS)),
    ]
    oracle = fold(log, SCHEMA)
    assert [(reject.offset, reject.event, reject.code) for reject in oracle.rejects] == [
        (0, None, "malformed_json"),
        (1, 1, "unknown_kind"),
        (2, None, "timestamp_in_future"),
    ]
    assert oracle.rejects_by_code() == {"malformed_json": 1, "unknown_kind": 1, "timestamp_in_future": 1}
    assert oracle.count("a", "cheer") == 1


def profile(offset: int, user: str, values: dict[str, str], source: int) -> LogRecord:
    body = json.dumps({"user": user, "profile": values, "source": [3, source]}).encode()
    return LogRecord("tidal.signals", 0, offset, START_MS, None, body, {"tidal-type": b"profile"})


def test_an_event_has_the_profile_of_its_place_in_the_log() -> None:
    log = [
        signal(0, cheer("u", "a")),
        profile(1, "u", {"locale": "US"}, source=10),
        signal(2, cheer("u", "b")),
        profile(3, "u", {"locale": "FR"}, source=9),
        signal(4, cheer("u", "c")),
        profile(5, "u", {"locale": "CA"}, source=11),
        signal(6, cheer("u", "d")),
        signal(7, cheer("", "e")),
    ]
    oracle = fold(log, SCHEMA)
    assert [json.loads(event.profile).get("locale") for event in oracle.events] == [
        None,
        "US",
        "US",
        "CA",
        None,
    ]
    in_us = oracle.cohort_count(lambda values: values.get("locale") == "US", "b", "cheer")
    assert (in_us, oracle.cohort_count(lambda values: True, "b", "cheer")) == (1, 1)


def rerouted(offset: int, partition: int, source: tuple[int, int]) -> LogRecord:
    entries = RekeyedColumns(
        items=["a"],
        profiles=["{}"],
        kinds=["cheer"],
        source_partition=np.array([source[0]], dtype=np.uint16),
        offset=np.array([source[1]]),
        item=np.zeros(1, dtype=np.uint32),
        profile=np.zeros(1, dtype=np.uint32),
        kind=np.zeros(1, dtype=np.uint16),
        user=np.zeros(1, dtype=np.uint64),
        weight=np.array([1_000_000]),
        ts_ms=np.array([START_MS]),
        record_ts_ms=np.array([START_MS]),
        through={source[0]: source[1]},
    )
    body, headers = encode_rekeyed(entries), {"tidal-type": b"rerouted"}
    return LogRecord("tidal.signals", partition, offset, START_MS, None, body, headers)


def test_an_event_on_a_wrong_partition_counts_once_where_it_was_re_routed() -> None:
    home = partition_for(b"u", 4)
    wrong = (home + 1) % 4
    log = [
        signal(0, cheer("u", "a"), partition=wrong),
        signal(0, cheer("u", "b"), partition=home),
        rerouted(1, home, (wrong, 0)),
        rerouted(2, home, (wrong, 0)),
    ]
    oracle = fold(log, SCHEMA, partitions=4)
    assert [(event.item, event.partition, event.offset) for event in oracle.events] == [
        ("b", home, 0),
        ("a", home, 1),
    ]
    assert oracle.misplaced == 1


def test_buckets_by_hour_and_profile() -> None:
    log = [
        signal(0, [cheer("u", "a"), cheer("v", "a", START_MS + 1), cheer("u", "a", START_MS - HOUR_MS)]),
    ]
    oracle = fold(log, SCHEMA)
    hour = START_MS // HOUR_MS * HOUR_MS
    assert oracle.buckets(HOUR_MS) == {
        ("a", "cheer", hour): (2, 2_000_000),
        ("a", "cheer", hour - HOUR_MS): (1, 1_000_000),
    }
    assert set(oracle.cohort_buckets(HOUR_MS)) == {
        ("a", "cheer", "{}", hour),
        ("a", "cheer", "{}", hour - HOUR_MS),
    }


def test_an_implicit_edge_is_clamped_and_fades() -> None:
    items = LogRecord("tidal.items", 0, 0, 0, b"a", b'{"creator": "c"}')
    log = [items] + [signal(at, cheer("u", "a", START_MS + 1000 * at)) for at in range(4)]
    edge = fold(log, SCHEMA).relationship("u", "bond", "c")
    assert edge is not None
    assert edge.weight == pytest.approx(1.0, abs=1e-4)
    assert edge.updated_ms == START_MS + 3000
    assert fold(log, SCHEMA).relationship("v", "bond", "c") is None
    sunk = [*log, signal(9, {"kind": "jeer", "item": "a", "user": "u", "ts": START_MS + 7 * 24 * HOUR_MS})]
    sunk[-1] = sunk[-1]._replace(timestamp_ms=START_MS + 7 * 24 * HOUR_MS)
    edge = fold(sunk, SCHEMA).relationship("u", "bond", "c")
    assert edge is not None
    assert edge.weight == pytest.approx(0.0, abs=1e-3)
