"""Entities in queries: updates need no other step; creators are what their items and edges say."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from materializers.rows.erasures import TABLE, ErasurePart, encode_erasure, erasure_key
from queryd.engine import Engine
from tests.engine_site import NOW_MS, PARTITIONS, Site, ids, running

ALL = "RETRIEVE items USING PROFILE trending WINDOW all_time LIMIT 100"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def changed(site: Site, engine: Engine) -> None:
    site.flush()
    await engine.feeder.step()
    await engine.index_everything()


def _unit(vector: list[float]) -> list[float]:
    exact = np.array(vector)
    return (exact / np.linalg.norm(exact)).astype(np.float32).tolist()


async def test_a_catalog_is_the_mean_of_the_items_as_they_are_now(site: Site) -> None:
    """Random updates, deletes, changes of creator and vectors that go, against a plain recount."""
    rng = random.Random(7)
    items: dict[str, dict[str, Any]] = {}
    async with running(site) as engine:
        for _ in range(60):
            name = f"i{rng.randrange(12)}"
            choice = rng.random()
            if choice < 0.15:
                items.pop(name, None)
                site.delete_item(name)
            else:
                record: dict[str, Any] = {"creator": f"c{rng.randrange(3)}"}
                record["status"] = rng.choice(["active", "active", "archived", "deleted"])
                if rng.random() < 0.7:
                    record["embeddings"] = {"content": [rng.uniform(-1, 1) for _ in range(4)]}
                items[name] = record
                site.item(name, **record)
            if rng.random() < 0.5:
                await changed(site, engine)
        await changed(site, engine)
        for number in range(3):
            facts = await engine.creator_facts(f"c{number}")
            mine = [
                item
                for item in items.values()
                if item["creator"] == f"c{number}" and item["status"] != "deleted"
            ]
            vectors = [_unit(item["embeddings"]["content"]) for item in mine if "embeddings" in item]
            assert facts["catalog"]["items"] == len(mine)
            if vectors:
                mean = np.mean(np.array(vectors, dtype=np.float64), axis=0)
                np.testing.assert_allclose(
                    facts["catalog"]["embeddings"]["content"], mean, rtol=0, atol=1e-12
                )
            else:
                assert facts["catalog"]["embeddings"] == {}


async def test_followers_are_edges_that_do_not_hide(site: Site) -> None:
    site.item("i", creator="zoe")
    for user in ("ann", "bob", "cleo"):
        site.follow(user, "zoe")
    site.unfollow("bob", "zoe")
    site.block("dan", "zoe")
    site.flush()
    async with running(site) as engine:
        facts = await engine.creator_facts("zoe")
        assert facts["followers"] == 2
        assert facts["edges_in"]["follows"] == 2
        assert "blocks" not in facts["edges_in"]
        assert (await engine.creator_facts("nobody"))["catalog"] == {"items": 0, "embeddings": {}}


async def test_a_change_of_creator_moves_ledger_catalog_and_filter(site: Site) -> None:
    site.item("song", creator="zoe", embeddings={"content": [1.0, 0, 0, 0]})
    for user in ("ann", "bob"):
        site.signal("view", "song", user)
    site.flush()
    async with running(site) as engine:

        async def views(creator: str) -> int:
            ledger: Any = await engine.ledger("creator", creator, "view")
            return 0 if ledger is None else ledger.all_time.count

        async def filtered(creator: str) -> list[str]:
            return ids(await engine.query(f"{ALL.replace('WINDOW', f'FILTER creator:{creator} WINDOW')}"))

        assert (await views("zoe"), await filtered("zoe")) == (2, ["song"])
        site.item("song", creator="yan", embeddings={"content": [1.0, 0, 0, 0]})
        await changed(site, engine)
        assert (await views("yan"), await filtered("yan")) == (2, ["song"])
        assert (await views("zoe"), await filtered("zoe")) == (0, [])
        assert (await engine.creator_facts("zoe"))["catalog"]["items"] == 0
        assert (await engine.creator_facts("yan"))["catalog"]["items"] == 1


async def test_signals_before_any_record_count_and_the_record_joins_them(site: Site) -> None:
    site.signal("view", "unknown", "stranger")
    site.flush()
    async with running(site) as engine:
        assert ids(await engine.query(ALL)) == ["unknown"]
        assert (await engine.user_state("stranger", "seen"))["states"]["seen"]["items"] == ["unknown"]
        site.item("unknown", creator="late", title="At last")
        site.user("stranger", locale="US")
        await changed(site, engine)
        ledger: Any = await engine.ledger("creator", "late", "view")
        assert ledger.all_time.count == 1
        assert ids(await engine.query('SEARCH items QUERY "last"')) == ["unknown"]
        assert await engine.record("creator", "late") is None


async def test_updates_reach_every_index_at_once(site: Site) -> None:
    site.item(
        "a", category="music", tags=["x"], duration_s=5.0, title="Piano", embeddings={"content": [1, 0, 0, 0]}
    )
    site.item(
        "b",
        category="music",
        tags=["y"],
        duration_s=9.0,
        title="Cello",
        embeddings={"content": [1, 0, 0, 0.1]},
    )
    for item in ("a", "b"):
        site.signal("view", item, "ann")
    site.flush()
    near = "RETRIEVE items WITHIN SIMILAR TO @item:b LIMIT 10"
    async with running(site) as engine:

        async def found(predicate: str) -> list[str]:
            return sorted(ids(await engine.query(ALL.replace("WINDOW", f"FILTER {predicate} WINDOW"))))

        assert await found("category:music") == ["a", "b"]
        assert ids(await engine.query(near)) == ["a"]
        site.item("a", category="food", tags=["y", "z"], duration_s=50.0, title="Bread")
        await changed(site, engine)
        assert await found("category:music") == ["b"]
        assert await found("tags CONTAINS y") == ["a", "b"]
        assert await found("tags CONTAINS x") == []
        assert await found("duration_s > 10") == ["a"]
        assert ids(await engine.query('SEARCH items QUERY "piano"')) == []
        assert ids(await engine.query('SEARCH items QUERY "bread"')) == ["a"]
        assert ids(await engine.query(near)) == []  # its vector is gone
        site.item("a", category="food", status="archived", title="Bread")
        await changed(site, engine)
        assert ids(await engine.query(ALL)) == ["b"]
        assert ids(await engine.query('SEARCH items QUERY "bread"')) == []
        assert b"archived" in (await engine.record("item", "a") or b"")
        site.item("a", category="food", status="deleted")
        await changed(site, engine)
        assert await engine.record("item", "a") is None
        assert ids(await engine.query(ALL)) == ["b"]
        site.item("a", category="food", title="Bread again")
        await changed(site, engine)
        assert sorted(ids(await engine.query(ALL))) == ["a", "b"]  # its counts were kept


async def test_a_user_with_the_status_deleted_is_in_no_cohort(site: Site) -> None:
    site.user("ann", locale="US")
    site.user("bob", locale="US", status="deleted")
    site.flush()
    async with running(site) as engine:
        assert (await engine.cohort_size("locale:US"))["users"] == 1
        assert await engine.record("user", "bob") is None


async def test_an_erasure_is_reported_part_by_part(site: Site) -> None:
    source = (1, 42)
    async with running(site) as engine:
        report = await engine.erasure("1-42")
        assert report is not None
        assert (report["state"], report["asked_ms"]) == ("pending", None)
        rows = {ErasurePart.RECORD: {"users": 1}, ErasurePart.USER: {"user_state": 3, "dedup": 1}}
        for part, erased in rows.items():
            _report(site, 1, erasure_key(source, part), encode_erasure(NOW_MS, erased))
        for number in range(PARTITIONS):
            for part in (ErasurePart.EDGES, ErasurePart.ITEM):
                key = erasure_key(source, part)
                _report(
                    site,
                    number,
                    key,
                    encode_erasure(NOW_MS, {"edges": 2} if part is ErasurePart.EDGES else {}),
                )
        report = await engine.erasure("1-42")
        assert report is not None
        assert report["state"] == "erased"
        assert report["rows"] == {"dedup": 1, "edges": 2 * PARTITIONS, "user_state": 3, "users": 1}
        for rows_of in site.rows.values():
            table = rows_of.tables[TABLE]
            table.update({key: encode_erasure(NOW_MS, {}, NOW_MS + 5) for key in table})
        report = await engine.erasure("1-42")
        assert report is not None
        assert (report["state"], report["wiped_ms"]) == ("done", NOW_MS + 5)
        assert {each["topic"] for each in report["remains"]} >= {"tidal.signals", "tidal.users"}
        for unknown in ("1-x", "", "7-1", "1-2-3"):
            assert await engine.erasure(unknown) is None


def _report(site: Site, partition: int, key: bytes, value: bytes) -> None:
    site.rows[partition].tables.setdefault(TABLE, {})[key] = value
