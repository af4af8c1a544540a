"""Entity records and relationships."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestClient

from queryd.http.handlers.entities import REMEMBERED_MAX, EntityWrites, merge_patch
from streams.positions import Position
from tests.unit.http.conftest import FakeReader, FakeWriter

Client = TestClient[Any, Any]


@pytest.mark.parametrize(("plural", "kind"), [("items", "item"), ("users", "user"), ("creators", "creator")])
async def test_put(client: Client, writer: FakeWriter, plural: str, kind: str) -> None:
    reply = await client.put(f"/v1/{plural}/x1", json={"name": "X"})
    assert reply.status == 200
    assert (await reply.json())["id"] == "x1"
    assert writer.entities == [(kind, "x1", {"id": "x1", "name": "X"})]


async def test_ids_may_hold_anything(client: Client, writer: FakeWriter) -> None:
    from yarl import URL

    reply = await client.put(URL("/v1/items/a%2Fb%20%C3%A9%3Fx", encoded=True), json={})
    assert reply.status == 200
    assert writer.entities[0][1] == "a/b é?x"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"id": "other"}, "$.id"),
        ({"created_at": "soon"}, "$.created_at"),
        ({"created_at": 4_000_000_000_000}, "$.created_at"),
        ({"status": "gone"}, "$.status"),
        ({"embeddings": {"content": [1.0, 2.0]}}, "$.embeddings.content"),
        ({"creator": "c" * 300}, "$.creator"),
    ],
)
async def test_a_bad_field_is_named(client: Client, writer: FakeWriter, body: Any, path: str) -> None:
    reply = await client.put("/v1/items/x1", json=body)
    assert reply.status == 422
    assert (await reply.json())["errors"][0]["path"] == path
    assert writer.entities == []


async def test_a_number_that_is_none_is_named(client: Client) -> None:
    body = b'{"embeddings": {"content": [NaN]}}'
    reply = await client.put("/v1/items/x1", data=body)
    assert reply.status in (400, 422)
    assert reply.content_type == "application/problem+json"


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"text"'])
async def test_a_record_is_an_object(client: Client, writer: FakeWriter, body: bytes) -> None:
    reply = await client.put("/v1/items/x1", data=body)
    assert reply.status == 422
    assert writer.entities == []


async def test_an_id_that_is_too_long(client: Client) -> None:
    reply = await client.put("/v1/items/" + "x" * 300, json={})
    assert reply.status == 422
    assert (await reply.json())["type"] == "urn:tidal:problem:id_too_long"


async def test_get(client: Client, reader: FakeReader) -> None:
    reader.records["item", "x1"] = b'{"id":"x1","title":"T"}'
    reply = await client.get("/v1/items/x1")
    assert await reply.json() == {"id": "x1", "title": "T"}
    assert (await client.get("/v1/items/x2")).status == 404


async def test_delete(client: Client, writer: FakeWriter) -> None:
    reply = await client.delete("/v1/users/u1")
    assert reply.status == 200
    assert writer.entities == [("user", "u1", None)]


async def test_patch_merges_into_the_record(client: Client, reader: FakeReader, writer: FakeWriter) -> None:
    reader.records["item", "x1"] = b'{"id":"x1","title":"T","tags":["a"],"category":"c"}'
    reply = await client.patch("/v1/items/x1", json={"title": "U", "category": None, "format": "video"})
    assert reply.status == 200
    assert writer.entities == [("item", "x1", {"id": "x1", "title": "U", "tags": ["a"], "format": "video"})]


async def test_patch_of_nothing(client: Client) -> None:
    assert (await client.patch("/v1/items/x1", json={"title": "U"})).status == 404


async def test_patch_is_validated_whole(client: Client, reader: FakeReader, writer: FakeWriter) -> None:
    reader.records["item", "x1"] = b'{"id":"x1"}'
    reply = await client.patch("/v1/items/x1", json={"status": "gone"})
    assert reply.status == 422
    assert writer.entities == []


async def test_a_second_patch_waits_for_the_first(client: Client, reader: FakeReader) -> None:
    reader.records["item", "x1"] = b'{"id":"x1"}'
    await client.patch("/v1/items/x1", json={"title": "U"})
    assert reader.asked == []
    await client.patch("/v1/items/x1", json={"title": "V"})
    assert [name for name, _ in reader.asked] == ["wait_applied"]
    reader.applied = False
    reply = await client.patch("/v1/items/x1", json={"title": "W"})
    assert reply.status == 503
    assert (await reply.json())["type"] == "urn:tidal:problem:not_visible_yet"


async def test_batch(client: Client, writer: FakeWriter) -> None:
    records = [{"id": "a", "age": 20}, {"age": 3}, {"id": "b", "status": "gone"}, 7, {"id": "c"}]
    reply = await client.post("/v1/users:batch", json=records)
    assert reply.status == 200
    body = await reply.json()
    assert [written["id"] for written in body["written"]] == ["a", "c"]
    assert [(r["index"], r["path"]) for r in body["rejected"]] == [(1, "$.id"), (2, "$.status"), (3, "$")]
    assert [id for _, id, _ in writer.entities] == ["a", "c"]


async def test_batch_without_a_good_record(client: Client) -> None:
    reply = await client.post("/v1/users:batch", json=[{"age": 3}])
    assert reply.status == 422
    assert (await reply.json())["errors"][0]["path"] == "$[0].id"


async def test_batch_that_is_too_large(client: Client) -> None:
    reply = await client.post("/v1/users:batch", json=[{"id": str(i)} for i in range(1001)])
    assert reply.status == 422
    assert (await reply.json())["limit"] == "max_array_events"


def test_merge_patch_examples() -> None:
    """Cases of RFC 7396, appendix A, whose target and patch are objects."""
    cases: list[tuple[Any, Any, Any]] = [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ]
    for target, patch, expected in cases:
        assert merge_patch(target, patch) == expected


def test_remembered_writes_are_bounded() -> None:
    writes = EntityWrites()
    for index in range(REMEMBERED_MAX + 10):
        writes.remember("item", str(index), Position("tidal.items", 0, index))
    assert writes.last("item", "0") is None
    assert writes.last("item", str(REMEMBERED_MAX)) is not None


async def test_put_relationship(client: Client, writer: FakeWriter) -> None:
    reply = await client.put("/v1/relationships/follows/u1/c1")
    assert reply.status == 200
    type, source, target, record = writer.edges[0]
    assert (type, source, target) == ("follows", "u1", "c1")
    assert record is not None
    assert record["weight"] == 1.0


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("follow/u1/c1", None, 404),
        ("interaction_weight/u1/c1", None, 422),
        ("follows/u1/" + "c" * 300, None, 422),
        ("follows/u1/c1", {"weight": "much"}, 422),
        ("follows/u1/c1", {"wait": 1.0}, 422),
    ],
)
async def test_bad_relationships(
    client: Client, writer: FakeWriter, path: str, body: Any, status: int
) -> None:
    data = None if body is None else msgspec.json.encode(body)
    reply = await client.put(f"/v1/relationships/{path}", data=data)
    assert reply.status == status
    assert writer.edges == []


async def test_an_unknown_type_gets_the_nearest(client: Client) -> None:
    body = await (await client.put("/v1/relationships/follow/u1/c1")).json()
    assert body["errors"][0]["nearest"] == "follows"


async def test_read_relationships(client: Client, reader: FakeReader) -> None:
    assert (await client.get("/v1/relationships/follows/u1/c1")).status == 404
    reader.edge = {"type": "follows", "from": "u1", "to": "c1", "weight": 1.0, "updated_at": 5}
    assert (await client.get("/v1/relationships/follows/u1/c1")).status == 200
    await client.get("/v1/relationships/follows/u1?direction=in&limit=7")
    assert reader.asked[-1] == ("relationships", ("follows", "u1", {"direction": "in", "limit": 7}))
    assert (await client.delete("/v1/relationships/follows/u1/c1")).status == 200


async def test_deleting_a_user_answers_how_to_ask_what_became_of_it(
    client: Client, writer: FakeWriter
) -> None:
    reply = await (await client.delete("/v1/users/ann")).json()
    position = Position.parse(reply["position"])
    assert reply["erasure"] == f"{position.partition}-{position.offset}"
    assert writer.entities == [("user", "ann", None)]
    told = await client.get(f"/v1/erasures/{reply['erasure']}")
    assert (await told.json())["state"] == "pending"
    assert (await client.get("/v1/erasures/9-9")).status == 404
    assert "erasure" not in await (await client.delete("/v1/items/film")).json()


async def test_a_creator_comes_with_its_catalog_and_followers(client: Client, reader: FakeReader) -> None:
    reader.records["creator", "clara"] = b'{"id":"clara","name":"Clara"}'
    found = await (await client.get("/v1/creators/clara")).json()
    assert found["name"] == "Clara"
    assert found["catalog"]["items"] == 2
    assert found["followers"] == 3


async def test_an_id_that_reads_as_another_ones_key_is_refused(client: Client, writer: FakeWriter) -> None:
    from yarl import URL

    reply = await client.put(URL("/v1/items/%22film%22", encoded=True), json={})
    assert reply.status == 422
    assert writer.entities == []


async def test_writes_of_one_entity_wait_for_each_other() -> None:
    writes = EntityWrites()
    order: list[str] = []

    async def write(name: str, ids: list[str]) -> None:
        async with writes.alone("item", ids):
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    await asyncio.gather(write("batch", ["b", "a"]), write("patch", ["a"]), write("put", ["b"]))
    places = {line: at for at, line in enumerate(order)}
    assert places["batch ends"] < min(places["patch begins"], places["put begins"])


async def test_nobody_waits_for_somebody_who_waits() -> None:
    writes = EntityWrites()
    names = [f"i{number}" for number in range(600)]

    async def write(ids: list[str]) -> None:
        async with writes.alone("item", ids):
            await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await asyncio.gather(*(write(names[start:] + names[:start]) for start in range(0, 600, 20)))
