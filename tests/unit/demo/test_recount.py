"""The recount on logs that are small enough to be counted by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from schemas.default import default_schema
from tidal.demo.history import HOUR_MS, History, window_bounds
from tidal.demo.raw_log import Event
from tidal.demo.recount import Recount, differences, from_zero, min_max, ranked

SCHEMA = default_schema()
NOW_MS = 480_000 * HOUR_MS + 10 * 60_000


def record(creator: str, title: str, vector: list[float]) -> dict[str, Any]:
    return {"creator": creator, "title": title, "created_at": NOW_MS, "embeddings": {"content": vector}}


ITEMS = {
    "a": record("c1", "Piano tutorial", [3.0, 4.0]),
    "b": record("c1", "Jazz", [1.0, 0.0]),
    "c": record("c2", "Bread", [0.0, 1.0]),
}
USERS = {"u1": {"locale": "US", "age": 20}, "u2": {"locale": "DE", "age": 50}}


def event(kind: str, item: str, user: str = "u1", age_ms: int = 1_000, weight: float = 1.0) -> Event:
    return Event(0, 0, kind, item, user, weight, NOW_MS - age_ms)


def history(*events: Event, items: dict[str, dict[str, Any]] = ITEMS) -> History:
    return History(SCHEMA, events, items=items, users=USERS, creators={})


def test_a_repetition_counts_once() -> None:
    told = history(event("view", "a"), event("view", "a"), event("view", "a", age_ms=9_000))
    assert (told.published, told.repeated) == (3, 1)
    assert told.counts("view", "24h", NOW_MS) == {"a": 2}


@pytest.mark.parametrize(
    ("window", "oldest_age_ms"),
    [("1h", 59 * 60_000), ("24h", 23 * HOUR_MS + 10 * 60_000), ("7d", 167 * HOUR_MS + 10 * 60_000)],
)
def test_a_window_holds_its_buckets_the_current_one_included(window: str, oldest_age_ms: int) -> None:
    low_ms, high_ms = window_bounds(window, NOW_MS)
    assert low_ms == NOW_MS - oldest_age_ms
    assert low_ms <= NOW_MS < high_ms


def test_counts_are_of_a_signal_a_window_and_some_users() -> None:
    told = history(
        event("view", "a"),
        event("like", "a"),
        event("view", "a", user="u2"),
        event("view", "a", age_ms=25 * HOUR_MS),
    )
    assert told.counts("view", "24h", NOW_MS) == {"a": 2}
    assert told.counts("view", "24h", NOW_MS, {"u2"}) == {"a": 1}
    assert told.counts("view", "all_time", NOW_MS) == {"a": 3}


def test_decay_halves_with_each_half_life() -> None:
    told = history(event("like", "a", age_ms=0), event("like", "a", age_ms=24 * HOUR_MS, weight=4.0))
    assert told.decayed("like", 24 * HOUR_MS, NOW_MS, ["a", "b"]) == {"a": pytest.approx(3.0), "b": 0.0}


def test_a_preference_turns_towards_what_is_liked() -> None:
    told = history(event("like", "b"), event("like", "c", age_ms=500))
    rate = 0.5 * max(0.05, 1.0 / (1 + 1 / 20))
    length = math.hypot(1.0, rate)
    assert told.preference("u1", "content") == pytest.approx([1 / length, rate / length])
    assert told.preference("u2", "content") is None


def test_an_edge_decays_between_its_signals() -> None:
    half_life_ms = 30 * 24 * HOUR_MS
    told = history(event("like", "a", age_ms=half_life_ms), event("view", "b", age_ms=0))
    assert told.relationship("u1", "interaction_weight")["c1"].weight == pytest.approx(0.15 / 2 + 0.02)


def test_trending_is_by_velocity_and_then_by_id() -> None:
    told = history(event("view", "c"), event("view", "b"), event("view", "a"), event("view", "a", "u2"))
    page = Recount(told, NOW_MS).trending("24h", 2)
    assert page == [("a", 2 / 86_400), ("b", 1 / 86_400)]


def test_an_item_without_a_record_or_no_longer_active_is_not_shown() -> None:
    items = {**ITEMS, "b": {**ITEMS["b"], "status": "archived"}}
    told = history(event("view", "a"), event("view", "b"), event("view", "unknown"), items=items)
    assert [id_ for id_, _ in Recount(told, NOW_MS).trending("24h", 10)] == ["a"]


def test_a_search_keeps_what_matches_and_trends() -> None:
    told = history(event("view", "a"), event("view", "b"))
    page = Recount(told, NOW_MS).search("piano", "24h", 10, {"u1"})
    assert page == [("a", 1 / 61 + 1 / 61)]
    assert Recount(told, NOW_MS).search("piano", "24h", 10, {"u2"}) == []


def test_a_personal_page_leaves_out_what_was_seen_and_demotes_beyond_the_limit() -> None:
    told = history(*(event("view", item, "u2", age_ms=age) for age, item in enumerate("abc")))
    page = Recount(told, NOW_MS).for_you("u1", "24h", 10, {"u2"}, max_per_creator=1)
    assert [id_ for id_, _ in page] == ["a", "c", "b"]
    seen = history(*(event("view", item, user) for item in "abc" for user in ("u2",)), event("view", "a"))
    assert {id_ for id_, _ in Recount(seen, NOW_MS).for_you("u1", "24h", 10, {"u2"}, 2)} == {"b", "c"}


def test_scaling() -> None:
    assert min_max({"a": 2.0, "b": 4.0, "c": 3.0}) == {"a": 0.0, "b": 1.0, "c": 0.5}
    assert min_max({"a": 2.0, "b": 2.0}) == {"a": 1.0, "b": 1.0}
    assert from_zero({"a": -4.0, "b": 2.0}) == {"a": -1.0, "b": 0.5}
    assert from_zero({"a": 0.0}) == {"a": 0.0}
    assert ranked({"b": 1.0, "a": 1.0, "c": 2.0}) == [("c", 2.0), ("a", 1.0), ("b", 1.0)]


PAGE = [("a", 3.0), ("b", 2.0), ("c", 1.0)]


def test_equal_pages_have_no_differences() -> None:
    assert differences(PAGE, PAGE, 0.0) == []
    assert differences([("a", 3.0 + 1e-9), ("b", 2.0), ("c", 1.0)], PAGE, 1e-6) == []


@pytest.mark.parametrize(
    "answered",
    [
        PAGE[:2],
        [("b", 2.0), ("a", 3.0), ("c", 1.0)],
        [("a", 3.0), ("x", 2.0), ("c", 1.0)],
        [("a", 3.0), ("b", 2.1), ("c", 1.0)],
        [],
    ],
)
def test_a_page_that_differs_is_noticed(answered: list[tuple[str, float]]) -> None:
    assert differences(answered, PAGE, 1e-6)


def test_items_may_change_places_only_where_scores_are_equal() -> None:
    tied = [("a", 2.0), ("b", 2.0), ("c", 1.0)]
    assert differences([("b", 2.0), ("a", 2.0), ("c", 1.0)], tied, 1e-6) == []
    assert differences([("c", 2.0), ("a", 2.0), ("b", 1.0)], tied, 1e-6)
