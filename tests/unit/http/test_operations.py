"""OpenAPI, pages, readiness, metrics, and errors that belong to no route."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestClient

from queryd.http.examples import REPLIES
from queryd.http.middleware import IN_FLIGHT_MAX
from queryd.http.openapi import openapi_document
from queryd.http.restores import unfinished
from queryd.http.routes import all_routes
from queryd.http.services import Services
from queryd.http.shapes import ProblemDocument
from queryd.log_lag import Lag
from schemas.default import default_schema
from schemas.loading import load_schema
from tests.json_schema import faults
from tests.unit.http.conftest import FakeLag, FakeReader, FakeReadiness

Client = TestClient[Any, Any]
CONTRACT = [
    "POST /v1/signals",
    *[
        f"{m} /v1/{k}/{{id}}"
        for m in ("PUT", "PATCH", "GET", "DELETE")
        for k in ("items", "users", "creators")
    ],
    *[f"POST /v1/{k}:batch" for k in ("items", "users", "creators")],
    *[f"{m} /v1/relationships/{{type}}/{{from}}/{{to}}" for m in ("PUT", "DELETE", "GET")],
    "GET /v1/relationships/{type}/{from}",
    "POST /v1/query",
    "GET /v1/retrieve",
    "GET /v1/search",
    "GET /v1/suggest",
    "GET /v1/items/{id}/signals",
    "GET /v1/creators/{id}/signals",
    "GET /v1/users/{id}/state",
    "GET /v1/users/{id}/relationships",
    "GET /v1/users/{id}/preference",
    "GET /v1/users/{id}/segments",
    "GET /v1/users/{id}/two-hop",
    "GET /v1/users/{id}/similar",
    "GET /v1/erasures/{erasure}",
    "GET /v1/cohorts",
    "GET /v1/cohorts/size",
    "GET /v1/cohorts/compare",
    "GET /v1/schema",
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
    "GET /v1/status",
    "GET /openapi.json",
    "GET /docs",
    "GET /",
]


def test_the_contract_is_served() -> None:
    assert {f"{route.method} {route.path}" for route in all_routes()} == set(CONTRACT)


async def test_openapi_has_every_route_of_the_router(client: Client) -> None:
    """The router is asked, not the table: what answers is documented, and what is documented answers."""
    document = await (await client.get("/openapi.json")).json()
    documented = {
        f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods
    }
    served = {
        f"{route.method} {route.resource.canonical}"
        for route in client.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert documented == served


def test_openapi_is_well_formed() -> None:
    document = openapi_document(all_routes(), "1.2.3", default_schema())
    assert document["openapi"] == "3.1.0"
    text = json.dumps(document)
    references = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert references <= set(document["components"]["schemas"])
    assert "ProblemDocument" in references
    ids = [op["operationId"] for methods in document["paths"].values() for op in methods.values()]
    assert len(ids) == len(set(ids))


def test_records_are_described_as_the_site_declares_them() -> None:
    site = load_schema({"name": "s", "entities": {"item": {"fields": {"pages": "int"}, "strict": True}}})
    document = openapi_document(all_routes(), "1", site)
    body = document["paths"]["/v1/items/{id}"]["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert list(faults({"id": "a", "pages": 3}, body, document)) == []
    assert list(faults({"pages": "three"}, body, document)) == ['$.pages: "three" is no integer']
    assert list(faults({"titel": "x"}, body, document)) == ["$: titel is not described"]
    assert list(faults({"embeddings": {"content": [1.0]}}, body, document)) == [
        "$.embeddings.content: 1 entries, expected 384"
    ]


def test_examples_of_replies_are_as_their_schemas_say() -> None:
    document = openapi_document(all_routes(), "1", default_schema())
    shown = set()
    for operation in (each for methods in document["paths"].values() for each in methods.values()):
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                if "example" in content:
                    assert list(faults(content["example"], content["schema"], document)) == []
                    shown.add(operation["operationId"])
    assert set(REPLIES) <= shown


@pytest.mark.parametrize("path", sorted({route.path for route in all_routes()}))
def test_path_parameters_are_declared(path: str) -> None:
    document = openapi_document(all_routes(), "1", default_schema())
    for operation in document["paths"][path].values():
        declared = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
        assert declared == re.findall(r"\{(\w+)\}", path)


async def test_examples_are_accepted(client: Client) -> None:
    """The documentation's own examples work."""
    document = await (await client.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for media, content in operation.get("requestBody", {}).get("content", {}).items():
                if "example" not in content or method == "patch":
                    continue
                example = content["example"]
                url = re.sub(r"\{type\}", "follows", path)
                name = example.get("id") if isinstance(example, dict) else None
                url = re.sub(r"\{\w+\}", name or "x", url)
                data = example if isinstance(example, str) else json.dumps(example)
                reply = await client.request(method, url, data=data, headers={"Content-Type": media})
                assert reply.status in (200, 202), f"{method} {url}: {await reply.text()}"


@pytest.mark.parametrize("path", ["/docs", "/"])
async def test_pages_load_nothing_from_elsewhere(client: Client, path: str) -> None:
    reply = await client.get(path)
    assert reply.content_type == "text/html"
    text = await reply.text()
    assert not re.search(r"https?://", text)
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]


async def test_readiness(client: Client, reader: FakeReader) -> None:
    assert (await client.get("/readyz")).status == 200
    reader.readiness_now = FakeReadiness(False, ("tables are being read",), {"rows": 5})
    reply = await client.get("/readyz")
    assert reply.status == 503
    body = await reply.json()
    assert body == {
        "ready": False,
        "why": ["tables are being read"],
        "progress": {"rows": 5, "lag_records": 0, "lag_ms": 0},
    }
    assert (await client.get("/livez")).status == 200


@pytest.mark.parametrize(
    ("behind", "status"),
    [(Lag(5, 10_000), 200), (Lag(5, 10_001), 503), (Lag(None, None), 200)],
)
async def test_readiness_bounds_the_lag(client: Client, lag: FakeLag, behind: Lag, status: int) -> None:
    """A log that is away leaves the lag unknown, and what is there is served."""
    lag.lag = behind
    reply = await client.get("/readyz")
    assert reply.status == status
    assert (await reply.json())["progress"]["lag_ms"] == behind.behind_ms


async def test_readiness_waits_for_restores_once(client: Client, reader: FakeReader) -> None:
    reader.worker["acquiring"] = [1, 2]
    reply = await client.get("/readyz")
    assert reply.status == 503
    assert (await reply.json())["why"] == ["worker-0 acquires partitions 1, 2"]
    reader.worker["acquiring"] = []
    assert (await client.get("/readyz")).status == 200
    reader.worker["acquiring"] = [1, 2]
    assert (await client.get("/readyz")).status == 200


RESTORING = {"0": {"rows": 1000, "remaining_s": 2.6}, "1": {"rows": 234, "remaining_s": None}}


@pytest.mark.parametrize(
    ("workers", "why"),
    [
        ({}, ["no worker holds a partition yet"]),
        ({"w": {"written_ms": 1_000, "partitions": {"0": {}}}}, ["no worker holds a partition yet"]),
        ({"w": {"written_ms": 90_000, "partitions": {"0": {}}}}, []),
        (
            {"w": {"written_ms": 90_000, "partitions": {}, "restoring": RESTORING}},
            ["w restores 2 partitions: 1,234 rows so far, about 3 s left"],
        ),
        (
            {
                "w": {"written_ms": 90_000, "partitions": {"0": {}}},
                "v": {"written_ms": 90_000, "acquiring": [7]},
            },
            ["v acquires partitions 7"],
        ),
    ],
)
def test_unfinished_restores(workers: dict[str, Any], why: list[str]) -> None:
    """Read at 100 s: a status of second 1 is of a worker that is gone."""
    assert unfinished(workers, now_ms=100_000) == why


async def test_status(client: Client) -> None:
    body = await (await client.get("/v1/status")).json()
    assert body["ready"] is True
    assert body["engine"]["text"]["waiting"] == 3
    assert body["log"]["lag_records"] == 0
    assert body["rejected"] == {"unknown_kind": 3, "id_empty": 4}


async def test_metrics(client: Client) -> None:
    await client.get("/livez")
    await client.get("/nowhere")
    await client.post("/v1/signals", json={"kind": "view", "item": "i"})
    await client.post("/v1/query", json={"query": "RETRIEVE items"})
    reply = await client.get("/metrics")
    assert reply.content_type == "text/plain"
    text = await reply.text()
    assert 'tidal_http_requests_total{method="GET",route="/livez",status="200"} 1.0' in text
    assert 'tidal_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'tidal_http_request_seconds_bucket{le="0.005",method="POST",route="/v1/query"}' in text
    assert 'tidal_http_signals_total{outcome="accepted"} 1.0' in text
    assert 'tidal_query_degraded_total{stage="text"} 1.0' in text
    assert 'tidal_engine{name="text.waiting"} 3.0' in text


async def test_not_found_names_what_is_near(client: Client) -> None:
    reply = await client.get("/v1/quer")
    assert reply.status == 404
    assert reply.content_type == "application/problem+json"
    assert "/v1/query" in (await reply.json())["detail"]


async def test_wrong_method(client: Client) -> None:
    reply = await client.get("/v1/query")
    assert reply.status == 405
    assert reply.headers["Allow"] == "POST"
    assert reply.content_type == "application/problem+json"


@pytest.mark.parametrize("path", ["/v1/signals", "/v1/query", "/v1/items:batch"])
async def test_a_body_beyond_the_limit(client: Client, path: str) -> None:
    reply = await client.post(path, data=b"x" * ((1 << 20) + 1))
    assert reply.status == 413
    body = await reply.json()
    assert body["limit"] == "max_body_bytes"
    assert "1,048,576" in body["detail"]


async def test_a_body_at_the_limit_is_read(client: Client) -> None:
    event = b'{"kind": "view", "item": "i"}'
    reply = await client.post("/v1/signals", data=event + b" " * ((1 << 20) - len(event)))
    assert reply.status == 202


async def test_problems_have_the_declared_shape(client: Client) -> None:
    for method, path in (
        ("GET", "/nowhere"),
        ("PUT", "/livez"),
        ("POST", "/v1/query"),
        ("GET", "/v1/search"),
    ):
        reply = await client.request(method, path)
        document = msgspec.json.decode(await reply.read(), type=ProblemDocument)
        assert document.status == reply.status
        assert document.title
        assert document.request_id == reply.headers["X-Request-Id"]


async def test_a_request_id_is_kept_if_it_is_sane(client: Client) -> None:
    reply = await client.get("/livez", headers={"X-Request-Id": "abc-1"})
    assert reply.headers["X-Request-Id"] == "abc-1"
    reply = await client.get("/livez", headers={"X-Request-Id": "a b\u00e9"})
    assert reply.headers["X-Request-Id"] != "a b\u00e9"


async def test_each_request_is_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "queryd.http"):
        await client.get("/livez", headers={"X-Request-Id": "abc-1"})
    entry = caplog.records[-1].__dict__
    assert (entry["request_id"], entry["route"], entry["status"]) == ("abc-1", "/livez", 200)


async def test_too_many_requests_at_once(client: Client, services: Services) -> None:
    services.in_flight = IN_FLIGHT_MAX
    reply = await client.get("/v1/status")
    assert reply.status == 503
    assert (await reply.json())["type"] == "urn:tidal:problem:overloaded"
    assert (await client.get("/livez")).status == 200
    assert services.in_flight == IN_FLIGHT_MAX


async def test_head(client: Client) -> None:
    reply = await client.head("/livez")
    assert reply.status == 200
    assert await reply.read() == b""
