"""Queries and reads."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from queryd.errors import (
    CohortTooSmall,
    CursorError,
    EngineNotReady,
    LimitExceeded,
    PositionTimeout,
    QueryError,
)
from queryd.http.access import Caller, Keys
from queryd.http.route import Role
from queryd.http.services import Services
from tests.unit.http.conftest import REPLY, FakeLag, FakeReader

Client = TestClient[Any, Any]
TEXT = "RETRIEVE items USING PROFILE trending LIMIT 5"


async def test_three_ways_to_ask(client: Client, reader: FakeReader) -> None:
    assert await (await client.post("/v1/query", json={"query": TEXT})).json() == REPLY
    plain = {"Content-Type": "text/plain; charset=utf-8"}
    assert (await client.post("/v1/query", data=TEXT, headers=plain)).status == 200
    form = {"retrieve": "items", "using_profile": "trending", "limit": 5}
    assert (await client.post("/v1/query", json=form)).status == 200
    assert [question for _, question in reader.asked] == [TEXT, TEXT, form]


async def test_a_page_without_the_log_says_so(client: Client, lag: FakeLag) -> None:
    lag.fault = "the log has not answered for 12 s"
    page = await (await client.post("/v1/query", json={"query": TEXT})).json()
    assert page["degraded"] == [*REPLY["degraded"], {"stage": "log", "why": lag.fault}]
    assert page["results"] == REPLY["results"]


async def test_by_url_parameters(client: Client, reader: FakeReader) -> None:
    url = (
        "/v1/retrieve?for_user=u1&using_profile=for_you&filter=unseen&within=trending&cohort=locale:US,%20age:18-24"
        "&max_per_creator=2&limit=50&fields=title,tags&explain=analyze"
    )
    assert (await client.get(url)).status == 200
    assert reader.asked[-1][1] == {
        "retrieve": "items",
        "for_user": "u1",
        "using_profile": "for_you",
        "filter": "unseen",
        "within": "trending",
        "cohort": "locale:US, age:18-24",
        "diversity": {"max_per_creator": 2},
        "limit": 50,
        "fields": ["title", "tags"],
        "explain": "analyze",
    }
    assert (await client.get("/v1/search?query=piano&entities=creators&within=creator:c1")).status == 200
    assert reader.asked[-1][1] == {"search": "creators", "query": "piano", "within": {"creator": "c1"}}


async def test_url_forms_are_the_language(client: Client, reader: FakeReader) -> None:
    """What URL parameters become is what the language reads."""
    from queryd.language.json_form import from_json

    await client.get(
        "/v1/retrieve?for_user=u1&within=similar:i1&window=24h&as_of=1763600000000&seed=7&limit=3"
    )
    query = from_json(reader.asked[-1][1])
    assert query.user == "u1"
    assert query.within is not None
    assert query.within.target == "i1"
    assert query.as_of_ms == 1_763_600_000_000


async def test_a_misspelt_parameter(client: Client) -> None:
    body = await (await client.get("/v1/retrieve?profil=x&limt=3")).json()
    assert body["status"] == 400
    assert [(error["path"], error.get("nearest")) for error in body["errors"]] == [
        ("limt", "limit"),
        ("profil", "using_profile"),
    ]


@pytest.mark.parametrize(
    "url", ["/v1/search", "/v1/retrieve?limit=x", "/v1/retrieve?limit=1&limit=2", "/v1/retrieve?limit=0"]
)
async def test_bad_parameters(client: Client, url: str) -> None:
    assert (await client.get(url)).status == 400


@pytest.mark.parametrize("body", [b"[1]", b'"text"', b'{"query": 7}', b"{", b""])
async def test_bad_bodies(client: Client, body: bytes) -> None:
    reply = await client.post("/v1/query", data=body, headers={"Content-Type": "application/json"})
    assert reply.status == 400
    assert reply.content_type == "application/problem+json"


async def test_a_text_that_is_too_long(client: Client, reader: FakeReader) -> None:
    reply = await client.post("/v1/query", json={"query": TEXT + " " * 9000})
    assert reply.status == 400
    assert (await reply.json())["limit"] == "max_query_text_bytes"
    assert reader.asked == []


@pytest.mark.parametrize(
    ("error", "status", "limit"),
    [
        (LimitExceeded("max_query_limit", 501, 500), 422, "max_query_limit"),
        (LimitExceeded("max_predicate_depth", 17, 16), 422, "max_predicate_depth"),
        (PositionTimeout("not visible in time"), 504, "deadline_ms"),
        (TimeoutError(), 504, "deadline_ms"),
        (EngineNotReady("tables are being read"), 503, None),
        (CursorError("tampered"), 400, None),
    ],
)
async def test_refusals(
    client: Client, reader: FakeReader, error: Exception, status: int, limit: str | None
) -> None:
    reader.error = error
    reply = await client.post("/v1/query", json={"query": TEXT})
    assert reply.status == status
    assert (await reply.json()).get("limit") == limit


async def test_a_mistake_has_its_place_and_the_nearest_name(client: Client, reader: FakeReader) -> None:
    reader.error = QueryError("there is no profile 'trendin'", 1, 30, ("a profile",), "trending")
    body = await (await client.post("/v1/query", json={"query": TEXT})).json()
    assert body["errors"] == [
        {
            "path": "query:1:30",
            "message": "there is no profile 'trendin'; expected a profile",
            "nearest": "trending",
        }
    ]


async def test_a_defect_tells_strangers_nothing(client: Client, reader: FakeReader) -> None:
    reader.error = ZeroDivisionError("secret detail")
    reply = await client.post("/v1/query", json={"query": TEXT})
    assert reply.status == 500
    text = await reply.text()
    assert "secret" not in text
    assert reply.headers["X-Request-Id"] in text


async def test_suggest_is_refused_by_name(client: Client) -> None:
    reply = await client.get("/v1/suggest?prefix=pi")
    assert reply.status == 501
    assert "SUGGEST" in (await reply.json())["detail"]


async def test_ledger(client: Client, reader: FakeReader) -> None:
    url = "/v1/items/i1/signals?signal=view&window=24h&at=5&cohort=locale:US"
    assert (await client.get(url)).status == 200
    given = {"signal": "view", "window": "24h", "at": 5, "cohort": "locale:US"}
    assert reader.asked[-1] == ("ledger", ("item", "i1", given))
    await client.get("/v1/creators/c1/signals")
    assert reader.asked[-1] == ("ledger", ("creator", "c1", {}))
    assert (await client.get("/v1/items/nobody/signals")).status == 404
    body = await (await client.get("/v1/items/i1/signals?signal=vew")).json()
    assert body["status"] == 404
    assert "'view'" in body["detail"]


async def test_user_reads(client: Client, reader: FakeReader) -> None:
    await client.get("/v1/users/u1/state?state=seen&limit=5&cursor=c")
    assert reader.asked[-1] == ("user_state", ("u1", {"state": "seen", "limit": 5, "cursor": "c"}))
    await client.get("/v1/users/u1/relationships?limit=5")
    assert reader.asked[-1] == ("user_relationships", ("u1", {"limit": 5}))
    await client.get("/v1/users/u1/preference")
    assert ("user_preference", "u1") in reader.asked
    await client.get("/v1/users/u1/segments")
    assert ("user_segments", "u1") in reader.asked
    assert (await client.get("/v1/users/u1/state?state=sen")).status == 404


async def test_cohorts(client: Client, reader: FakeReader) -> None:
    assert (await client.get("/v1/cohorts")).status == 200
    body = await (await client.get("/v1/cohorts/size?cohort=locale:US")).json()
    assert body["users"] == 3
    assert reader.asked[-1] == ("cohort_size", "locale:US")
    assert (await client.get("/v1/cohorts/size")).status == 400


async def test_cohorts_are_compared(client: Client, reader: FakeReader) -> None:
    path = "/v1/cohorts/compare?a=locale:US&b=locale:DE"
    body = await (await client.get(f"{path}&signal=like&window=7d&limit=3&min_count=2&at=9")).json()
    assert body["results"][0]["lift"] > 1
    given = {"signal": "like", "window": "7d", "limit": 3, "min_count": 2, "at": 9}
    assert reader.asked[-1] == ("compare_cohorts", ("locale:US", "locale:DE", given))
    assert (await client.get(path)).status == 200
    for bad in (
        "/v1/cohorts/compare?a=locale:US",
        f"{path}&limit=0",
        f"{path}&min_count=0",
        f"{path}&limit=501",
    ):
        assert (await client.get(bad)).status == 400


async def test_a_cohort_that_is_too_small_is_refused_with_the_limit(
    client: Client, reader: FakeReader
) -> None:
    reader.error = CohortTooSmall("'locale = DE'", 5)
    for path in (
        "/v1/cohorts/size?cohort=locale:DE",
        "/v1/cohorts/compare?a=locale:DE&b=locale:US",
        "/v1/items/a/signals?signal=view&cohort=locale:DE",
        "/v1/retrieve?cohort=locale:DE",
    ):
        reply = await client.get(path)
        problem = await reply.json()
        assert (reply.status, problem["limit"]) == (403, "min_cohort_size"), path
        assert problem["type"].endswith(":cohort-too-small")
        assert "fewer than 5 users" in problem["detail"]


async def test_schema_can_be_loaded_again(client: Client, reader: FakeReader) -> None:
    from schemas.loading import load_schema

    document = await (await client.get("/v1/schema")).json()
    assert set(load_schema(document).signals) == set(reader.schema.signals)


async def test_a_key_of_one_user_asks_only_for_that_user(services: Services, client: Client) -> None:
    services.keys = Keys([("a-secret-of-the-app", Caller("app", Role.READ, user="u1"))])
    headers = {"Authorization": "Bearer a-secret-of-the-app"}
    own = {"query": "RETRIEVE items FOR USER @u1 USING PROFILE for_you"}
    other = {"query": "RETRIEVE items FOR USER @u2 USING PROFILE for_you"}
    assert (await client.post("/v1/query", json=own, headers=headers)).status == 200
    assert (await client.post("/v1/query", json=other, headers=headers)).status == 403
    assert (await client.post("/v1/query", json={"query": TEXT}, headers=headers)).status == 403
    form = {"retrieve": "items", "for_user": "u2"}
    assert (await client.post("/v1/query", json=form, headers=headers)).status == 403
    assert (await client.get("/v1/users/u1/state", headers=headers)).status == 200
    assert (await client.get("/v1/users/u2/state", headers=headers)).status == 403
    assert (await client.get("/v1/users/u2", headers=headers)).status == 403
