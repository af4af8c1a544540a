"""Every sort mode, for everybody and for a cohort, now and in the past, against a plain recount."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from queryd.errors import QueryError
from queryd.execute.measures import MEASURES
from queryd.hot.history import HistoryCache
from queryd.language.parse import parse_query
from queryd.plan.planner import make_plan
from queryd.ranking.sort_modes import MEASURE_NAMES, SEARCH_MODES, SORT_MODES
from queryd.reply import Ledger
from schemas.durations import WINDOWS
from tests.engine_site import HOUR_MS, NOW_MS, Site, as_json, ids, running, scores, small_schema
from tests.oracle import Event
from tests.oracle.relative import relative_scores

DAY_MS = 24 * HOUR_MS
ITEMS = 14
PAST_MS = NOW_MS - 30 * HOUR_MS
KINDS = ("view", "like", "dislike", "share", "save", "comment", "completion", "dwell_time")
AGES_MS = {number: number * 3 * DAY_MS + 17 * HOUR_MS for number in range(ITEMS - 2)}
HOURS = {"24h": 24, "7d": 168}
Z = 1.281551565545

Scores = dict[str, float]


def name_of(number: int) -> str:
    return f"item_{number:02}"


CREATED_MS = {name_of(number): NOW_MS - age_ms for number, age_ms in AGES_MS.items()}
CREATORS = {name_of(number): f"creator_{number % 4}" for number in range(ITEMS - 1)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Three thousand events over 35 days; of two items no creation time is known, of one no creator."""
    site = Site(tmp_path_factory.mktemp("sorts"))
    rng = random.Random(5)
    for user in range(12):
        site.user(f"user_{user}", locale="US" if user % 3 else "DE")
    for number in range(ITEMS):
        id_ = name_of(number)
        record = {"creator": CREATORS[id_]} if id_ in CREATORS else {}
        if id_ in CREATED_MS:
            record["created_at"] = CREATED_MS[id_]
        site.item(id_, title="river song" if number % 2 else "river", **record)
    for _ in range(3_000):
        number = min(int(rng.expovariate(0.25)), ITEMS - 1)
        ago_ms = rng.choice([HOUR_MS, DAY_MS, 8 * DAY_MS, 35 * DAY_MS]) * rng.random()
        kind = rng.choices(KINDS, [9, 3, 1, 1, 1, 2, 2, 2])[0]
        user = f"user_{rng.randrange(12)}"
        site.signal(kind, name_of(number), user, ago_ms=int(ago_ms), weight=rng.randint(1, 60))
    site.flush()
    return site


class Recount:
    """Plain sums over the events of a scope at a time."""

    def __init__(self, site: Site, cohort: bool, at_ms: int) -> None:
        self.at_ms = at_ms
        self.past = at_ms < NOW_MS
        self.events = [event for event in site.events if not cohort or "US" in event.profile]

    def inside(self, event: Event, window: str, windows_ago: int = 0) -> bool:
        if window == "all_time":
            return not self.past or event.ts_ms // HOUR_MS <= self.at_ms // HOUR_MS
        if window == "30d":
            return 0 <= self.at_ms // DAY_MS - event.ts_ms // DAY_MS - 30 * windows_ago < 30
        if window == "1h" and not self.past:
            return 0 <= self.at_ms // 60_000 - event.ts_ms // 60_000 - 60 * windows_ago < 60
        hours = HOURS.get(window, 1)
        return 0 <= self.at_ms // HOUR_MS - event.ts_ms // HOUR_MS - hours * windows_ago < hours

    def of(self, kind: str, window: str, windows_ago: int = 0) -> dict[str, tuple[int, float]]:
        """Count and sum of every item."""
        found = {name_of(number): (0, 0.0) for number in range(ITEMS)}
        for event in self.events:
            if event.kind == kind and self.inside(event, window, windows_ago):
                count, total = found[event.item]
                found[event.item] = count + 1, total + event.weight / 1e6
        return found

    def counts(self, kind: str, window: str, windows_ago: int = 0) -> dict[str, int]:
        return {item: count for item, (count, _) in self.of(kind, window, windows_ago).items()}

    def votes(self) -> dict[str, tuple[int, int]]:
        downs = self.counts("dislike", "all_time")
        return {item: (ups, downs[item]) for item, ups in self.counts("like", "all_time").items()}


def top(kind: str, window: str) -> Callable[[Recount], Scores]:
    return lambda recount: {item: n for item, n in recount.counts(kind, window).items() if n}


def trending(recount: Recount) -> Scores:
    return {item: n / 86_400 for item, n in recount.counts("view", "24h").items() if n}


def rising(recount: Recount) -> Scores:
    now, before = recount.counts("view", "24h"), recount.counts("view", "24h", 1)
    return {item: (n - before[item]) / 86_400 for item, n in now.items() if n > before[item]}


def trending_relative(window: str) -> Callable[[Recount], Scores]:
    def recounted(recount: Recount) -> Scores:
        events = [(event.item, event.ts_ms) for event in recount.events if event.kind == "view"]
        found = relative_scores(events, CREATED_MS, window, recount.at_ms, NOW_MS)
        return {item: each.score for item, each in found.items()}

    return recounted


def hot(recount: Recount) -> Scores:
    found = {}
    for item, (ups, downs) in recount.votes().items():
        balance = ups - downs
        sign = (balance > 0) - (balance < 0)
        age = (CREATED_MS.get(item, 0) / 1000 - 1_134_028_003) / 45_000
        found[item] = sign * math.log10(max(abs(balance), 1)) + age
    return found


def hacker(recount: Recount) -> Scores:
    found = {}
    for item, points in recount.counts("like", "all_time").items():
        if points and item not in CREATED_MS:
            found[item] = 0.0
        elif points:
            age_h = max(0.0, (recount.at_ms - CREATED_MS[item]) / HOUR_MS)
            found[item] = (points - 1) ** 0.8 / (age_h + 2) ** 1.8
    return found


def wilson(ups: int, downs: int) -> float:
    n = ups + downs
    if not n:
        return 0.0
    share = ups / n
    spread = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, (share + Z * Z / (2 * n) - spread) / (1 + Z * Z / n))


def best(recount: Recount) -> Scores:
    return {item: wilson(*votes) for item, votes in recount.votes().items() if wilson(*votes) > 0}


def controversial(recount: Recount) -> Scores:
    return {
        item: (ups + downs) ** (min(ups, downs) / max(ups, downs))
        for item, (ups, downs) in recount.votes().items()
        if ups and downs
    }


def mean_of(kind: str) -> Callable[[Recount], Scores]:
    def recounted(recount: Recount) -> Scores:
        found = recount.of(kind, "all_time")
        events, weight = sum(n for n, _ in found.values()), sum(total for _, total in found.values())
        return {item: (10 * weight / events + total) / (10 + n) for item, (n, total) in found.items() if n}

    return recounted


def discussed(recount: Recount) -> Scores:
    comments, views = recount.counts("comment", "all_time"), recount.counts("view", "all_time")
    prior = 10 * sum(views.values()) / sum(comments.values())
    return {item: (10 + n) / (prior + views[item]) for item, n in comments.items() if n}


def hidden_gems(recount: Recount) -> Scores:
    views = recount.counts("view", "all_time")
    return {
        item: wilson(ups, downs) / math.log2(2 + views[item])
        for item, (ups, downs) in recount.votes().items()
        if ups
    }


def evergreen(recount: Recount) -> Scores:
    recent, ever = recount.counts("view", "7d"), recount.counts("view", "all_time")
    share = sum(recent.values()) / sum(ever.values())
    return {
        item: (10 * share + n) / (10 + ever[item])
        for item, n in recent.items()
        if n and CREATED_MS.get(item, NOW_MS) <= recount.at_ms - 7 * DAY_MS
    }


def creator_popularity(recount: Recount) -> Scores:
    sums: Scores = {}
    for event in recount.events:
        if event.kind == "view" and event.item in CREATORS and recount.inside(event, "all_time"):
            creator = CREATORS[event.item]
            faded = event.weight / 1e6 * 2 ** (-(recount.at_ms - event.ts_ms) / (7 * DAY_MS))
            sums[creator] = sums.get(creator, 0.0) + faded
    return {item: sums[creator] for item, creator in CREATORS.items() if creator in sums}


def by_age(sign: int) -> Callable[[Recount], Scores]:
    return lambda _: {
        name_of(number): float(sign * CREATED_MS.get(name_of(number), 0)) for number in range(ITEMS)
    }


# Exponential decay of a cohort, or of a past time, is summed from buckets: an hour of seven days' half-life.
FROM_BUCKETS = 2 ** (1 / (7 * 24)) - 1

EXPECTED: dict[str, Callable[[Recount], Scores]] = {
    "trending": trending,
    "trending_relative": trending_relative("1h"),
    "trending_relative WINDOW 24h": trending_relative("24h"),
    "trending_relative WINDOW 7d": trending_relative("7d"),
    "rising": rising,
    "hot": hot,
    "hacker": hacker,
    "new": by_age(1),
    "old": by_age(-1),
    "top_1h": top("like", "1h"),
    "top_24h": top("like", "24h"),
    "top_7d": top("like", "7d"),
    "top_30d": top("like", "30d"),
    "top_all": top("like", "all_time"),
    "top_7d SIGNAL share": top("share", "7d"),
    "best": best,
    "controversial": controversial,
    "most_viewed": top("view", "24h"),
    "most_liked WINDOW 7d": top("like", "7d"),
    "most_shared WINDOW all_time": top("share", "all_time"),
    "most_saved WINDOW all_time": top("save", "all_time"),
    "most_commented WINDOW 30d": top("comment", "30d"),
    "completion_rate": mean_of("completion"),
    "dwell": mean_of("dwell_time"),
    "discussed": discussed,
    "hidden_gems": hidden_gems,
    "evergreen WINDOW 7d": evergreen,
    "creator_popularity": creator_popularity,
}
UNCOUNTED = ("new", "old")


@pytest.mark.parametrize("at_ms", [NOW_MS, PAST_MS], ids=["now", "as of"])
async def test_every_mode_orders_and_scores_as_a_recount(site: Site, at_ms: int) -> None:
    time = f" AS OF {at_ms}" if at_ms != NOW_MS else ""
    async with running(site) as engine:
        for scope in ("", " COHORT locale:US"):
            recount = Recount(site, bool(scope), at_ms)
            for mode, recounted in EXPECTED.items():
                if scope and mode in UNCOUNTED:
                    continue
                reply = await engine.query(f"RETRIEVE items SORT BY {mode}{scope}{time} LIMIT 100")
                expected = recounted(recount)
                near = FROM_BUCKETS if mode == "creator_popularity" and (scope or time) else 1e-9
                assert scores(reply) == pytest.approx(expected, rel=near, abs=1e-9), mode
                if near == 1e-9:
                    assert ids(reply) == sorted(expected, key=lambda id_: (-scores(reply)[id_], id_)), mode
                assert reply.total_estimate == len(expected), mode


def test_the_modes_of_the_test_are_those_that_there_are() -> None:
    tested = {mode.split(" ")[0] for mode in EXPECTED}
    elsewhere = {"random", "following_newest", "personal", *SEARCH_MODES}
    assert tested | elsewhere == set(SORT_MODES)
    assert set(MEASURES) == MEASURE_NAMES


async def test_a_search_is_ordered_by_a_mode_over_all_of_its_matches(site: Site) -> None:
    async with running(site) as engine:
        for mode in ("hot", "top_7d", "trending_relative WINDOW 24h", "new", "best", "rising"):
            whole = scores(await engine.query(f"RETRIEVE items SORT BY {mode} LIMIT 100"))
            query = f'SEARCH items QUERY "song" SORT BY {mode} LIMIT 100'
            reply = await engine.query(query)
            matches = {name_of(number) for number in range(1, ITEMS, 2)}
            assert set(ids(reply)) == matches, mode
            found = scores(reply)
            assert {item: found[item] for item in matches & set(whole)} == {
                item: whole[item] for item in matches & set(whole)
            }, mode
            assert ids(reply) == sorted(found, key=lambda item: (-found[item], item)), mode
        trend = await engine.query('SEARCH items QUERY "song" WITHIN TRENDING COHORT locale:US SORT BY best')
        inside = {item for item, n in Recount(site, True, NOW_MS).counts("view", "24h").items() if n}
        assert set(ids(trend)) == matches & inside
        text = await engine.query('SEARCH items QUERY "song" SORT BY relevance')
        plain = await engine.query('SEARCH items QUERY "song"')
        hybrid = await engine.query('SEARCH items QUERY "song" SORT BY hybrid')
    assert ids(text) == ids(plain) == ids(hybrid)


async def test_within_trending_of_a_cohort_restricts_a_page_in_another_order(site: Site) -> None:
    recount = Recount(site, True, NOW_MS)
    trends = {item for item, n in recount.counts("share", "7d").items() if n}
    async with running(site) as engine:
        reply = await engine.query(
            "RETRIEVE items WITHIN TRENDING COHORT locale:US SIGNAL share WINDOW 7d SORT BY most_liked"
        )
        within = await engine.query(
            "RETRIEVE items WITHIN CREATOR @creator_1 SORT BY top_all COHORT locale:US"
        )
    likes = recount.counts("like", "7d")
    assert scores(reply) == {item: likes[item] for item in trends if likes[item]}
    ever = recount.counts("like", "all_time")
    of_creator = {item: n for item, n in ever.items() if n and CREATORS.get(item) == "creator_1"}
    assert scores(within) == of_creator


PARTS = ("expected", "deviation", "windows")


async def test_explain_shows_the_order_and_what_a_score_is_made_of(site: Site) -> None:
    query = "RETRIEVE items SORT BY trending_relative COHORT locale:US LIMIT 5"
    events = [(each.item, each.ts_ms) for each in Recount(site, True, NOW_MS).events if each.kind == "view"]
    expected = relative_scores(events, CREATED_MS, "1h", NOW_MS, NOW_MS)
    async with running(site) as engine:
        plan = as_json(await engine.query(f"EXPLAIN {query}"))["explain"]["plan"]
        reply = as_json(await engine.query(f"EXPLAIN ANALYZE {query}"))
        by_profile = await engine.query(query.replace("SORT BY", "USING PROFILE") + " WINDOW 1h")
        plain = await engine.query(query)
        engine.hot.history = HistoryCache(cells_at_once=0)
        in_parts = [await engine.query(query) for _ in range(30)]
        hot_page = as_json(await engine.query("EXPLAIN ANALYZE RETRIEVE items SORT BY hot LIMIT 2"))
    assert "28 are still to be read" in in_parts[0].degraded[0].why
    assert (scores(in_parts[-1]), in_parts[-1].degraded) == (scores(plain), [])
    assert ids(by_profile) == ids(plain) == [result["id"] for result in reply["results"]]
    assert scores(by_profile) == scores(plain)
    step = next(step for step in plan if step["stage"] == "order")
    assert step == {
        "stage": "order",
        "name": "trending_relative",
        "by": "trending_relative",
        "counts": ["view"],
        "window": "1h",
        "scope": "cohort",
        "compares_with": "windows at the same hour of up to 28 days before",
    }
    for result in reply["results"]:
        terms = {term["term"]: term for term in result["terms"]}
        assert sum(term["contribution"] for term in result["terms"]) == result["score"]
        score, mean, deviation, windows = expected[result["id"]]
        parts = {name: terms[f"trending_relative.{name}"]["value"] for name in PARTS}
        assert parts == pytest.approx({"expected": mean, "deviation": deviation, "windows": windows})
        assert result["score"] == pytest.approx(score)
    source = next(stage for stage in reply["explain"]["stages"] if stage["name"] == "trending_relative")
    assert source["windows"] >= 3
    assert source["prior_mean"] > 0
    assert {"hot.liked", "hot.disliked"} <= {term["term"] for term in hot_page["results"][0]["terms"]}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SORT BY top_1h WINDOW 24h", "WINDOW changes nothing"),
        ("SORT BY most_liked SIGNAL view", "SIGNAL changes nothing"),
        ("SORT BY hot SIGNAL view", "SIGNAL changes nothing"),
        ("SORT BY new COHORT locale:US", "COHORT changes nothing"),
        ("SORT BY trending_relative WINDOW 30d", "no window '30d'"),
        ("SORT BY rising WINDOW all_time", "no window 'all_time'"),
        ("USING PROFILE trending_relative WINDOW all_time", "no window 'all_time'"),
        ("SORT BY relevance", "belongs to SEARCH"),
        ("SORT BY personal", "needs a user"),
        ("SORT BY hidden_gem", "did you mean 'hidden_gems'"),
    ],
)
def test_what_has_no_meaning_is_refused(query: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        make_plan(parse_query(f"RETRIEVE items {query}"), small_schema())


def test_a_mode_without_a_signal_names_the_role_that_is_missing() -> None:
    schema = small_schema(roles={"commented": None})
    for mode in ("discussed", "most_commented"):
        with pytest.raises(QueryError, match=r"roles: \{commented: NAME\} in the schema"):
            make_plan(parse_query(f"RETRIEVE items SORT BY {mode}"), schema)


async def test_a_site_without_a_past_compares_items_with_one_another_and_says_so(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for number in range(5):
        for _ in range(number + 1):
            site.signal("view", name_of(number))
    site.flush()
    async with running(site) as engine:
        reply = await engine.query("RETRIEVE items SORT BY trending_relative")
        nothing = await engine.query("RETRIEVE items SORT BY trending_relative SIGNAL like")
    assert ids(reply) == [name_of(number) for number in (4, 3, 2, 1, 0)]
    events = [(event.item, event.ts_ms) for event in site.events]
    expected = relative_scores(events, {}, "1h", NOW_MS, NOW_MS)
    assert scores(reply) == pytest.approx({item: each.score for item, each in expected.items()})
    assert "0 complete earlier windows" in reply.warnings[0]
    assert nothing.results == []


LEDGERS = (("item", name_of(0)), ("item", name_of(5)), ("creator", "creator_1"))


async def test_a_ledger_of_a_cohort_has_all_that_one_of_everybody_has(site: Site) -> None:
    async with running(site) as engine:
        for at_ms in (NOW_MS, PAST_MS):
            for kind, id_ in LEDGERS:
                ledger = await engine.ledger(kind, id_, "view", at=at_ms, cohort="locale:US")
                assert isinstance(ledger, Ledger)
                check_ledger(ledger, Recount(site, True, at_ms))


def check_ledger(ledger: Ledger, recount: Recount) -> None:
    """Counts, sums, users, rates and decay of views by a plain recount; decay to the hour."""
    items = {item for item, creator in CREATORS.items() if ledger.id in (item, creator)}
    events = [event for event in recount.events if event.item in items and event.kind == "view"]
    ever = [event for event in events if recount.inside(event, "all_time")]
    weight = sum(event.weight for event in ever) / 1e6
    assert (ledger.all_time.count, ledger.all_time.sum) == (len(ever), weight)
    assert ledger.all_time.users == len({event.user for event in ever})
    for window, found in ledger.windows.items():
        now = [event for event in events if recount.inside(event, window)]
        before = [event for event in events if recount.inside(event, window, 1)]
        total, seconds = sum(event.weight for event in now) / 1e6, WINDOWS[window].duration_ms / 1000
        assert (found.count, found.sum, found.users) == (len(now), total, len({each.user for each in now}))
        assert found.mean == (pytest.approx(total / len(now)) if now else None)
        assert found.velocity == pytest.approx(len(now) / seconds)
        assert found.acceleration == pytest.approx((len(now) - len(before)) / seconds)
    for name, half_life_ms in (("24h", DAY_MS), ("7d", 7 * DAY_MS)):
        faded = [
            event.weight / 1e6 * 2 ** (-max(0, recount.at_ms - event.ts_ms) / half_life_ms) for event in ever
        ]
        assert ledger.decay[name] == pytest.approx(math.fsum(faded), rel=2 ** (HOUR_MS / half_life_ms) - 1)
