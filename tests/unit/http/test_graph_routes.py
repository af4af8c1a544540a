"""Edges and the graph over HTTP: what the engine is told of a write, limits, and who may ask."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from queryd.errors import NotServed
from queryd.http.access import Caller, Keys
from queryd.http.route import Role
from queryd.http.services import Services
from tests.unit.http.conftest import FakeReader, FakeWriter

Client = TestClient[Any, Any]


async def test_the_engine_is_told_of_acknowledged_edges(client: Client, reader: FakeReader) -> None:
    put = await (await client.put("/v1/relationships/blocks/u1/c1", json={"weight": 0.5, "ts": 77})).json()
    await client.delete("/v1/relationships/blocks/u1/c1")
    first, second = reader.edges_written
    assert first[1:] == ("blocks", "u1", "c1", 0.5, 77)
    assert first.position.encode() == put["position"]
    assert second[1:5] == ("blocks", "u1", "c1", None)
    assert second.position.offset > first.position.offset


async def test_an_edge_that_could_not_hide_is_refused_before_it_is_written(
    client: Client, reader: FakeReader, writer: FakeWriter
) -> None:
    reader.room = False
    reply = await client.put("/v1/relationships/mutes/u1/c1")
    assert reply.status == 503
    assert reply.headers["Retry-After"] == "1"
    assert "mutes" in (await reply.json())["detail"]
    assert not writer.edges
    assert (await client.put("/v1/relationships/follows/u1/c1")).status == 200


async def test_edges_are_listed_in_either_order_or_only_counted(client: Client, reader: FakeReader) -> None:
    reply = await client.get("/v1/relationships/follows/c1?direction=in&order=newest&limit=0")
    assert await reply.json() == {"edges": [], "total": 0, "complete": True}
    given = {"direction": "in", "order": "newest", "limit": 0}
    assert reader.asked[-1] == ("relationships", ("follows", "c1", given))
    assert (await client.get("/v1/relationships/follows/c1?order=oldest")).status == 400
    assert (await client.get("/v1/relationships/follows/c1?limit=-1")).status == 400


async def test_two_hops_and_similar_users(client: Client, reader: FakeReader) -> None:
    assert (await client.get("/v1/users/u1/two-hop?type=follows&fan_out=5&limit=3")).status == 200
    assert reader.asked[-1] == ("two_hops", ("u1", "follows", {"fan_out": 5, "limit": 3}))
    assert (await client.get("/v1/users/u1/similar?state=liked&limit=3")).status == 200
    assert reader.asked[-1] == ("similar_users", ("u1", "liked", {"limit": 3}))


@pytest.mark.parametrize(
    ("path", "status", "nearest"),
    [
        ("two-hop", 400, None),
        ("two-hop?type=folows", 404, "follows"),
        ("two-hop?type=follows&fan_out=101", 400, None),
        ("similar?state=like", 404, "liked"),
        ("similar?limit=0", 400, None),
    ],
)
async def test_bad_questions_are_named(client: Client, path: str, status: int, nearest: str | None) -> None:
    reply = await client.get(f"/v1/users/u1/{path}")
    assert reply.status == status
    errors = (await reply.json())["errors"]
    assert errors[0].get("nearest") == nearest


async def test_what_the_engine_refuses_reads_as_a_problem(client: Client, reader: FakeReader) -> None:
    reader.error = NotServed("users are not found by 'seen'", expected=["liked"])
    reply = await client.get("/v1/users/u1/similar?state=seen")
    assert reply.status == 400
    assert "liked" in (await reply.json())["errors"][0]["message"]


@pytest.mark.parametrize("path", ["/v1/users/u1/two-hop?type=follows", "/v1/users/u1/similar"])
async def test_a_key_of_one_user_reads_nothing_of_others(
    services: Services, client: Client, path: str
) -> None:
    services.keys = Keys([("0123456789abcdef", Caller("app", Role.READ, user="u1"))])
    headers = {"Authorization": "Bearer 0123456789abcdef"}
    assert (await client.get(path, headers=headers)).status == 403
    assert (await client.get("/v1/users/u1/state", headers=headers)).status == 200
