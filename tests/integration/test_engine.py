"""The engine over the real views: every answer is recounted from the events in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from materializers.materializer import Scope
from queryd.errors import CohortTooSmall, CursorError, EngineNotReady, PositionTimeout
from queryd.hot import distinct
from streams.positions import Position
from streams.topics import SIGNALS
from tests.engine_site import (
    HOUR_MS,
    NOW_MS,
    PARTITIONS,
    Site,
    as_json,
    ids,
    indexed,
    running,
    scores,
    small_schema,
)

DAY_S = 86_400


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Forty items of eight creators; a young US crowd that watches the odd ones."""
    site = Site(tmp_path)
    for number in range(40):
        site.item(
            f"item_{number:02}",
            creator=f"creator_{number % 8}",
            title=f"Piano tutorial {number}" if number % 4 == 1 else f"Cooking show {number}",
            category="music" if number % 2 else "food",
            tags=["lesson", f"tag{number % 5}"],
            duration_s=float(number),
            created_at=NOW_MS - number * HOUR_MS,
            embeddings={"content": [1.0, 0.0, 0.1, 0.0] if number % 2 else [0.0, 1.0, 0.0, 0.1]},
        )
    for number in range(6):
        site.user(f"young_{number}", locale="US", age=20)
        site.user(f"other_{number}", locale="DE", age=40)
    for number in range(40):
        for turn in range(number % 7 + 1):
            crowd = "young" if number % 2 else "other"
            site.signal("view", f"item_{number:02}", f"{crowd}_{turn % 6}", ago_ms=turn * 2 * HOUR_MS)
    for turn in range(9):
        site.signal("view", "item_02", f"other_{turn % 6}", ago_ms=turn * 60_000)
    site.flush()
    return site


def ranked(counts: dict[str, int], limit: int, divide_by: float) -> list[tuple[str, float]]:
    """(id, score) by count descending, then id."""
    best = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:limit]
    return [(id_, count / divide_by) for id_, count in best]


async def test_global_trending_equals_a_recount(site: Site) -> None:
    async with running(site, follow=True) as engine:
        reply = await engine.query("RETRIEVE items USING PROFILE trending WINDOW 24h LIMIT 25")
    first_hour = (NOW_MS // HOUR_MS - 23) * HOUR_MS
    expected = ranked(site.counts("view", first_hour), 25, DAY_S)
    assert [(row.id, row.score) for row in reply.results] == expected
    assert [row.rank for row in reply.results] == list(range(1, 26))
    assert reply.total_estimate == 40
    assert reply.estimator == "exact"
    assert reply.degraded == []


async def test_cohort_trending_equals_a_recount_and_differs_from_the_global_one(site: Site) -> None:
    query = "RETRIEVE items USING PROFILE trending COHORT locale:US, age:18-24 WINDOW 24h LIMIT 25"
    async with running(site, follow=True) as engine:
        reply = await engine.query(query)
        everybody = await engine.query("RETRIEVE items USING PROFILE trending WINDOW 24h LIMIT 25")
    first_hour = (NOW_MS // HOUR_MS - 23) * HOUR_MS
    expected = ranked(site.counts("view", first_hour, {site.profiles["young_0"]}), 25, DAY_S)
    assert [(row.id, row.score) for row in reply.results] == expected
    assert ids(everybody)[0] == "item_02"
    assert "item_02" not in ids(reply)


async def test_search_within_trending_fuses_the_two_ranks(site: Site) -> None:
    query = (
        'SEARCH items QUERY "piano tutorial" WITHIN TRENDING COHORT locale:US, age:18-24 WINDOW 24h LIMIT 20'
    )
    async with running(site, follow=True) as engine:
        reply = await engine.query(query)
        text = await engine.query('SEARCH items QUERY "piano tutorial" LIMIT 40')
    first_hour = (NOW_MS // HOUR_MS - 23) * HOUR_MS
    trend = site.counts("view", first_hour, {site.profiles["young_0"]})
    matching = [id_ for id_ in ids(text) if id_ in trend]
    by_text = {id_: rank for rank, id_ in enumerate(matching, 1)}
    by_trend = {
        id_: rank for rank, id_ in enumerate(sorted(matching, key=lambda each: (-trend[each], each)), 1)
    }
    fused = {id_: 1 / (60 + by_text[id_]) + 1 / (60 + by_trend[id_]) for id_ in matching}
    assert scores(reply) == fused
    assert ids(reply) == sorted(fused, key=lambda each: (-fused[each], each))
    assert len(reply.results) == 10


async def test_the_composed_query_filters_personalises_and_diversifies(site: Site) -> None:
    site.signal("view", "item_01", "u1")
    site.signal("like", "item_03", "u1")
    site.flush()
    query = """RETRIEVE items FOR USER @u1 USING PROFILE for_you FILTER unseen
        WITHIN TRENDING COHORT locale:US, age:18-24 DIVERSITY max_per_creator:2 LIMIT 50"""
    async with running(site, follow=True) as engine:
        reply = await engine.query("EXPLAIN ANALYZE " + query)
        plain = await engine.query(query)
    assert ids(plain) == ids(reply)
    assert "item_01" not in ids(reply)  # seen
    assert "item_03" in ids(reply)  # a like is no view
    assert len(reply.results) == 19  # every odd item but the seen one
    for row in reply.results:
        total = 0.0
        for term in row.terms:
            total += term.contribution
        assert total == row.score
    creators = [int(id_[-2:]) % 8 for id_ in ids(reply)][:8]
    assert max(creators.count(each) for each in creators) == 2
    assert all(row.terms[1].value > 0.9 for row in reply.results)  # personalization: odd items point one way
    liked = next(row for row in reply.results if row.id == "item_03")
    assert liked.terms[2].value == pytest.approx(0.15)  # relationship to its creator


async def test_changes_are_followed_without_a_restart(site: Site) -> None:
    query = "RETRIEVE items USING PROFILE trending COHORT locale:US WINDOW 1h LIMIT 3"
    async with running(site, follow=True) as engine:
        before = await engine.query(query)
        for _ in range(5):
            site.signal("view", "item_38", "young_1")
        site.item("brand_new", title="Fresh")
        site.signal("view", "brand_new", "young_1")
        site.flush()
        await engine._feeder.step()
        after = await engine.query(query)
        async with running(site, name="queryd-1") as restarted:
            again = await restarted.query(query)
    assert "item_38" not in ids(before)
    assert ids(after)[0] == "item_38"
    assert scores(after)["item_38"] == 5 / 3600
    assert [(row.id, row.score) for row in again.results] == [(row.id, row.score) for row in after.results]


async def test_windows_move_on_with_time(site: Site) -> None:
    query = "RETRIEVE items USING PROFILE trending WINDOW {} LIMIT 40"
    async with running(site, follow=True) as engine:
        for hours in (0, 1, 5, 13, 30, 200):
            site.now_ms = NOW_MS + hours * HOUR_MS
            for window, first in (
                ("1h", (site.now_ms // 60_000 - 59) * 60_000),
                ("24h", (site.now_ms // HOUR_MS - 23) * HOUR_MS),
                ("7d", (site.now_ms // HOUR_MS - 167) * HOUR_MS),
            ):
                reply = await engine.query(query.format(window))
                seconds = {"1h": 3600, "24h": DAY_S, "7d": 7 * DAY_S}[window]
                expected = ranked(site.counts("view", first), 40, seconds)
                assert [(row.id, row.score) for row in reply.results] == expected


async def test_a_taken_over_partition_is_read_anew_and_counted_once(site: Site) -> None:
    query = "RETRIEVE items USING PROFILE trending WINDOW all_time LIMIT 40"
    async with running(site, follow=True) as engine:
        before = await engine.query(query)
        site.signal("view", "item_05", "young_2")
        site.flush()
        for number in site.rows:
            site.take_over(number)
        await engine._feeder.step()
        after = await engine.query(query)
    assert scores(after) == {id_: float(count) for id_, count in site.counts("view", 0).items()}
    assert scores(after)["item_05"] == scores(before)["item_05"] + 1


async def test_deleted_and_blocked_items_are_never_shown(site: Site) -> None:
    query = "RETRIEVE items FOR USER @u1 USING PROFILE trending WINDOW 24h LIMIT 40"
    async with running(site, follow=True) as engine:
        site.delete_item("item_02")
        site.block("u1", "creator_5")
        site.flush()
        await engine._feeder.step()
        reply = await engine.query(query)
        await indexed(engine)
        found = await engine.query('SEARCH items QUERY "cooking" LIMIT 40')
    assert "item_02" not in ids(reply)
    assert not {f"item_{number:02}" for number in range(5, 40, 8)} & set(ids(reply))
    assert len(reply.results) == 34
    assert "item_02" not in ids(found)


async def test_a_deleted_item_stays_away_from_an_engine_that_starts_later(site: Site) -> None:
    query = "RETRIEVE items USING PROFILE trending WINDOW 24h LIMIT 40"
    async with running(site, follow=True) as engine:
        assert "item_02" in ids(await engine.query(query))
    site.delete_item("item_02")
    site.flush()
    async with running(site, follow=True) as engine:
        assert "item_02" not in ids(await engine.query(query))


async def test_pages_never_repeat_or_skip(site: Site) -> None:
    query = "RETRIEVE items USING PROFILE trending WINDOW 24h LIMIT 7"
    async with running(site, follow=True) as engine:
        pages = [await engine.query(query)]
        while pages[-1].cursor is not None:
            site.signal("view", "item_39", "young_1")  # the ranking moves between the pages
            site.flush()
            await engine._feeder.step()
            pages.append(await engine.query(f'{query} CURSOR "{pages[-1].cursor}"'))
    shown = [id_ for page in pages for id_ in ids(page)]
    assert sorted(shown) == [f"item_{number:02}" for number in range(40)]
    assert [row.rank for page in pages for row in page.results] == list(range(1, 41))


async def test_a_page_asked_for_an_hour_later_reads_no_cold_tier(site: Site) -> None:
    query = "RETRIEVE items USING PROFILE trending WINDOW all_time LIMIT 30"
    async with running(site, follow=True) as engine:
        first = await engine.query(query)
        site.now_ms += HOUR_MS - 1
        rest = await engine.query(f'{query} CURSOR "{first.cursor}"')
    assert sorted(ids(first) + ids(rest)) == [f"item_{number:02}" for number in range(40)]
    assert rest.warnings == []


async def test_cursors_are_refused_when_tampered_with_foreign_or_expired(site: Site) -> None:
    query = "RETRIEVE items USING PROFILE trending WINDOW 24h LIMIT 5"
    async with running(site, follow=True) as engine:
        cursor = (await engine.query(query)).cursor
        assert cursor is not None
        flipped = cursor[:-10] + ("A" if cursor[-10] != "A" else "B") + cursor[-9:]
        for bad in (flipped, cursor[:-4], "", "héllo", "AAAA"):
            with pytest.raises(CursorError):
                await engine.query(f'{query} CURSOR "{bad}"')
        with pytest.raises(CursorError, match="another query"):
            await engine.query(f'RETRIEVE items USING PROFILE trending WINDOW 7d LIMIT 5 CURSOR "{cursor}"')
        site.now_ms += 2 * HOUR_MS
        with pytest.raises(CursorError, match="expired"):
            await engine.query(f'{query} CURSOR "{cursor}"')


async def test_after_waits_for_every_view_and_times_out(tmp_path: Path) -> None:
    site = Site(tmp_path, small_schema(limits={"deadline_ms": 20}))
    site.signal("view", "an_item", "u1")
    site.flush()
    token = Position(SIGNALS, 1, 7).encode()
    query = f'RETRIEVE items USING PROFILE trending AFTER "{token}"'
    async with running(site, follow=True) as engine:
        site.tables.offsets[Scope.USER, 1] = {SIGNALS: 7}
        site.tables.sources = {number: {1: 7} for number in range(PARTITIONS - 1)}
        with pytest.raises(PositionTimeout):
            await engine.query(query)
        site.tables.sources[PARTITIONS - 1] = {1: 7}
        assert ids(await engine.query(query)) == ["an_item"]


async def test_filters_refill_to_the_limit(site: Site) -> None:
    async with running(site, follow=True) as engine:

        async def found(predicate: str, extra: str = "") -> list[str]:
            text = (
                f"RETRIEVE items USING PROFILE trending FILTER {predicate} WINDOW all_time LIMIT 40 {extra}"
            )
            return sorted(ids(await engine.query(text)))

        def having(wanted: Callable[[int], bool]) -> list[str]:
            return [f"item_{number:02}" for number in range(40) if wanted(number)]

        assert await found("category:music") == having(lambda n: n % 2 == 1)
        assert await found("category != music") == having(lambda n: n % 2 == 0)
        assert await found("tags CONTAINS tag3, NOT category:food") == having(lambda n: n % 10 == 3)
        assert await found("duration_s BETWEEN 5 AND 8") == having(lambda n: 5 <= n <= 8)
        assert await found("duration_s IN (5, 8)") == having(lambda n: n in (5, 8))
        assert await found(f"created_at > {NOW_MS - 3 * HOUR_MS}") == having(lambda n: n < 3)
        assert await found("creator:creator_3 OR id:item_00") == having(lambda n: n % 8 == 3 or n == 0)
        assert await found("view.count(all_time) >= 7") == having(lambda n: n % 7 == 6 or n == 2)
        assert await found("NOT seen", "FOR USER @young_0") == having(lambda n: n % 2 == 0)
        assert await found("explicit EXISTS") == []


async def test_within_scopes(site: Site) -> None:
    site.follow("u1", "creator_1")
    site.signal("like", "item_04", "u1")
    site.flush()
    async with running(site, follow=True) as engine:

        async def found(within: str) -> list[str]:
            return ids(await engine.query(f"RETRIEVE items FOR USER @u1 WITHIN {within} LIMIT 40"))

        assert sorted(await found("FOLLOWING")) == [f"item_{number:02}" for number in range(1, 40, 8)]
        assert await found("LIKED") == ["item_04"]
        assert await found("SAVED") == []
        assert sorted(await found("CREATOR @creator_2")) == [f"item_{n:02}" for n in range(2, 40, 8)]
        reply = await engine.query("RETRIEVE items WITHIN SIMILAR TO @item:item_01 LIMIT 40")
        similar = ids(reply)
        assert "item_01" not in similar
        assert {int(id_[-2:]) % 2 for id_ in similar[:19]} == {1}


async def test_two_users_with_opposite_tastes_get_different_pages(site: Site) -> None:
    site.signal("like", "item_01", "odd")
    site.signal("like", "item_02", "even")
    site.flush()
    async with running(site, follow=True) as engine:
        odd = await engine.query("RETRIEVE items FOR USER @odd USING PROFILE for_you LIMIT 10")
        even = await engine.query("RETRIEVE items FOR USER @even USING PROFILE for_you LIMIT 10")
        full = await engine.query("RETRIEVE items FOR USER @stranger USING PROFILE for_you LIMIT 40")
    assert sum(int(id_[-2:]) % 2 for id_ in ids(odd)) > 7
    assert sum(int(id_[-2:]) % 2 for id_ in ids(even)) < 3
    assert len(full.results) == 40


async def test_ledgers_count_as_the_events_do(site: Site) -> None:
    async with running(site, follow=True) as engine:
        ledger: Any = await engine.ledger("item", "item_13", "view")
        cohort: Any = await engine.ledger("item", "item_13", "view", cohort="locale:DE")
        creator: Any = await engine.ledger("creator", "creator_5")
        past: Any = await engine.ledger("item", "item_13", "view", at=NOW_MS - 6 * HOUR_MS)
        assert await engine.ledger("item", "nobody") is None
    views = [event for event in site.events if event.item == "item_13"]
    assert ledger.all_time.count == len(views) == 7
    assert ledger.windows["24h"].velocity == 7 / DAY_S
    assert ledger.windows["24h"].mean == 1.0
    assert set(ledger.decay) == {"1h", "24h", "7d"}
    expected = sum(2.0 ** (-(NOW_MS - event.ts_ms) / (24 * HOUR_MS)) for event in views)
    assert ledger.decay["24h"] == pytest.approx(expected, rel=1e-9)
    assert cohort.all_time.count == 0
    assert creator["view"].all_time.count == sum(n % 7 + 1 for n in range(5, 40, 8))
    assert past.all_time.count == past.windows["24h"].count == 4
    assert past.resolution == "1h"
    at_ms = NOW_MS - 6 * HOUR_MS
    before = sum(2.0 ** (-(at_ms - event.ts_ms) / (24 * HOUR_MS)) for event in views if event.ts_ms <= at_ms)
    assert past.decay["24h"] == pytest.approx(before, rel=2 ** (0.5 / 24) - 1)


async def test_ledgers_tell_distinct_users(tmp_path: Path) -> None:
    """The same people on several items, days and sides of a cohort are each one; nobody anonymous is."""
    site = Site(tmp_path, small_schema())
    for user, locale in (("ann", "US"), ("bob", "US"), ("cy", "DE")):
        site.user(user, locale=locale)
    for item in ("first", "second"):
        site.item(item, title=item, creator="maker")
    for days, item, user in (
        (0, "first", "ann"),
        (0, "second", "ann"),
        (0, "first", "bob"),
        (3, "first", "cy"),
    ):
        for minutes in (0, 70):
            site.signal("view", item, user, ago_ms=days * 24 * HOUR_MS + minutes * HOUR_MS // 60)
    site.signal("view", "first")
    site.signal("skip", "first", "ann")
    site.flush()
    async with running(site, follow=True) as engine:
        ledger: Any = await engine.ledger("item", "first", "view")
        cohort: Any = await engine.ledger("item", "first", "view", cohort="locale:US")
        creator: Any = await engine.ledger("creator", "maker", "view")
        past: Any = await engine.ledger("item", "first", "view", at=NOW_MS - 2 * 24 * HOUR_MS)
        hour: Any = await engine.ledger("item", "first", "view", window="1h")
        skipped: Any = await engine.ledger("item", "first", "skip")
        nowhere: Any = await engine.ledger("item", "second", "like")
    assert [window.users for window in ledger.windows.values()] == [2, 2, 3, 3]
    assert (ledger.all_time.users, ledger.all_time.users_error, ledger.all_time.users_estimator) == (
        3,
        0,
        "exact",
    )
    assert [window.users for window in cohort.windows.values()] == [2, 2, 2, 2]
    assert creator.windows["24h"].users == 2
    assert creator.windows["24h"].count == 7
    assert [window.users for window in past.windows.values()] == [0, 0, 1, 1]
    assert "users" not in as_json(hour)["all_time"]
    assert (skipped.windows["24h"].users, skipped.windows["24h"].users_estimator) == (None, None)
    assert nowhere.windows["24h"].users == 0


async def test_users_of_too_much_history_are_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distinct, "BLOCKS_MAX", 32)
    site = Site(tmp_path, small_schema())
    for days in range(0, 80, 2):
        site.signal("view", "old", "ann", ago_ms=days * 24 * HOUR_MS)
    site.flush()
    async with running(site, follow=True) as engine:
        ledger: Any = await engine.ledger("item", "old", "view")
    assert (ledger.all_time.users, ledger.all_time.users_estimator) == (None, "too_many_rows")
    assert (ledger.windows["30d"].users, ledger.windows["30d"].users_estimator) == (1, "exact")


async def test_small_cohorts_are_refused(tmp_path: Path) -> None:
    site = Site(tmp_path, small_schema(limits={"min_cohort_size": 2}))
    for user, locale in (("a", "US"), ("b", "US"), ("c", "DE")):
        site.user(user, locale=locale)
        site.signal("view", "an_item", user)
    site.flush()
    async with running(site, follow=True) as engine:
        wide = await engine.query("RETRIEVE items USING PROFILE trending COHORT locale:US")
        assert ids(wide) == ["an_item"]
        assert await engine.ledger("item", "an_item", "view", cohort="locale:US") is not None
        with pytest.raises(CohortTooSmall):
            await engine.query("RETRIEVE items USING PROFILE trending COHORT locale:DE")
        with pytest.raises(CohortTooSmall):
            await engine.ledger("item", "an_item", "view", cohort="locale:DE")
        with pytest.raises(CohortTooSmall):
            await engine.cohort_size("locale:DE")


async def test_user_reads(site: Site) -> None:
    site.follow("young_0", "creator_1")
    site.flush()
    async with running(site, follow=True) as engine:
        state = await engine.user_state("young_0")
        edges = await engine.user_relationships("young_0")
        followers = await engine.relationships("follows", "creator_1", "in")
        preference = await engine.user_preference("young_0")
        size = await engine.cohort_size("locale:US, age:18-24")
        page = await engine.user_state("young_0", "seen", limit=3)
        rest = await engine.user_state("young_0", "seen", limit=100, cursor=page["cursor"])
        raw = await engine.record("item", "item_01")
    assert state["states"]["seen"]["count"] == 20
    assert edges["edges"][0] == {"type": "follows", "to": "creator_1", "weight": 1.0, "updated_at": NOW_MS}
    assert followers["edges"][0]["from"] == "young_0"
    assert preference["slots"]["content"]["updates"] > 0
    assert size["users"] == 6
    assert (
        page["states"]["seen"]["items"] + rest["states"]["seen"]["items"] == state["states"]["seen"]["items"]
    )
    assert raw is not None


async def test_fields_explain_and_shape(site: Site) -> None:
    async with running(site, follow=True) as engine:
        reply = as_json(
            await engine.query(
                {"retrieve": "items", "using_profile": "trending", "fields": ["title"], "limit": 1}
            )
        )
        explained = as_json(
            await engine.query(
                "EXPLAIN RETRIEVE items USING PROFILE trending COHORT locale:US FILTER category:music"
            )
        )
    assert reply["results"][0]["fields"] == {"title": "Cooking show 2"}
    assert reply["results"][0]["exploration"] is False
    assert "explain" not in reply
    assert explained["results"] == []
    assert {step["stage"] for step in explained["explain"]["plan"]} >= {
        "cohort",
        "filter",
        "source",
        "scorer",
    }


async def test_search_goes_on_while_the_text_index_is_built(site: Site) -> None:
    engine = site.engine()
    await engine.start()
    engine._text._ready = False
    reply = await engine.query('SEARCH items QUERY "piano" WITHIN TRENDING WINDOW 24h LIMIT 20')
    await engine.stop()
    assert len(reply.results) == 10
    assert reply.degraded[0].stage == "text"


async def test_an_index_on_disk_is_brought_up_to_date_not_rebuilt(site: Site) -> None:
    async with running(site, follow=True) as engine:
        assert engine._text.indexed == 40
    site.item("item_00", title="Piano at last")
    site.delete_item("item_01")
    site.flush()
    engine = site.engine()
    await engine.start()
    assert engine._text.waiting <= 2
    await indexed(engine)
    found = ids(await engine.query('SEARCH items QUERY "piano" LIMIT 40'))
    await engine.stop()
    assert "item_00" in found
    assert "item_01" not in found


async def test_as_of_the_epoch_nothing_had_happened(site: Site) -> None:
    async with running(site, follow=True) as engine:
        reply = await engine.query("RETRIEVE items USING PROFILE trending WINDOW 24h AS OF 0 LIMIT 40")
    assert ids(reply) == []


async def test_as_of_reads_the_past(site: Site) -> None:
    at_ms = NOW_MS - 6 * HOUR_MS
    async with running(site, follow=True) as engine:
        reply = await engine.query(f"RETRIEVE items USING PROFILE trending WINDOW 24h AS OF {at_ms} LIMIT 40")
        page = await engine.query(f"RETRIEVE items FOR USER @u1 USING PROFILE for_you AS OF {at_ms}")
        assert page.results
        engine._hot.everybody.expire(NOW_MS, 2)  # as if those hours were long merged
        cold = await engine.query(f"RETRIEVE items USING PROFILE trending WINDOW 24h AS OF {at_ms} LIMIT 40")
    last = (at_ms // HOUR_MS + 1) * HOUR_MS
    expected: dict[str, int] = {}
    for event in site.events:
        if event.ts_ms < last:
            expected[event.item] = expected.get(event.item, 0) + 1
    assert [(row.id, row.score) for row in reply.results] == ranked(expected, 40, DAY_S)
    assert [(row.id, row.score) for row in cold.results] == ranked(expected, 40, DAY_S)
    assert any("cold tier" in warning for warning in cold.warnings)


async def test_before_it_is_loaded_the_engine_says_so(site: Site) -> None:
    engine = site.engine()
    with pytest.raises(EngineNotReady):
        await engine.query("RETRIEVE items USING PROFILE trending")
    assert not engine.readiness().ready
