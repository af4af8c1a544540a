"""Corner cases of the preference update that random streams rarely meet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from materializers.rows.preference import Preference, decode_preference, preference_key
from materializers.views import preference
from materializers.views.preference import LONG_TERM, SHORT_TERM, VIEW, LearningRate
from schemas.ids import entity_id
from tests.oracle import Event, LogRecord, fold
from tests.view_harness import DIM, Partition, log_of, run, small_schema, with_cards

SCHEMA = small_schema()
START_MS = 1_763_600_000_000


def axis(number: int) -> list[float]:
    return [1.0 if position == number else 0.0 for position in range(DIM)]


ITEMS: dict[str, dict[str, object]] = {
    "x": {"embeddings": {"look": axis(0)}},
    "y": {"embeddings": {"look": axis(1)}},
    "bare": {"title": "no embedding"},
}


def event(offset: int, kind: str, item: str, weight: float = 1.0, user: str = "u") -> Event:
    at_ms = START_MS + 1000 * offset
    return Event(0, offset, at_ms, kind, item, user, round(weight * 1e6), at_ms)


def vectors(tmp_path: Path, events: list[Event]) -> Preference | None:
    partition = run(with_cards(Partition(SCHEMA), tmp_path, ITEMS), VIEW.build, "user_batch", [events])
    [value] = partition.rows.get_many("preference", [preference_key(entity_id("u"), "look")])
    return None if value is None else decode_preference(value)


def test_the_first_update_is_the_items_direction(tmp_path: Path) -> None:
    found = vectors(tmp_path, [event(0, "glance", "x")])
    assert found is not None
    assert found.long.tolist() == pytest.approx(axis(0))
    assert found.short.tolist() == pytest.approx(axis(0))


def test_a_negative_first_update_is_the_opposite_direction(tmp_path: Path) -> None:
    found = vectors(tmp_path, [event(0, "jeer", "x", 0.001)])
    assert found is not None
    assert found.long.tolist() == pytest.approx([-value for value in axis(0)])


def test_a_user_who_moved_nothing_has_no_vector(tmp_path: Path) -> None:
    assert vectors(tmp_path, [event(0, "stay", "x"), event(1, "glance", "bare")]) is None
    assert vectors(tmp_path / "zero", [event(0, "glance", "x", 0.0)]) is None
    assert vectors(tmp_path / "nobody", [event(0, "glance", "x", user="")]) is None


def test_what_cancels_leaves_the_vector_and_counts(tmp_path: Path) -> None:
    log = [event(0, "cheer", "x"), event(1, "jeer", "x", 2.5 / LONG_TERM.after(np.array([1]))[0])]
    found, expected = vectors(tmp_path, log), fold(log_of(log, ITEMS), SCHEMA).preference("u", "look")
    assert found is not None
    assert expected is not None
    assert found.updates == expected.updates == 2
    assert found.long.tolist() == pytest.approx(axis(0))
    assert found.long.tolist() == pytest.approx(expected.long, abs=1e-6)
    assert found.short.tolist() == pytest.approx(expected.short, abs=1e-6)


def test_the_rate_falls_with_updates_to_its_floor() -> None:
    rate = LearningRate(eta_0=1.0, eta_min=0.1, tau=10.0)
    assert rate.after(np.array([0, 10, 90, 1000])).tolist() == [1.0, 0.5, 0.1, 0.1]
    assert LONG_TERM.after(np.array([10_000])) < SHORT_TERM.after(np.array([10_000]))


def test_one_user_with_thousands_of_events_and_many_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preference, "_ROUND_BYTES_MAX", 300)  # a few users a pass
    log = [event(number, "glance", "xy"[number % 3 == 0]) for number in range(1500)]
    log += [event(1500 + number, "cheer", "y", user=f"v{number}") for number in range(40)]
    partition = run(with_cards(Partition(SCHEMA), tmp_path, ITEMS), VIEW.build, "user_batch", [log])
    oracle = fold(log_of(log, ITEMS), SCHEMA)
    for user in ("u", "v0", "v39"):
        [value] = partition.rows.get_many("preference", [preference_key(entity_id(user), "look")])
        assert value is not None
        found, expected = decode_preference(value), oracle.preference(user, "look")
        assert expected is not None
        assert found.updates == expected.updates
        assert found.long.tolist() == pytest.approx(expected.long, abs=1e-6)


def test_the_oracle_applies_waiting_events_where_their_item_became_visible() -> None:
    log = log_of([event(0, "cheer", "x"), event(1, "cheer", "y"), event(2, "jeer", "y")])
    log += [
        LogRecord("tidal.items", partition, 0, 0, name.encode(), json.dumps(document).encode())
        for partition, (name, document) in enumerate(ITEMS.items())
    ]
    early = fold(log, SCHEMA)
    late = fold(log, SCHEMA, card_positions={0: [(-1, {0: 0, 1: 1}), (1, {0: 1, 1: 1})]})
    assert [one.offset for one, _ in early._applied("u")] == [0, 1, 2]
    assert [one.offset for one, _ in late._applied("u")] == [1, 0, 2]
    assert early.preference("u", "look") != late.preference("u", "look")
