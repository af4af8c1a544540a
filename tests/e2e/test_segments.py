"""Segments from end to end: published events, and then every answer about a segment is that of a recount."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from schemas.loading import load_schema
from streams.positions import Position, Positions
from streams.topics import CREATORS, ITEMS, RELATIONSHIPS, SIGNALS, USERS
from tests.brokers import Broker
from tests.crash.load import Load
from tests.crash.log_reading import read_topics
from tests.crash.site import SCHEMA_FILE, Site
from tests.crash.traffic import Traffic
from tests.oracle import CleanFold, fold

PARTITIONS = 4
SEGMENTS = ("regulars", "music_fans", "lapsed", "dwellers")
COMPOSITES = {
    "regulars": lambda who: "regulars" in who,
    "music_fans OR dwellers": lambda who: "music_fans" in who or "dwellers" in who,
    "locale:US AND NOT lapsed": lambda who: who.get("locale") == "US" and "lapsed" not in who,
}
MINUTE_MS = 60_000


@pytest.fixture
def site(broker: Broker, tmp_path: Path) -> Iterator[Site]:
    found = Site(broker, tmp_path, PARTITIONS)
    found.create_topics()
    yield found
    found.close()


def _query(site: Site, text: str) -> list[str]:
    body = json.dumps({"query": text}).encode()
    request = urllib.request.Request(f"http://{site.http}/v1/query", body, method="POST")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as reply:
        return [result["id"] for result in json.loads(reply.read())["results"]]


def _members(site: Site, segment: str, users: list[str]) -> dict[str, int | None]:
    """By user in a segment the moment of leaving it, as each user's own read says."""
    found: dict[str, int | None] = {}
    for user in users:
        stays: dict[str, Any] = site.get(f"/v1/users/{user}/segments")
        found.update((user, stay["until"]) for stay in stays["segments"] if stay["name"] == segment)
    return found


def _recount(site: Site) -> CleanFold:
    log = read_topics(site.broker.bootstrap, [SIGNALS, ITEMS, USERS, CREATORS, RELATIONSHIPS])
    return fold(log, load_schema(SCHEMA_FILE), partitions=PARTITIONS)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_every_answer_about_a_segment_is_that_of_a_recount(site: Site) -> None:
    anchor_ms = int(time.time() * 1000)
    load = Load(11, anchor_ms, users=60, items=40, creators=8)
    traffic = Traffic(site.broker.bootstrap, chain(load.entities(), load.signals(3_000)), 2_000.0)
    site.start_worker("worker-0")
    site.start_queryd()
    site.wait_until_owned(PARTITIONS)
    traffic.start()
    traffic.finish()
    ends: dict[int, int] = {}
    for topic, partition, offset in traffic.acknowledged:
        if topic == SIGNALS:
            ends[partition] = max(ends.get(partition, 0), offset)
    after = Positions(tuple(Position(SIGNALS, *end) for end in ends.items())).encode()
    site.wait_until_queryd_answers(f"/v1/items/item_0/signals?after={after}")
    time.sleep(1.0)  # records of the engine's own follow the last event
    clean = _recount(site)

    users = clean.users()
    listed = {each["name"]: each["users"] for each in site.get("/v1/cohorts")["segments"]}
    for segment in SEGMENTS:
        before_ms = int(time.time() * 1000)
        until = _members(site, segment, users)
        # Whoever leaves or enters within a minute of now may have done so between two requests.
        steady = clean.segments.members(segment, before_ms) & clean.segments.members(
            segment, before_ms + MINUTE_MS
        )
        maybe = clean.segments.members(segment, before_ms) | clean.segments.members(
            segment, before_ms + MINUTE_MS
        )
        assert steady <= until.keys() <= maybe
        assert len(steady) <= listed[segment] <= len(maybe)
        assert len(steady) <= site.get(f"/v1/cohorts/size?cohort={segment}")["users"] <= len(maybe)
        for user, end_ms in until.items():
            if end_ms is not None:
                assert user in clean.segments.members(segment, end_ms - 1)
                assert user not in clean.segments.members(segment, end_ms)
    assert any(listed.values())

    for text, is_member in COMPOSITES.items():
        cohort = text.replace(" ", "%20")
        found = {
            item: site.get(f"/v1/items/{item}/signals?signal=view&cohort={cohort}")["all_time"]["count"]
            for item, signal in clean.cells()
            if signal == "view"
        }
        assert found == {item: clean.cohort_count(is_member, item, "view") for item in found}
        assert any(found.values())
        query = f"RETRIEVE items USING PROFILE trending COHORT {text} WINDOW 30d LIMIT 10"
        counts = [
            clean.cohort_count(is_member, item, "view", "30d", anchor_ms) for item in _query(site, query)
        ]
        assert counts == sorted(counts, reverse=True)
        assert counts
        assert counts[0] > 0
