"""Cohorts whose counts are estimated: when, how it is said, and that they become exact."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer

from queryd.estimate.classes import pair
from queryd.hot import cube as cube_module
from queryd.hot.bucket_reads import Scope, bucket_range
from queryd.http.app import create_app
from queryd.http.services import Services
from schemas.cohort_profile import parse_profile
from schemas.predicate import Predicate, check, matches_profile, parse_predicate
from tests.engine_site import HOUR_MS, Site, as_json, running, small_schema
from tests.unit.http.conftest import FakeLag, FakeWriter

DAY_MS = 24 * HOUR_MS
COHORT = "locale:US, age:18-24, gender:F"
RELATED = "locale:US, age:18-24 AND NOT gender:F"
USERS, EVENTS, ITEMS = 400, 3_000, 20
PLENTY = 10**9


def query(cohort: str, rest: str = "WINDOW 7d") -> str:
    """A trending page of a cohort."""
    return f"RETRIEVE items USING PROFILE trending COHORT {cohort} {rest} LIMIT 10"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that no test changes."""
    return made(tmp_path_factory.mktemp("site"))


def made(folder: Path) -> Site:
    """Users whose attributes go together, and items of which the lower numbers are more popular."""
    site = Site(folder, small_schema())
    chance = np.random.default_rng(4)
    for number in range(USERS):
        young = chance.random() < 0.5
        locale = "US" if chance.random() < (0.8 if young else 0.3) else "DE"
        gender = "F" if chance.random() < (0.6 if young else 0.4) else "M"
        site.user(f"u{number}", locale=locale, age=20 if young else 40, gender=gender)
    for number in range(ITEMS):
        site.item(f"item_{number:02}", title=f"title {number}", created_at=site.now_ms - DAY_MS)
    for item, user, ago_ms in zip(
        np.minimum(chance.geometric(0.15, EVENTS) - 1, ITEMS - 1).tolist(),
        chance.integers(0, USERS, EVENTS).tolist(),
        chance.integers(0, 6 * DAY_MS, EVENTS).tolist(),
        strict=True,
    ):
        site.signal("view", f"item_{item:02}", f"u{user}", ago_ms=ago_ms)
    site.flush()
    return site


def truth(site: Site, females: bool = True, hours: int = 168) -> dict[str, int]:
    """A plain recount of the young in the US."""
    profile = f'{{"age":"18-24","gender":"{"F" if females else "M"}","locale":"US"}}'
    return site.counts("view", (site.now_ms // HOUR_MS - hours + 1) * HOUR_MS, {profile})


def counted(reply: Any, hours: int = 168) -> dict[str, int]:
    """Counts of a page whose scores are velocities."""
    return {row.id: round(row.score * hours * 3600) for row in reply.results}


def step(reply: Any) -> dict[str, Any]:
    """The cohort's step of the plan."""
    found: dict[str, Any] = next(
        each for each in as_json(reply)["explain"]["plan"] if each["stage"] == "cohort"
    )
    return found


async def rows_of(site: Site, cohort: str) -> int:
    """Rows that an exact answer sums, as EXPLAIN tells when there are too many."""
    async with running(site, cohort_rows_max=1) as engine:
        return int(step(await engine.query(f"EXPLAIN {query(cohort)}"))["rows"])


async def test_the_budget_is_an_edge(site: Site) -> None:
    rows = await rows_of(site, COHORT)
    assert 0 < rows <= sum(truth(site).values())
    async with running(site, cohort_rows_max=rows) as engine:
        reply = await engine.query(query(COHORT))
    assert (reply.estimator, reply.error_bound) == ("exact", 0.0)
    assert counted(reply).items() <= truth(site).items()
    async with running(site, cohort_rows_max=rows - 1) as engine:
        reply = await engine.query(query(COHORT))
    assert reply.estimator == "independence"
    assert reply.error_bound is not None
    assert reply.error_bound > 0


async def test_the_rows_of_a_query_add_up(site: Site) -> None:
    """Trending now is within the budget, and so is a week before, but not both."""
    rows = await rows_of(site, COHORT)
    query_of_two = f"RETRIEVE items SORT BY rising COHORT {COHORT} WINDOW 24h LIMIT 5"
    async with running(site, cohort_rows_max=PLENTY) as engine:
        assert (await engine.query(query_of_two)).estimator == "exact"
    async with running(site, cohort_rows_max=max(1, rows // 24)) as engine:
        assert (await engine.query(query_of_two)).estimator == "independence"


async def test_by_default_half_of_the_deadline_is_the_budget(site: Site) -> None:
    async with running(site) as engine:
        reply = await engine.query(f"EXPLAIN {query(COHORT)}")
    told = step(reply)
    assert told["estimator"] == "exact"
    assert told["rows_max"] == site.schema.limits.deadline_ms // 2 * 40_000
    assert "within the budget" in told["why"]


async def test_what_was_missed_is_made_and_then_exact(site: Site) -> None:
    async with running(site, cohort_rows_max=50) as engine:
        first = await engine.query(query(COHORT))
        assert engine.status()["estimates"]["sums_waiting"] == 7  # the composite, three classes, three pairs
        for _ in engine.ahead.work():
            pass
        assert engine.status()["estimates"]["sums_waiting"] == 0
        again = await engine.query(query(COHORT))
        related = await engine.query(f"EXPLAIN ANALYZE {query(RELATED)}")
    assert first.estimator == "independence"
    assert (again.estimator, again.error_bound) == ("exact", 0.0)
    assert counted(again).items() <= truth(site).items()
    assert related.estimator == "ipf"
    told = step(related)
    assert told["rows"] > told["rows_max"] == 50
    assert "two-way counters" in told["why"]
    exact, bound = truth(site, females=False), related.error_bound
    assert bound is not None
    assert 0 < bound < 1
    for item, count in counted(related).items():
        assert abs(count - exact[item]) <= bound * count + 0.5


async def test_a_wide_cohort_is_told_from_the_sum_of_every_profile(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it was missed, and is made; the answers are those of a recount before and after."""
    monkeypatch.setattr(cube_module, "_WIDE_CELLS_MIN", 0)
    low_ms = (site.now_ms // HOUR_MS - 167) * HOUR_MS
    async with running(site, cohort_rows_max=PLENTY) as engine:
        for number, cohort in enumerate(("locale:US OR age:18-24", "NOT (locale:US AND age:18-24)")):
            wide = check(parse_predicate(cohort), site.schema, "cohort")
            exact = site.counts("view", low_ms, _profiles(site, wide))
            reply = await engine.query(query(cohort))
            assert (reply.estimator, reply.error_bound) == ("exact", 0.0)
            assert counted(reply).items() <= exact.items()
            assert engine.ahead.waiting == 1 - number
            for _ in engine.ahead.work():
                pass
            assert engine.ahead.made == 1


async def test_two_way_counters_equal_a_recount_as_time_goes_on(tmp_path: Path) -> None:
    site = made(tmp_path)
    view = site.schema.signal_index["view"]
    async with running(site, cohort_rows_max=50) as engine:
        await engine.query(query(COHORT))
        for _ in engine.ahead.work():
            pass
        cube, names = engine.hot.by_profile, engine.hot.items.ordinals.ids
        for turn in range(4):
            site.now_ms += 5 * HOUR_MS
            site.signal("view", f"item_{turn:02}", "u1")
            site.flush()
            await engine.feeder.step()
            assert (await engine.query(query(RELATED))).estimator == "ipf"
            wanted = bucket_range("7d", site.now_ms)
            for one, other in (
                ("age:18-24", "locale:US"),
                ("age:18-24", "gender:F"),
                ("gender:F", "locale:US"),
            ):
                both = pair(parse_predicate(one), parse_predicate(other))
                assert cube.standing_range(view, False, both, "7d") == wanted
                kept = cube.standing(view, wanted, engine.hot.profiles.mask(both), both, "7d").counts
                found = {names[row]: int(kept[row]) for row in np.flatnonzero(kept).tolist()}
                assert found == site.counts("view", wanted.low * HOUR_MS, _profiles(site, both))


def _profiles(site: Site, predicate: Predicate) -> set[str]:
    return {each for each in site.profiles.values() if matches_profile(predicate, parse_profile(each))}


async def test_the_past_has_a_budget_of_its_own(site: Site) -> None:
    """Fifty days later the same week is in the tables alone."""
    as_of, before = site.now_ms, site.now_ms
    asked = query(COHORT, f"WINDOW 7d AS OF {as_of}")
    site.now_ms += 50 * DAY_MS
    try:
        async with running(site, cohort_cold_rows_max=PLENTY) as engine:
            exact = await engine.query(asked)
            again = step(await engine.query(f"EXPLAIN {asked}"))
        async with running(site, cohort_cold_rows_max=500) as engine:
            told = step(await engine.query(f"EXPLAIN {asked}"))
            estimated = await engine.query(asked)
            read = engine._cold.blocks_read
            assert (await engine.query(asked)).estimator == "independence"
            assert engine._cold.blocks_read == read  # what is kept does not tempt it to read the rest
    finally:
        site.now_ms = before
    assert (exact.estimator, exact.error_bound) == ("exact", 0.0)
    assert counted(exact).items() <= truth(site).items()
    assert again["rows"] == 0  # what was read is kept
    assert told["estimator"] == "independence"
    assert told["rows"] > told["rows_max"] == 500
    assert "tables" in told["why"]
    assert estimated.estimator == "independence"
    assert estimated.error_bound is not None
    assert counted(estimated).keys() <= truth(site).keys()
    for item, count in counted(estimated).items():
        assert abs(count - truth(site)[item]) <= estimated.error_bound * count + 0.5


async def test_sums_that_nobody_can_follow_are_given_up(site: Site) -> None:
    async with running(site, cohort_rows_max=1) as engine:
        await engine.query(query(COHORT))
        assert engine.ahead.waiting == 7
        engine.hot.by_profile.expire(site.now_ms + 20 * DAY_MS, 24)  # the range is no longer in memory
        for _ in engine.ahead.work():
            pass
        assert (engine.ahead.waiting, engine.ahead.made, engine.ahead.given_up) == (0, 0, 7)


async def test_a_partition_with_a_new_owner_has_its_sums_made_anew(tmp_path: Path) -> None:
    site = made(tmp_path)
    async with running(site, cohort_rows_max=50) as engine:
        await engine.query(query(COHORT))
        for _ in engine.ahead.work():
            pass
        assert (await engine.query(query(RELATED))).estimator == "ipf"
        site.take_over(0)
        await engine.feeder.step()
        lost = await engine.query(query(COHORT))
        assert lost.estimator == "independence"
        for _ in engine.ahead.work():
            pass
        assert (await engine.query(query(COHORT))).estimator == "exact"


@pytest.mark.parametrize(("window", "hours"), [("1h", 1), ("24h", 24), ("30d", 720)])
async def test_every_window_is_made_and_then_exact(site: Site, window: str, hours: int) -> None:
    cohort = "locale:US AND NOT gender:F"  # wide enough for an hour
    async with running(site, cohort_rows_max=1) as engine:
        first = await engine.query(query(cohort, f"WINDOW {window}"))
        for _ in engine.ahead.work():
            pass
        again = await engine.query(query(cohort, f"WINDOW {window}"))
    begin_ms = {
        "1h": (site.now_ms // 60_000 - 59) * 60_000,
        "24h": (site.now_ms // HOUR_MS - 23) * HOUR_MS,
        "30d": (site.now_ms // DAY_MS - 29) * DAY_MS,
    }[window]
    exact = site.counts("view", begin_ms, _profiles(site, parse_predicate(cohort)))
    assert (first.estimator, again.estimator) == ("independence", "exact")
    assert exact
    assert counted(again, hours).items() <= exact.items()
    assert len(again.results) == min(10, len(exact))


async def test_a_following_engine_makes_them_by_itself(site: Site) -> None:
    async with running(site, follow=True, name="queryd-1", cohort_rows_max=1) as engine:
        assert (await engine.query(query(COHORT))).estimator == "independence"
        async with asyncio.timeout(60):
            while engine.ahead.waiting:  # noqa: ASYNC110 - it works in slices
                await asyncio.sleep(0.01)
        assert (await engine.query(query(COHORT))).estimator == "exact"


async def test_all_time_is_estimated_and_nothing_is_made_for_it(site: Site) -> None:
    async with running(site, cohort_rows_max=1) as engine:
        reply = await engine.query(query(COHORT, "WINDOW all_time"))
        assert reply.estimator == "independence"
        assert engine.ahead.waiting == 0


async def test_velocity_means_and_sums_follow_the_estimated_counts(site: Site) -> None:
    async with running(site, cohort_rows_max=1) as engine:
        reads = engine.reads(site.now_ms, site.now_ms)
        scope = Scope(check(parse_predicate(COHORT), site.schema, "cohort"))
        view = site.schema.signal_index["view"]
        counts = reads.counts(view, "7d", scope)
        assert (reads.sums(view, "7d", scope) == counts * 1_000_000).all()  # weights are 1.0
        assert (reads.velocity(view, "7d", scope) == counts / (7 * 86_400)).all()
        assert reads.counts(view, "all_time", scope).sum() > 0
        assert reads.estimator == "independence"


async def test_ledgers_stay_exact(site: Site) -> None:
    async with running(site, cohort_rows_max=1) as engine:
        ledger = await engine.ledger("item", "item_00", "view", "7d", cohort=COHORT)
    assert as_json(ledger)["estimator"] == "exact"
    assert as_json(ledger)["windows"]["7d"]["count"] == truth(site)["item_00"]


async def test_through_http(site: Site) -> None:
    async with running(site, cohort_rows_max=1) as engine:
        app = create_app(Services(engine, FakeWriter(), FakeLag()))
        async with TestClient(TestServer(app)) as client:
            asked = {"query": f"EXPLAIN ANALYZE {query(COHORT)}"}
            answer = await client.post("/v1/query", json=asked)
            body = await answer.json()
            assert answer.status == 200, body
    assert body["estimator"] == "independence"
    assert body["error_bound"] > 0
    told = next(each for each in body["explain"]["plan"] if each["stage"] == "cohort")
    assert told["estimator"] == "independence"
    assert told["rows"] > told["rows_max"]
    assert "everybody's counts" in told["why"]
