"""Edges, counts, two hops, users alike and hiding on the next query, held against plain recounts."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from pathlib import Path

import pytest

from materializers.materializer import Scope
from queryd.errors import CursorError, NotServed, QueryError
from queryd.hot.edges_ahead import AheadWrite
from schemas.records.entities import EdgeRecord
from streams.partitioner import partition_for
from streams.positions import Position
from streams.topics import RELATIONSHIPS
from tests.engine_site import HOUR_MS, NOW_MS, PARTITIONS, Site, ids, running, small_schema

CLOSE_HALF_LIFE = "24h"


def social(tmp_path: Path) -> Site:
    schema = small_schema(
        relationships={"trusts": {"explicit": True, "half_life": CLOSE_HALF_LIFE}},
        states=["treasured"],
        co_engagement=["liked", "treasured"],
        signals={"treasure": {"state": ["treasured", "liked"], "clears": "hidden"}},
    )
    return Site(tmp_path, schema)


def weighted(site: Site, kind: str, source: str, target: str, weight: float, age_ms: int = 0) -> None:
    site.edge(kind, source, target, EdgeRecord(kind, source, target, weight, NOW_MS - age_ms))


async def test_edges_decay_are_ordered_and_counted(tmp_path: Path) -> None:
    site = social(tmp_path)
    for number in range(12):
        weighted(site, "trusts", f"u{number}", "c", 1.0, age_ms=number * HOUR_MS)
    weighted(site, "trusts", "u3", "d", 0.25)
    site.edge("trusts", "u5", "c", None)
    site.flush()
    async with running(site) as engine:
        into = await engine.relationships("trusts", "c", "in", limit=4)
        oldest = await engine.relationships("trusts", "c", "in", limit=100, order="newest")
        out = await engine.relationships("trusts", "u3", limit=10)
        number = await engine.relationships("trusts", "c", "in", limit=0)
        one = await engine.relationship("trusts", "u6", "c")
        assert await engine.relationship("trusts", "u5", "c") is None
        nobody = await engine.relationships("trusts", "nobody")
    assert [edge["from"] for edge in into["edges"]] == ["u0", "u1", "u2", "u3"]
    assert into["edges"][3]["weight"] == pytest.approx(2 ** (-3 / 24))
    assert (into["total"], into["complete"]) == (11, True)
    assert [edge["from"] for edge in oldest["edges"]] == [f"u{n}" for n in range(12) if n != 5]
    assert [edge["to"] for edge in out["edges"]] == ["c", "d"]
    assert number == {"edges": [], "total": 11, "complete": True}
    assert one is not None
    assert one["weight"] == pytest.approx(2 ** (-6 / 24))
    assert nobody == {"edges": [], "total": 0, "complete": True}


async def test_who_has_more_edges_than_one_answer_reads_is_counted_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queryd.user_reads.FAN_OUT_MAX", 5)
    site = social(tmp_path)
    for number in range(8):
        site.follow(f"u{number}", "c")
    site.flush()
    async with running(site) as engine:
        found = await engine.relationships("follows", "c", "in")
    assert (found["total"], found["complete"]) == (8, False)


@pytest.mark.parametrize("edges_at_once", [1, 3, 100])
async def test_edges_are_read_in_pages_without_losing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edges_at_once: int
) -> None:
    monkeypatch.setattr("queryd.hot.users._EDGES_AT_ONCE", edges_at_once)
    site = social(tmp_path)
    for number in range(20):
        site.follow(f"u{number}", "c")
    site.flush()
    async with running(site) as engine:
        found = await engine.relationships("follows", "c", "in")
    assert sorted(edge["from"] for edge in found["edges"]) == sorted(f"u{number}" for number in range(20))


async def test_a_tie_to_an_item_is_none_to_a_creator_of_the_same_name(tmp_path: Path) -> None:
    site = social(tmp_path)
    site.item("namesake", creator="other")
    site.item("song", creator="namesake")
    for item in ("namesake", "song"):
        site.signal("view", item, "somebody")
    site.signal("like", "namesake", "ann")
    site.flush()
    async with running(site) as engine:
        reply = await engine.query(
            "EXPLAIN ANALYZE RETRIEVE items FOR USER @ann USING PROFILE for_you LIMIT 9"
        )
    terms = {row.id: {term.term: term.value for term in row.terms} for row in reply.results}
    assert terms["song"]["relationship"] == 0.0
    assert terms["namesake"]["relationship"] == pytest.approx(0.15)


async def test_edges_to_items_name_the_items(tmp_path: Path) -> None:
    site = social(tmp_path)
    site.signal("like", "without_a_record", "ann", ago_ms=30 * 24 * HOUR_MS)
    site.signal("share", "other", "ann")
    site.flush()
    async with running(site) as engine:
        found = await engine.relationships("engagement_affinity", "ann")
        one = await engine.relationship("engagement_affinity", "ann", "other")
        everything = await engine.user_relationships("ann")
        with pytest.raises(NotServed):
            await engine.relationships("engagement_affinity", "other", "in")
    assert [(edge["to"], edge["weight"]) for edge in found["edges"]] == [
        ("other", pytest.approx(0.35)),
        ("without_a_record", pytest.approx(0.15)),
    ]
    assert one == found["edges"][0]
    assert [edge["type"] for edge in everything["edges"]] == ["engagement_affinity"] * 2


async def test_two_hops_equal_a_walk_over_all_edges(tmp_path: Path) -> None:
    site = social(tmp_path)
    chance = random.Random(5)
    people = [f"p{number}" for number in range(25)]
    edges: dict[str, dict[str, float]] = defaultdict(dict)
    for source in people:
        for target in chance.sample(people, 6):
            edges[source][target] = round(chance.random(), 3)
            weighted(site, "trusts", source, target, edges[source][target])
    site.flush()
    fan_out = 4

    def heaviest(source: str) -> list[tuple[str, float]]:
        return sorted(edges[source].items(), key=lambda edge: (-edge[1], edge[0]))[:fan_out]

    expected: dict[str, list[float]] = defaultdict(list)
    for middle, first in heaviest("p0"):
        for target, second in heaviest(middle):
            if target != "p0" and target not in edges["p0"]:
                expected[target].append(first * second)
    async with running(site) as engine:
        found = await engine.two_hops("p0", "trusts", fan_out=fan_out, limit=100)
        nobody = await engine.two_hops("nobody", "trusts")
        with pytest.raises(QueryError, match="interaction_weight"):
            await engine.two_hops("p0", "interaction_weight")
    assert {each["id"]: each["paths"] for each in found["reached"]} == {
        target: len(weights) for target, weights in expected.items()
    }
    assert [each["weight"] for each in found["reached"]] == pytest.approx(
        sorted((sum(weights) for weights in expected.values()), reverse=True)
    )
    assert nobody["reached"] == []


async def test_users_alike_equal_a_comparison_of_everybody(tmp_path: Path) -> None:
    site = social(tmp_path)
    chance = random.Random(3)
    liked: dict[str, set[str]] = defaultdict(set)
    for user in range(40):
        for item in chance.sample(range(60), 8):
            liked[f"u{user}"].add(f"i{item}")
            site.signal("like", f"i{item}", f"u{user}")
    for item in sorted(liked["u7"])[:3]:  # no longer shared: the sample of the item still has u7
        liked["u7"].discard(item)
        site.signal("unlike", item, "u7")
    site.flush()
    expected = {
        other: len(theirs & liked["u0"]) / math.sqrt(len(theirs) * len(liked["u0"]))
        for other, theirs in liked.items()
        if other != "u0" and theirs & liked["u0"]
    }
    async with running(site) as engine:
        found = await engine.similar_users("u0", "liked", limit=200)
        first = await engine.similar_users("u0", limit=3)
        nobody = await engine.similar_users("nobody", "liked")
        with pytest.raises(NotServed, match="treasured"):
            await engine.similar_users("u0", "seen")
    assert {each["id"]: each["score"] for each in found["users"]} == pytest.approx(expected)
    ranked = sorted(expected, key=lambda other: (-expected[other], other))
    assert [each["id"] for each in found["users"]] == ranked
    assert (first["state"], first["users"]) == ("liked", found["users"][:3])
    assert nobody["users"] == []


async def test_a_block_hides_on_the_next_query_and_hands_over_to_the_tables(tmp_path: Path) -> None:
    site = social(tmp_path)
    for number in range(6):
        site.item(f"i{number}", creator=f"c{number % 2}")
        site.signal("view", f"i{number}", "somebody")
    site.flush()
    page = "RETRIEVE items FOR USER @ann USING PROFILE trending LIMIT 10"
    home = partition_for(b"ann", PARTITIONS)

    def acknowledged(offset: int, kind: str, weight: float | None) -> AheadWrite:
        return AheadWrite(Position(RELATIONSHIPS, home, offset), kind, "ann", "c1", weight, NOW_MS)

    async with running(site) as engine:
        assert set(ids(await engine.query(page))) == {f"i{n}" for n in range(6)}
        for kind in ("blocks", "mutes"):
            engine.edge_written(acknowledged(10, kind, 1.0))
            assert set(ids(await engine.query(page))) == {"i0", "i2", "i4"}
            assert await engine.relationship(kind, "ann", "c1") is not None
            engine.edge_written(acknowledged(11, kind, None))
            assert len(ids(await engine.query(page))) == 6
            assert await engine.relationship(kind, "ann", "c1") is None
        engine.edge_written(acknowledged(12, "follows", 1.0))  # hides nothing: AFTER is how to see it
        assert await engine.relationship("follows", "ann", "c1") is None
        engine.edge_written(acknowledged(13, "blocks", 1.0))
        # The tables apply the block, and an unblock that somebody wrote elsewhere: they decide from then on.
        site.tables.offsets[Scope.ENTITY, home] = {RELATIONSHIPS: 14}
        await engine.feeder.step()
        assert len(ids(await engine.query(page))) == 6


async def test_states_are_paged_by_opaque_cursors(tmp_path: Path) -> None:
    site = social(tmp_path)
    liked = sorted(f"i{number}" for number in range(25))
    for item in liked:
        site.signal("like", item, "ann")
    site.flush()
    async with running(site) as engine:
        seen: list[str] = []
        cursor: str | None = None
        while True:
            reply = await engine.user_state("ann", state="liked", limit=10, cursor=cursor)
            seen += reply["states"]["liked"]["items"]
            assert reply["states"]["liked"]["count"] == 25
            cursor = reply.get("cursor")
            if cursor is None:
                break
            assert seen[-1] not in cursor
        everything = await engine.user_state("ann", limit=2)
        nobody = await engine.user_state("nobody")
        with pytest.raises(CursorError):
            await engine.user_state("ann", state="liked", cursor="i9")
        with pytest.raises(QueryError, match="state="):
            await engine.user_state("ann", cursor="anything")
    assert seen == liked
    assert everything["states"]["liked"] == {"count": 25, "items": liked[:2]}
    assert "cursor" not in everything
    assert all(state == {"count": 0, "items": []} for state in nobody["states"].values())


async def test_a_state_and_an_edge_type_of_the_yaml_alone_work_everywhere(tmp_path: Path) -> None:
    """Names that no file of the engine has: declared, signalled, written, read, filtered and ranked by."""
    site = social(tmp_path)
    for number in range(4):
        site.item(f"i{number}", creator=f"c{number}")
        site.signal("view", f"i{number}", "somebody")
    site.signal("hide", "i1", "ann")
    site.signal("treasure", "i1", "ann")  # sets two states and clears one
    weighted(site, "trusts", "ann", "c2", 0.5)
    site.flush()
    page = "RETRIEVE items FOR USER @ann USING PROFILE trending LIMIT 10"
    async with running(site) as engine:
        states = (await engine.user_state("ann"))["states"]
        filtered = await engine.query(page.replace("LIMIT", "FILTER NOT treasured LIMIT"))
        kept = await engine.query(page.replace("LIMIT", "FILTER treasured LIMIT"))
        followed = await engine.query(page.replace("LIMIT", "WITHIN FOLLOWING LIMIT"))
        edge = await engine.relationship("trusts", "ann", "c2")
        alike = await engine.similar_users("ann", "treasured")
    assert states["treasured"]["items"] == states["liked"]["items"] == ["i1"]
    assert states["hidden"]["items"] == []
    assert set(ids(filtered)) == {"i0", "i2", "i3"}
    assert ids(kept) == ["i1"]
    assert ids(followed) == ["i2"]
    assert edge is not None
    assert edge["weight"] == 0.5
    assert alike["users"] == []
