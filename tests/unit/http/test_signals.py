"""POST /v1/signals."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from queryd.http.access import Caller, Keys
from queryd.http.route import Role
from queryd.http.services import Services
from streams.errors import QueueFullError
from streams.positions import Positions
from tests.unit.http.conftest import FakeWriter

Client = TestClient[Any, Any]
EVENT = {"kind": "like", "item": "item_I", "user": "user_U", "ts": 1_700_000_000_000}


async def test_one_event(client: Client, writer: FakeWriter) -> None:
    reply = await client.post("/v1/signals", json=EVENT)
    assert reply.status == 202
    body = await reply.json()
    assert body["accepted"] == 1
    assert body["duplicates"] is None
    assert body["rejected"] == []
    assert list(Positions.parse(body["position"]))
    assert writer.columns[0].items == ["item_I"]
    assert writer.columns[0].ts_ms.tolist() == [1_700_000_000_000]


async def test_an_array_keeps_the_good_ones_and_names_the_others(client: Client, writer: FakeWriter) -> None:
    events = [EVENT, {**EVENT, "kind": "lik"}, {**EVENT, "item": "x" * 300}, {**EVENT, "item": "item_2"}]
    reply = await client.post("/v1/signals", json=events)
    assert reply.status == 202
    body = await reply.json()
    assert body["accepted"] == 2
    assert [(r["index"], r["code"]) for r in body["rejected"]] == [(1, "unknown_kind"), (2, "id_too_long")]
    assert len(writer.columns[0]) == 2


@pytest.mark.parametrize(
    ("change", "code", "path"),
    [
        ({"kind": "lik"}, "unknown_kind", "$.kind"),
        ({"item": "x" * 300}, "id_too_long", "$.item"),
        ({"item": ""}, "id_empty", "$.item"),
        ({"ts": 4_000_000_000_000}, "timestamp_in_future", "$.ts"),
        ({"weight": "heavy"}, "wrong_type", "$.weight"),
        ({"item": None}, "wrong_type", "$.item"),
    ],
)
async def test_a_bad_event_names_its_field(
    client: Client, writer: FakeWriter, change: dict[str, Any], code: str, path: str
) -> None:
    reply = await client.post("/v1/signals", json={**EVENT, **change})
    assert reply.status == 422
    assert reply.content_type == "application/problem+json"
    body = await reply.json()
    assert body["type"] == f"urn:tidal:problem:{code}"
    assert [error["path"] for error in body["errors"]] == [path]
    assert writer.columns == []


@pytest.mark.parametrize("weight", [math.nan, math.inf])
async def test_a_weight_that_is_no_number(client: Client, weight: float) -> None:
    reply = await client.post("/v1/signals", data=json.dumps({**EVENT, "weight": weight}))
    assert reply.status == 422
    body = await reply.json()
    assert body["type"] == "urn:tidal:problem:non_finite_weight"
    assert body["errors"][0]["path"] == "$.weight"


@pytest.mark.parametrize("body", [b"", b"{", b'{"kind": "like"', b"\xff\xfe", b"nonsense"])
async def test_a_body_that_is_no_json(client: Client, body: bytes) -> None:
    reply = await client.post("/v1/signals", data=body)
    assert reply.status == 400
    assert (await reply.json())["type"] == "urn:tidal:problem:malformed_json"


async def test_an_array_without_a_good_event(client: Client, writer: FakeWriter) -> None:
    reply = await client.post("/v1/signals", json=[{**EVENT, "kind": "no"}, {**EVENT, "item": ""}])
    assert reply.status == 422
    body = await reply.json()
    assert [error["path"] for error in body["errors"]] == ["$[0].kind", "$[1].item"]
    assert writer.columns == []


async def test_an_empty_array(client: Client) -> None:
    assert (await client.post("/v1/signals", json=[])).status == 422


async def test_too_many_events(client: Client, writer: FakeWriter) -> None:
    reply = await client.post("/v1/signals", json=[EVENT] * 1001)
    assert reply.status == 422
    body = await reply.json()
    assert body["limit"] == "max_array_events"
    assert writer.columns == []


async def test_as_many_events_as_allowed(client: Client) -> None:
    reply = await client.post("/v1/signals", json=[EVENT] * 1000)
    assert (await reply.json())["accepted"] == 1000


async def test_a_full_queue_is_told_to_the_caller(client: Client, writer: FakeWriter) -> None:
    writer.error = QueueFullError("no room")
    reply = await client.post("/v1/signals", json=EVENT)
    assert reply.status == 503
    assert reply.headers["Retry-After"] == "1"
    assert (await reply.json())["type"] == "urn:tidal:problem:log_unavailable"


async def test_a_key_of_one_user_publishes_only_for_that_user(services: Services, client: Client) -> None:
    services.keys = Keys([("a-secret-of-the-app", Caller("app", Role.WRITE, user="user_U"))])
    headers = {"Authorization": "Bearer a-secret-of-the-app"}
    mixed = [{**EVENT, "user": "other"}, EVENT, {**EVENT, "kind": "no"}]
    reply = await client.post("/v1/signals", json=mixed, headers=headers)
    assert reply.status == 202
    body = await reply.json()
    assert body["accepted"] == 1
    assert [(r["index"], r["code"]) for r in body["rejected"]] == [(0, "other_user"), (2, "unknown_kind")]
    reply = await client.post("/v1/signals", json={**EVENT, "user": "other"}, headers=headers)
    assert reply.status == 403
