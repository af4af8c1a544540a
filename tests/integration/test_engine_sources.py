"""Sources, stages and the ways in which a query goes on when a part of the engine does not."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from queryd.errors import QueryError
from queryd.execute import sources
from tests.engine_site import HOUR_MS, NOW_MS, Site, as_json, ids, running, scores, small_schema

ITEMS = 24


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Items on a circle: the nearer two numbers, the nearer their vectors."""
    site = Site(tmp_path)
    for number in range(ITEMS):
        angle = 2 * np.pi * number / ITEMS
        site.item(
            f"item_{number:02}",
            creator=f"creator_{number % 3}",
            category=f"category_{number % 4}",
            created_at=NOW_MS - number * HOUR_MS,
            embeddings={"content": [float(np.cos(angle)), float(np.sin(angle)), 0.0, 0.0]},
        )
    for number in range(0, ITEMS, 2):
        for turn in range(number + 1):
            site.signal("view", f"item_{number:02}", f"user_{turn}")
    site.flush()
    return site


def around(centre: int, wanted: int) -> list[str]:
    """Ids of the nearest on the circle, without the centre itself."""
    gaps = {number: min((number - centre) % ITEMS, (centre - number) % ITEMS) for number in range(ITEMS)}
    near = sorted((number for number in gaps if number != centre), key=lambda number: (gaps[number], number))
    return [f"item_{number:02}" for number in near[:wanted]]


@pytest.mark.parametrize("exact_max", [0, 20_000])
async def test_neighbours_are_the_same_from_index_and_columns(
    site: Site, monkeypatch: pytest.MonkeyPatch, exact_max: int
) -> None:
    monkeypatch.setattr(sources, "EXACT_NEIGHBOURS_MAX", exact_max)
    async with running(site) as engine:
        near = await engine.query("RETRIEVE items WITHIN SIMILAR TO @item:item_05 LIMIT 6")
        some = await engine.query(
            "RETRIEVE items WITHIN SIMILAR TO @item:item_05 FILTER category:category_0 LIMIT 24"
        )
        vector = await engine.query("SEARCH items VECTOR [1, 0, 0, 0] LIMIT 3")
        like = await engine.query("SEARCH items LIKE @item:item_00 LIMIT 2")
    assert set(ids(near)) == set(around(5, 6))
    assert sorted(ids(some)) == [f"item_{number:02}" for number in range(0, ITEMS, 4)]
    assert ids(vector)[0] == "item_00"
    assert set(ids(like)) == {"item_01", "item_23"}


async def test_a_vector_index_that_is_not_there_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "EXACT_NEIGHBOURS_MAX", 0)
    async with running(site) as engine:
        monkeypatch.setattr(engine._vectors, "_ready", False)
        site.signal("like", "item_03", "u1")
        site.flush()
        await engine.feeder.step()
        reply = await engine.query("RETRIEVE items FOR USER @u1 USING PROFILE for_you LIMIT 24")
    assert len(reply.results) == ITEMS
    assert reply.degraded[0].stage == "vector"


async def test_sort_modes(site: Site) -> None:
    async with running(site) as engine:

        async def order(mode: str) -> list[str]:
            return ids(await engine.query(f"RETRIEVE items SORT BY {mode} LIMIT 24"))

        everything = [f"item_{number:02}" for number in range(ITEMS)]
        assert await order("new") == everything
        assert await order("old") == everything[::-1]
        assert await order("top_all SIGNAL view") == everything[::2][::-1]
        assert await order("trending") == everything[::2][::-1]
        assert await order("random SEED 1") == await order("random SEED 1")
        assert await order("random SEED 1") != await order("random SEED 2")
        assert sorted(await order("random")) == everything
        top = await engine.query("RETRIEVE items SORT BY top_1h SIGNAL view LIMIT 1")
        first = await engine.query("RETRIEVE items SORT BY random SEED 5 LIMIT 10")
        rest = await engine.query(f'RETRIEVE items SORT BY random LIMIT 14 CURSOR "{first.cursor}"')
        assert ids(first) + ids(rest) == await order("random SEED 5")
    assert scores(top) == {"item_22": 23.0}


async def test_diversity_by_category_counts_the_pages_before(site: Site) -> None:
    query = "RETRIEVE items SORT BY new DIVERSITY max_per_category:2, max_per_creator:9 LIMIT 8"
    async with running(site) as engine:
        first = await engine.query(query)
        second = await engine.query(f'{query} CURSOR "{first.cursor}"')
    assert ids(first) == [f"item_{number:02}" for number in range(8)]
    assert ids(second) == [f"item_{number:02}" for number in range(8, 16)]  # all demoted, in their order


async def test_after_the_deadline_further_sources_are_skipped_and_named(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = sources.SOURCES["trending"]

    class Slow:
        name = "trending"

        def enable(self, context: object) -> bool:
            return True

        def retrieve(self, context: sources.Context, limit: int) -> sources.Retrieved:
            while not context.report.out_of_time():
                time.sleep(0.01)
            return slow.retrieve(context, limit)

    monkeypatch.setitem(sources.SOURCES, "trending", Slow())
    async with running(site) as engine:
        reply = await engine.query("RETRIEVE items FOR USER @u1 USING PROFILE for_you LIMIT 24")
    assert [entry.stage for entry in reply.degraded] == ["newest"]
    assert len(reply.results) == ITEMS  # filled all the same


async def test_every_stage_is_recorded(site: Site) -> None:
    query = """EXPLAIN ANALYZE RETRIEVE items FOR USER @user_1 USING PROFILE for_you
        FILTER category:category_0
        DIVERSITY max_per_creator:1 LIMIT 3"""
    async with running(site) as engine:
        stages = as_json(await engine.query(query))["explain"]["stages"]
    ran = [(stage["stage"], stage["name"]) for stage in stages]
    kinds = [kind for kind, _ in ran]
    assert kinds == sorted(
        kinds, key=["filter", "source", "hydrator", "scorer", "selector", "assembly"].index
    )
    assert {
        ("filter", "visible"),
        ("filter", "predicate"),
        ("filter", "hidden_creators"),
        ("source", "trending"),
        ("source", "newest"),
        ("source", "preference_neighbours"),
        ("hydrator", "similarity"),
        ("scorer", "base"),
        ("selector", "diversity"),
    } <= set(ran)
    assert all(stage["took_us"] >= 0 for stage in stages)
    predicate = next(stage for stage in stages if stage["name"] == "predicate")
    assert (predicate["rows_in"], predicate["rows_out"]) == (ITEMS, 6)


async def test_quality_gates_drop_items(tmp_path: Path) -> None:
    profile = {"popular": {"extends": "trending", "version": 1, "gates": ["view.count(24h) >= 5"]}}
    site = Site(tmp_path, small_schema(profiles=profile))
    for item, views in (("rare", 4), ("common", 5)):
        for turn in range(views):
            site.signal("view", item, f"user_{turn}")
    site.flush()
    async with running(site) as engine:
        assert ids(await engine.query("RETRIEVE items USING PROFILE popular")) == ["common"]
        assert ids(await engine.query("RETRIEVE items USING PROFILE trending")) == ["common", "rare"]


async def test_a_cohort_that_nobody_was_in_is_empty_and_says_so(site: Site) -> None:
    async with running(site) as engine:
        reply = await engine.query("RETRIEVE items USING PROFILE trending COHORT locale:XX")
    assert reply.results == []
    assert "locale 'XX'" in reply.warnings[0]


async def test_signals_before_the_record_count_and_are_shown(site: Site) -> None:
    site.signal("view", "unknown_item", "user_1")
    site.flush()
    async with running(site) as engine:
        reply = await engine.query("RETRIEVE items USING PROFILE trending LIMIT 24")
        assert "unknown_item" in ids(reply)
        site.item("unknown_item", category="category_0")
        site.flush()
        await engine.feeder.step()
        found = await engine.query(
            "RETRIEVE items USING PROFILE trending FILTER category:category_0 LIMIT 24"
        )
        assert "unknown_item" in ids(found)
        site.item("unknown_item", status="archived")
        site.flush()
        await engine.feeder.step()
        gone = await engine.query("RETRIEVE items USING PROFILE trending LIMIT 24")
    assert "unknown_item" not in ids(gone)


async def test_a_state_needs_a_user(site: Site) -> None:
    async with running(site) as engine:
        with pytest.raises(QueryError, match="about a user"):
            await engine.query("RETRIEVE items USING PROFILE trending FILTER unseen")


async def test_a_background_task_that_ends_makes_the_engine_unready(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = site.engine()
    await engine.start()
    assert engine.readiness().ready

    def broken() -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(site.tables, "catch_up", broken)
    for _ in range(200):
        if not engine.readiness().ready:
            break
        await asyncio.sleep(0.01)
    await engine.stop()
    assert "the disk is gone" in engine.readiness().why[0]
