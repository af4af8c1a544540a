"""5,500 deterministic events over 10 items, 6 signals and 48 hours, read through HTTP, through every restart.

One of the signals, and the profile that ranks by its decay, exist in a YAML file and nowhere else.
"""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from schemas.loading import load_schema
from schemas.records.columns import EventColumns
from streams.producer import Producer
from tests.crash.site import Site
from tests.oracle import CleanFold, Event

PARTITIONS = 4
EVENTS, ITEMS, USERS = 5_500, 10, 97
HOUR_MS, MINUTE_MS = 3_600_000, 60_000
SPAN_MS = 48 * HOUR_MS
KINDS = ("view", "like", "skip", "share", "dwell_time", "applaud")
SCHEMA = """
name: golden
signals:
  applaud:
    category: positive
    decay: {exponential: [2h, 24h, 3d]}
    windows: [1h, 24h, 7d, all_time]
    state: applauded
states: [seen, liked, saved, hidden, completed, in_progress, reported, applauded]
profiles:
  most_applauded:
    signal: applaud
    window: 24h
    sources: [{source: trending, limit: 100}]
    terms: [{term: signal, signal: applaud, read: decay, half_life: 3d, weight: 1.0}]
    normalize: none
"""


@pytest.fixture
def site(site: Site, tmp_path: Path) -> Site:
    schema = tmp_path / "schema.yaml"
    schema.write_text(SCHEMA)
    site.use_schema(schema)
    return site


def golden(last_ms: int, count: int = EVENTS) -> list[Event]:
    """The same stream for the same ``last_ms``: every second of it holds at most one event."""
    events = []
    for number in range(count):
        kind = KINDS[number * 7 % 11 % 6]
        events.append(
            Event(
                partition=0,
                offset=number,
                record_ms=last_ms,
                kind=kind,
                item=f"item_{(number * number + number // 13) % ITEMS}",
                user=f"user_{number % USERS}",
                weight=(1 + number % 59) * 1_000_000 if kind == "dwell_time" else 1_000_000,
                ts_ms=last_ms - SPAN_MS + number * SPAN_MS // EVENTS,
            )
        )
    return events


def published(site: Site, events: list[Event]) -> None:
    items = sorted({event.item for event in events})
    users = sorted({event.user for event in events})
    columns = EventColumns(
        kinds=list(KINDS),
        items=items,
        users=users,
        kind=np.array([KINDS.index(event.kind) for event in events], dtype=np.uint16),
        item=np.array([items.index(event.item) for event in events], dtype=np.uint32),
        user=np.array([users.index(event.user) for event in events], dtype=np.uint32),
        weight=np.array([event.weight for event in events]),
        ts_ms=np.array([event.ts_ms for event in events]),
    )
    with Producer(site.broker.bootstrap) as producer:
        for item in items:
            producer.put_entity("item", item, {"title": item})
        producer.publish_columns(columns).result(30)


def folded(events: list[Event]) -> CleanFold:
    fold = CleanFold(load_schema(msgspec.yaml.decode(SCHEMA.encode())))
    for event in events:
        fold.accept(event)
    return fold


def until_counted(site: Site, fold: CleanFold) -> None:
    deadline_s = time.monotonic() + 60
    while True:
        found = {
            (item, kind): site.get(f"/v1/items/{item}/signals?signal={kind}")["all_time"]["count"]
            for item, kind in fold.cells()
            if known(site, item)
        }
        if found == {cell: fold.count(*cell) for cell in fold.cells()}:
            return
        assert time.monotonic() < deadline_s, f"{found}: {site.tail('worker-0')}"
        time.sleep(0.2)


def known(site: Site, item: str) -> bool:
    try:
        return bool(site.get(f"/v1/items/{item}/signals"))
    except urllib.error.HTTPError:
        return False


def check(site: Site, fold: CleanFold) -> None:
    """Every number of every ledger."""
    for item, kind in fold.cells():
        ledger = site.get(f"/v1/items/{item}/signals?signal={kind}")
        at_ms, micro = ledger["at"], 1_000_000
        assert ledger["all_time"]["count"] == fold.count(item, kind)
        assert ledger["all_time"]["sum"] == fold.sum(item, kind) / micro
        assert (ledger["resolution"], ledger["estimator"]) == ("exact", "exact")
        for name, window in ledger["windows"].items():
            count = fold.count(item, kind, name, at_ms)
            seconds = {"1h": 3_600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000}[name]
            before = fold.previous_count(item, kind, name, at_ms)
            assert window["count"] == count, (item, kind, name)
            assert window["sum"] == fold.sum(item, kind, name, at_ms) / micro
            assert window["velocity"] == pytest.approx(count / seconds, rel=1e-12)
            assert window["acceleration"] == pytest.approx((count - before) / seconds, rel=1e-9, abs=1e-15)
        half_lives = fold.schema.signals[kind].decay
        for name, half_life_ms in zip(half_lives.labels, half_lives.half_lives_ms, strict=True):
            assert ledger["decay"][name] == pytest.approx(
                fold.decay(item, kind, half_life_ms, at_ms), rel=1e-9
            )
        past_ms = at_ms - 20 * HOUR_MS
        then = site.get(f"/v1/items/{item}/signals?signal={kind}&at={past_ms}")
        end_ms = (past_ms // HOUR_MS + 1) * HOUR_MS
        past = [event for event in fold.events if (event.item, event.kind) == (item, kind)]
        assert then["all_time"]["count"] == sum(event.ts_ms < end_ms for event in past)
        assert then["windows"]["24h"]["count"] == fold.count(item, kind, "24h", past_ms)


def check_ranking(site: Site, fold: CleanFold) -> None:
    """A signal that no code knows is ranked by, as any other."""
    reply: Any = site.get("/v1/retrieve?using_profile=most_applauded&limit=20")
    scores = {result["id"]: result["score"] for result in reply["results"]}
    now_ms = int(time.time() * 1000)
    expected = {
        item: fold.decay(item, "applaud", 3 * 24 * HOUR_MS, now_ms)
        for item, kind in fold.cells()
        if kind == "applaud"
    }
    assert list(scores) == sorted(expected, key=lambda item: (-expected[item], item))
    for item, score in scores.items():
        assert score == pytest.approx(expected[item], rel=1e-3)  # some seconds have passed
    user = next(event.user for event in fold.events if event.kind == "applaud")
    assert site.get(f"/v1/users/{user}/state?state=applauded")["states"]["applauded"]["count"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_number_is_exact_before_a_restart_after_one_and_after_a_kill(site: Site) -> None:
    last_ms = int(time.time() * 1000) - MINUTE_MS
    events = golden(last_ms)
    early, rest = events[:4_000], events[4_000:]
    site.start_worker("worker-0")
    site.start_queryd()
    published(site, early)
    site.wait_until_queryd_serves()
    until_counted(site, folded(early))
    check(site, folded(early))

    site.stop("worker-0")
    published(site, rest[:1_000])
    site.start_worker("worker-0")
    fold = folded(events[:5_000])
    until_counted(site, fold)
    check(site, fold)

    published(site, rest[1_000:])
    site.kill("worker-0")
    site.start_worker("worker-0")
    fold = folded(events)
    until_counted(site, fold)
    check(site, fold)
    check_ranking(site, fold)

    site.kill("worker-0")
    site.wipe("worker-0")
    site.stop("queryd")
    site.start_worker("worker-0")
    site.wait_until_owned(PARTITIONS)
    site.start_queryd()
    site.wait_until_queryd_serves()
    until_counted(site, fold)
    check(site, fold)
