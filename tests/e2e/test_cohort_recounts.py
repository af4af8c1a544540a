"""Cohorts on a running site, counted anew from its log: after kills, after a rebuild, at past hours.

The site is the demo's. Its four reference queries are held against the demo's recount while nobody has
changed; then users change their attributes, events go on, and random cohorts are held against a plain fold of
the log, in which every event has the profile that its user had at that place. At last the schema gains a
dimension.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console

from schemas.default import default_schema
from streams.topics import CREATORS, ITEMS, SIGNALS, USERS
from tests.composites import Composite, random_composites
from tests.crash.log_reading import read_topics
from tests.e2e.killing import kill_worker_and_queryd
from tests.e2e.test_up import Site, command
from tests.oracle import fold
from tests.plain_recount import HOUR_MS, Counted, Recount, whole_answer
from tidal.client import Client
from tidal.demo.recount import Recount as DemoRecount
from tidal.demo.recount import differences
from tidal.demo.reference import (
    COHORT_TRENDING,
    REFERENCE_QUERIES,
    SEARCH,
    TRENDING,
    cohort_of,
)
from tidal.demo.run import ask, publish_site, read_history
from tidal.demo.site import SiteSize, anchor_now, make_site
from tidal.endpoints import Endpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

SIZE = SiteSize(users=400, creators=40, items=400, events=8_000)
PARTITIONS = 8
PAST_HOURS, COMPOSITES, WINDOWS = 50, 60, ("24h", "7d", "all_time")
VALUES = {
    "locale": ("US", "GB", "CA", "IN", "DE", "FR"),
    "gender": ("F", "M", "X"),
    "age": ("13-17", "18-24", "25-34", "35-44", "45-54", "55+"),
}
PLAN_SCHEMA = """
name: with_plans
entities:
  user:
    fields: {locale: keyword, language: keyword, age: int, gender: keyword, plan: keyword}
    dimensions:
      locale: {field: locale}
      language: {field: language}
      gender: {field: gender}
      plan: {field: plan}
      age:
        field: age
        buckets:
          13-17: [13, 17]
          18-24: [18, 24]
          25-34: [25, 34]
          35-44: [35, 44]
          45-54: [45, 54]
          55+: [55, null]
"""


class Running(NamedTuple):
    """The site, and where it is."""

    site: Site

    @property
    def endpoints(self) -> Endpoints:
        found = self.site.ready()
        return Endpoints(found["http"], found["brokers"], found["pids"])

    def client(self) -> Client:
        return Client(self.endpoints.http, timeout_s=60)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    site = Site(tmp_path_factory.mktemp("recounts") / "data")
    found = Running(site)
    try:
        with found.client() as client:
            made = make_site(3, anchor_now(), SIZE)
            publish_site(made, found.endpoints, client, Console(file=StringIO()))
        yield found
    finally:
        site.close()


def nothing(running: Running) -> None:
    """As it stands."""


def kill(running: Running) -> None:
    """SIGKILL for the worker and queryd."""
    kill_worker_and_queryd(running.site)


def rebuild(running: Running) -> None:
    """The view of cohorts, folded again from the log and swapped in."""
    outcome = command("rebuild", "cohort_signals", "--data", str(running.site.data))
    assert outcome.returncode == 0, outcome.stderr


FULL = "TIDAL_CRASH_FULL" in os.environ


@pytest.mark.parametrize("disturb", [nothing, kill, *([rebuild] if FULL else [])])
def test_the_reference_queries_equal_their_recount(
    running: Running, disturb: Callable[[Running], None]
) -> None:
    """All ranks, all scores; three of them as of fifty past hours as well."""
    disturb(running)
    history = read_history(running.endpoints.brokers)
    cohort = cohort_of(history)
    with running.client() as client:
        for query in REFERENCE_QUERIES:
            answer = ask(client, query)
            recounted = query.recount(DemoRecount(history, answer.asked_ms), cohort)
            assert len(recounted) >= 10, query.name
            assert differences(answer.page, recounted, query.tolerance) == [], query.name
        draw = random.Random(disturb.__name__)
        for _ in range(PAST_HOURS):
            at_ms = anchor_now() - draw.randrange(60 * HOUR_MS)
            query = draw.choice((TRENDING, COHORT_TRENDING, SEARCH))
            page = [(each.id, each.score) for each in client.query(f"{query.text} AS OF {at_ms}").results]
            recounted = query.recount(DemoRecount(history, at_ms), cohort)
            assert differences(page, recounted, query.tolerance) == [], (query.name, at_ms)


@pytest.fixture(scope="module")
def moved(running: Running) -> Running:
    """The site after every second user has changed, and events of all have gone on.

    Used by the tests below only: the demo's recount takes users as they are now.
    """
    draw = random.Random(8)
    with running.client() as client:
        users = read_history(running.endpoints.brokers).users
        items = sorted(read_history(running.endpoints.brokers).items)
        changed = [_moved(draw, user) for user in list(users.values())[::2]]
        for start in range(0, len(changed), 500):
            written = client.put_many("user", changed[start : start + 500])
            assert written.rejected == []
        client.user_state("u1", after=written)
        accepted = _send(client, draw, sorted(users), items, 3_000)
        client.user_state("u1", after=accepted)
    return running


def _moved(draw: random.Random, user: dict[str, Any]) -> dict[str, Any]:
    """The record with other attributes; one in five loses one, and is in no value of that dimension."""
    drawn = {name: draw.choice(VALUES[name]) for name in ("locale", "gender")}
    record = {**user, **drawn, "age": draw.randint(13, 70)}
    if draw.random() < 0.2:
        del record[draw.choice(("locale", "gender", "age"))]
    return record


def _send(client: Client, draw: random.Random, users: list[str], items: list[str], count: int) -> str:
    """Publish views of the last ten days; returns the position of the last array."""
    now_ms = time.time_ns() // 1_000_000
    position = ""
    for _ in range(0, count, 1_000):
        events = [
            {
                "kind": "view",
                "item": draw.choice(items[:60]),
                "user": draw.choice(users),
                "ts": now_ms - round(abs(draw.gauss(0, 3)) * 24 * HOUR_MS) - draw.randrange(HOUR_MS),
            }
            for _ in range(1_000)
        ]
        accepted = client.publish(events)
        assert accepted.accepted == len(events)
        position = accepted.position
    return position


def _recount(running: Running) -> Recount:
    """Views, each with the profile of its user at its place in the log."""
    records = read_topics(running.endpoints.brokers, [SIGNALS, USERS, ITEMS, CREATORS])
    events = fold(records, default_schema(), partitions=PARTITIONS).events
    return Recount(
        [Counted(event.kind, event.item, event.ts_ms, json.loads(event.profile)) for event in events], "view"
    )


@pytest.mark.parametrize("disturb", [nothing, rebuild, *([kill] if FULL else [])])
def test_random_cohorts_of_people_who_change_equal_a_fold_of_the_log(
    moved: Running, disturb: Callable[[Running], None]
) -> None:
    """Now, and as of fifty past hours, in every window; membership is that of the event's time."""
    disturb(moved)
    recount = _recount(moved)
    draw = random.Random(disturb.__name__)
    composites = random_composites(draw.randrange(1 << 30), VALUES, COMPOSITES)
    oldest_ms = recount.times_ms[0]
    asked: list[tuple[Composite, int | None]] = [(each, None) for each in composites]
    now_ms = time.time_ns() // 1_000_000
    asked += [(draw.choice(composites), draw.randrange(oldest_ms, now_ms)) for _ in range(PAST_HOURS)]
    with moved.client() as client:
        for composite, at_ms in asked:
            window = draw.choice(WINDOWS)
            answer, answered_ms = whole_answer(client, cohort=composite.text, window=window, as_of=at_ms)
            recounted = recount.trending(window, at_ms or answered_ms, composite.belongs)
            assert answer == recounted, (composite.text, window, at_ms)


def test_the_past_of_a_new_dimension_is_unknown(moved: Running, tmp_path: Path) -> None:
    """It matches nothing from before, whatever users are now; what comes later counts."""
    data = moved.site.data
    assert moved.site.end() == 0, moved.site.said()
    (data.parent / "plans.yaml").write_text(PLAN_SCHEMA)
    site = Site(data, "--schema", "plans.yaml")
    try:
        with Client(site.ready()["http"], timeout_s=60) as client:
            before, _ = whole_answer(client, cohort="NOT plan EXISTS", window="all_time")
            everybody, _ = whole_answer(
                client, cohort="locale EXISTS OR NOT locale EXISTS", window="all_time"
            )
            assert before == everybody
            written = client.put("user", "u1", {"locale": "US", "age": 21, "plan": "gold"})
            client.get("user", "u1", after=written)
            for cohort in ("plan:gold", "plan EXISTS", "plan != gold"):
                assert whole_answer(client, cohort=cohort, window="all_time")[0] == [], cohort
            assert client.cohort_size("plan:gold").users == 1
            bought = client.publish({"kind": "view", "item": "new-one", "user": "u1"})
            client.get("user", "u1", after=bought)
            for cohort, counted in (("plan:gold", True), ("plan EXISTS", True), ("plan != gold", False)):
                answer, _ = whole_answer(client, cohort=cohort, window="all_time")
                assert answer == ([("new-one", 1.0)] if counted else []), cohort
            assert whole_answer(client, cohort="NOT plan EXISTS", window="all_time")[0] == before
        assert site.end() == 0, site.said()
    finally:
        site.close()
