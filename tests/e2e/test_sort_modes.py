"""Sort modes over HTTP on a running site: pages of a cohort in the past, counted anew from the events."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.e2e.test_up import Site, until
from tests.oracle.relative import relative_scores
from tidal.client import Client
from tidal.client_errors import RefusedError

pytestmark = pytest.mark.slow

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
USERS = {"ann": "US", "bob": "US", "cid": "DE"}
ITEMS = tuple(f"song_{number}" for number in range(8))
COHORT = "locale:US"
Z = 1.281551565545


class Happened(NamedTuple):
    """One event as it was published."""

    kind: str
    item: str
    user: str
    ts_ms: int


class Published(NamedTuple):
    """A site and all that was told to it."""

    client: Client
    events: list[Happened]
    created_ms: dict[str, int]
    after: str

    def of(self, kind: str, at_ms: int, hours: int) -> Counter[str]:
        """Events of the cohort in the hours that end with the one of ``at_ms``."""
        last = at_ms // HOUR_MS
        return Counter(
            event.item
            for event in self.events
            if event.kind == kind
            and USERS[event.user] == "US"
            and last - hours < event.ts_ms // HOUR_MS <= last
        )

    def page(self, query: str) -> dict[str, float]:
        """Scores by id, checked to be in the order of a page."""
        results = self.client.query(query, after=self.after).results
        assert [each.rank for each in results] == list(range(1, len(results) + 1))
        assert [each.id for each in results] == [
            each.id for each in sorted(results, key=lambda each: (-each.score, each.id))
        ]
        return {each.id: each.score for each in results}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    site = Site(tmp_path_factory.mktemp("sorts") / "data")
    try:
        with Client(site.ready()["http"]) as client:
            yield _published(client)
    finally:
        site.end()
        site.close()


def _published(client: Client) -> Published:
    rng = random.Random(4)
    now_ms = int(time.time() * 1000)
    created_ms = {item: now_ms - (2 + 5 * number) * DAY_MS for number, item in enumerate(ITEMS)}
    for item, created in created_ms.items():
        client.put("item", item, {"title": f"song of {item}", "created_at": created})
    for user, locale in USERS.items():
        client.put("user", user, {"locale": locale})
        client.publish({"kind": "open", "item": ITEMS[0], "user": user})
    until(lambda: _stamped(client), 30, lambda: "the users' cohorts did not reach their events")
    # Each at a second of its own, in an hour and a half of each of twelve days: two alike in a second would
    # count once.
    seconds = rng.sample(range(12 * 5_400), 700)
    events = [
        Happened(
            rng.choice(["view", "view", "view", "like", "dislike"]),
            rng.choice(ITEMS),
            rng.choice(tuple(USERS)),
            now_ms - DAY_MS * (second // 5_400) - 1_000 * (second % 5_400),
        )
        for second in seconds
    ]
    batches = [events[start : start + 350] for start in (0, 350)]
    after = ""
    for batch in batches:
        told = [{"kind": kind, "item": item, "user": user, "ts": ts_ms} for kind, item, user, ts_ms in batch]
        after = client.publish(told).position
    return Published(client, events, created_ms, after)


def _stamped(client: Client) -> bool:
    """Whether an event of each user of the cohort counts in it."""
    for user in USERS:
        client.publish({"kind": "preview", "item": f"try_{user}_{time.time_ns()}", "user": user})
    page = client.query(f"RETRIEVE items SORT BY trending SIGNAL preview COHORT {COHORT} LIMIT 100")
    return {name for name, locale in USERS.items() if locale == "US"} <= {
        each.id.split("_")[1] for each in page.results
    }


@pytest.mark.parametrize("hours_ago", [4, 24, 50])
def test_relative_trending_of_a_cohort_in_the_past(published: Published, hours_ago: int) -> None:
    at_ms = int(time.time() * 1000) - hours_ago * HOUR_MS
    events = [
        (event.item, event.ts_ms)
        for event in published.events
        if event.kind == "view" and USERS[event.user] == "US"
    ]
    for window in ("1h", "24h"):
        expected = relative_scores(events, published.created_ms, window, at_ms, at_ms + 5 * HOUR_MS)
        by_sort = f"RETRIEVE items SORT BY trending_relative COHORT {COHORT} WINDOW {window} AS OF {at_ms}"
        found = published.page(by_sort)
        assert found == pytest.approx({item: each.score for item, each in expected.items()})
        assert published.page(by_sort.replace("SORT BY", "USING PROFILE")) == found
        search = published.page(by_sort.replace("RETRIEVE items", 'SEARCH items QUERY "song"'))
        assert {item: score for item, score in search.items() if item in found} == found
        assert search.keys() == set(ITEMS)


def test_rising_and_the_best_of_a_cohort(published: Published) -> None:
    at_ms = int(time.time() * 1000) - 30 * HOUR_MS
    now, before = published.of("view", at_ms, 24), published.of("view", at_ms - DAY_MS, 24)
    rising = published.page(f"RETRIEVE items SORT BY rising COHORT {COHORT} AS OF {at_ms}")
    assert rising == pytest.approx(
        {item: (now[item] - before[item]) / 86_400 for item in ITEMS if now[item] > before[item]}
    )
    ups, downs = (published.of(kind, at_ms, 10**6) for kind in ("like", "dislike"))
    best = published.page(f"RETRIEVE items SORT BY best COHORT {COHORT} AS OF {at_ms}")
    assert best == pytest.approx({item: _wilson(ups[item], downs[item]) for item in ups})
    search = f'SEARCH items QUERY "song" WITHIN TRENDING COHORT {COHORT} WINDOW 24h'
    within = published.page(f"{search} SORT BY top_all AS OF {at_ms}")
    assert within == {item: float(ups[item]) for item in now}


def test_the_parts_of_a_score_and_a_mode_that_is_not_one(published: Published) -> None:
    reply = published.client.retrieve(
        sort_by="trending_relative", cohort=COHORT, window="24h", explain="analyze"
    )
    assert reply.explain is not None
    order = next(step for step in reply.explain.plan if step["stage"] == "order")
    assert (order["counts"], order["scope"]) == (["view"], "cohort")
    for result in reply.results:
        terms = {term.term: term for term in result.terms or []}
        parts = [terms[f"trending_relative.{name}"].value for name in ("count", "expected", "deviation")]
        assert result.score == pytest.approx((parts[0] - parts[1]) / parts[2])
        assert sum(term.contribution for term in terms.values()) == result.score
    with pytest.raises(RefusedError, match="did you mean 'trending_relative'"):
        published.client.retrieve(sort_by="trending_relativ")


def _wilson(ups: int, downs: int) -> float:
    votes = ups + downs
    share, square = ups / votes, Z * Z
    spread = Z * math.sqrt(share * (1 - share) / votes + square / (4 * votes * votes))
    return (share + square / (2 * votes) - spread) / (1 + square / votes)
