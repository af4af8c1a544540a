"""Cohorts as a client asks for them, over HTTP: a mistake has one clear message, small ones stay private."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp.test_utils import TestClient, TestServer

from queryd.http.app import create_app
from queryd.http.services import Services
from schemas.errors import SchemaError
from tests.engine_site import Site, running, small_schema
from tests.unit.http.conftest import FakeLag, FakeWriter

Client = TestClient[Any, Any]
PROFILE = {
    "cohort_boost": {
        "sources": [{"source": "newest"}],
        "terms": [{"term": "signal", "signal": "view", "read": "count", "window": "24h", "scope": "cohort"}],
    }
}


def _site(folder: Path, **limits: int) -> Site:
    """Ten people of the US, half of them young, two of Germany and one of France, who all saw one item."""
    cohorts = {"young_us": "locale:US, age:18-24", "nobody": "locale:US AND locale:DE"}
    site = Site(folder, small_schema(limits=limits, cohorts=cohorts, profiles=PROFILE))
    for number in range(13):
        locale = "US" if number < 10 else "DE" if number < 12 else "FR"
        site.user(f"u{number}", locale=locale, age=20 if number % 2 else 40)
        site.item("piano", title="Piano for beginners", creator="ada")
        site.signal("view", "piano", f"u{number}")
    site.flush()
    return site


@asynccontextmanager
async def served(site: Site) -> AsyncIterator[Client]:
    async with running(site) as engine:
        app = create_app(Services(engine, FakeWriter(), FakeLag()))
        async with TestClient(TestServer(app)) as client:
            yield client


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with served(_site(tmp_path)) as client:
        yield client


def _paths(cohort: str) -> list[str]:
    """Every GET that takes a cohort."""
    asked = quote(cohort)
    return [
        f"/v1/cohorts/size?cohort={asked}",
        f"/v1/cohorts/compare?a={asked}&b=locale:US",
        f"/v1/cohorts/compare?a=locale:US&b={asked}",
        f"/v1/items/piano/signals?cohort={asked}",
        f"/v1/creators/ada/signals?signal=view&cohort={asked}",
        f"/v1/retrieve?using_profile=trending&cohort={asked}",
        f"/v1/retrieve?using_profile=cohort_boost&cohort={asked}",
        f"/v1/retrieve?using_profile=trending&within=trending&explain=plan&cohort={asked}",
        f"/v1/search?query=piano&within=trending&cohort={asked}",
    ]


def _bodies(cohort: str) -> list[Any]:
    """Every form of a query that does."""
    return [
        {"query": f"RETRIEVE items USING PROFILE trending COHORT {cohort}"},
        {"query": f'SEARCH items QUERY "piano" WITHIN TRENDING COHORT {cohort}'},
        {"query": f"EXPLAIN RETRIEVE items USING PROFILE trending COHORT {cohort}"},
        {"retrieve": "items", "using_profile": "trending", "cohort": cohort},
    ]


MISTAKES: list[tuple[str, str]] = [
    ("locle:US", "'locle' is no declared dimension"),
    ("locle:US", "did you mean 'locale'"),
    ("age:18-25", "'age' has no bucket '18-25'"),
    ("age:18-25", "did you mean '18-24'"),
    ("yuong_us", "did you mean 'young_us'"),
    ("locale:US AND", "ends too early"),
    ("locale > 3", "does not know >"),
    ("view.count(24h) > 3", "aggregate of items"),
    ("()", "cannot stand here"),
]


async def _problem(client: Client, path: str, body: Any = None) -> Mapping[str, Any]:
    reply = await (client.get(path) if body is None else client.post(path, json=body))
    found: dict[str, Any] = await reply.json()
    assert reply.status == found.get("status", 200), found
    return found


async def test_a_mistake_has_one_message_wherever_it_is_made(client: Client) -> None:
    for cohort, words in MISTAKES:
        found = [(await _problem(client, path)) for path in _paths(cohort)]
        found += [(await _problem(client, "/v1/query", body)) for body in _bodies(cohort)]
        for problem in found:
            assert problem.get("status") == 400, cohort
            assert words in problem["detail"], problem
            assert len(problem["errors"]) == 1


async def test_a_cohort_past_the_depth_is_refused_with_the_limit(client: Client) -> None:
    deep = "NOT " * 17 + "locale:US"
    found = [(await _problem(client, path)) for path in _paths(deep)]
    found += [(await _problem(client, "/v1/query", body)) for body in _bodies(deep)]
    for problem in found:
        assert (problem["status"], problem["limit"]) == (422, "max_predicate_depth")
        assert problem["detail"] == "18 is past the limit max_predicate_depth = 16"
    for path in _paths("NOT " * 15 + "locale:US"):
        assert "status" not in await _problem(client, path)


async def test_an_empty_cohort_is_no_cohort(client: Client) -> None:
    for path in _paths(""):
        assert "empty" in (await _problem(client, path))["detail"], path
    for cohort, words in (
        ({"and": []}, "an empty list of predicates"),
        ({"and": 5}, "no list of predicates"),
        ({"or": "locale:US"}, "no list of predicates"),
        ({}, "the predicate is not one"),
    ):
        body = {"retrieve": "items", "using_profile": "trending", "cohort": cohort}
        problem = await _problem(client, "/v1/query", body)
        assert (problem["status"], words in problem["detail"]) == (400, True), problem
    assert "ends too early" in (await _problem(client, "/v1/query", _bodies("")[0]))["detail"]


async def test_a_place_in_a_parameter_is_named_with_it(client: Client) -> None:
    problem = await _problem(client, "/v1/cohorts/compare?a=locale:US&b=age:40%20AND%20locle:DE")
    assert problem["errors"][0]["path"].startswith("b:1:")
    problem = await _problem(client, "/v1/cohorts/size?cohort=locle:DE")
    assert problem["errors"][0] == {
        "path": "cohort:1:1",
        "message": "'locle' is no declared dimension; expected age or gender or language or locale",
        "nearest": "locale",
    }


async def _warnings(client: Client, cohort: str) -> list[list[str]]:
    found = [(await _problem(client, path)) for path in _paths(cohort) if "explain" not in path]
    found += [(await _problem(client, "/v1/query", body)) for body in _bodies(cohort)]
    ledgers = [each for reply in found for each in reply.values() if "view" in reply]
    assert len(ledgers) > 1
    return [reply["warnings"] for reply in [*found, *ledgers] if "view" not in reply]


async def test_a_contradiction_is_an_empty_answer_that_says_so(client: Client) -> None:
    for cohort in (
        "locale:US AND locale:DE",
        "age:18-24, NOT age:18-24",
        "nobody",
        "NOT (locale EXISTS OR NOT age:35-44) AND NOT age:35-44",
    ):
        for warnings in await _warnings(client, cohort):
            assert sum("contradicts itself: nobody can be in it" in each for each in warnings) == 1, cohort
        size = await _problem(client, f"/v1/cohorts/size?cohort={quote(cohort)}")
        assert size["users"] == 0
        page = await _problem(client, "/v1/query", _bodies(cohort)[0])
        assert page["results"] == []


async def test_a_value_that_nobody_has_had_is_said_with_the_nearest(client: Client) -> None:
    for cohort, words in (
        ("locale:us", "has had locale 'us'; did you mean 'US'?"),
        ("locale IN (US, FX)", "has had locale 'FX'; did you mean 'FR'?"),
        ("NOT locale:Atlantis", "has had locale 'Atlantis'"),
        ("gender:F", "has had gender 'F'"),
    ):
        for warnings in await _warnings(client, cohort):
            assert any(words in warning for warning in warnings), (cohort, warnings)


async def test_a_cohort_of_many_unknown_values_is_answered_soon(client: Client) -> None:
    cohort = f"locale IN ({', '.join(f'x{number}' for number in range(900))})"
    found = await _problem(client, f"/v1/cohorts/size?cohort={quote(cohort)}")
    assert (found["users"], len(found["warnings"])) == (0, 3)


async def test_a_good_cohort_needs_no_warning(client: Client) -> None:
    for path in _paths("young_us"):
        found = await _problem(client, path)
        assert [each for each in found.get("warnings", []) if "overlap" not in each] == [], path


async def test_nothing_is_told_of_a_small_cohort(tmp_path: Path) -> None:
    """Wherever a cohort can be asked for: no result, no count, no size, no plan."""
    async with served(_site(tmp_path, min_cohort_size=3)) as client:
        for path in _paths("locale:US"):
            assert "status" not in await _problem(client, path), path
        for cohort in ("locale:DE", "locale:FX", "locale:DE OR locale:FX", "NOT locale:US, NOT locale:FR"):
            for path in _paths(cohort):
                _assert_private(await _problem(client, path), path)
            for body in _bodies(cohort):
                _assert_private(await _problem(client, "/v1/query", body), str(body))
        wide = await _problem(client, f"/v1/cohorts/size?cohort={quote('locale:DE OR locale:FR')}")
        assert wide["users"] == 3
        nobody = await _problem(client, "/v1/cohorts/size?cohort=nobody")
        assert (nobody["users"], "contradicts itself" in nobody["warnings"][0]) == (0, True)


async def test_nobody_and_a_few_are_refused_alike_and_no_rare_value_is_offered(tmp_path: Path) -> None:
    async with served(_site(tmp_path, min_cohort_size=3)) as client:
        told = {}
        for value in ("us", "FR", "FX", "DE", "DD"):
            problem = await _problem(client, f"/v1/cohorts/size?cohort=locale:{value}")
            told[value] = problem["detail"].partition("; fewer")[2]
        assert told["us"] == " than 3 users have locale 'us'; did you mean 'US'?"
        assert told["FR"].replace("FR", "FX") == told["FX"]
        assert told["DE"].replace("DE", "DD") == told["DD"]
        mixed = await _problem(client, f"/v1/cohorts/size?cohort={quote('locale IN (US, FR)')}")
        assert mixed["warnings"] == ["fewer than 3 users have locale 'FR'"]


def _assert_private(problem: Mapping[str, Any], asked: str) -> None:
    assert problem.get("status") == 403, asked
    assert problem["type"] == "urn:tidal:problem:cohort-too-small"
    assert problem["limit"] == "min_cohort_size"
    assert "fewer than 3 users" in problem["detail"]
    assert set(problem) <= {"type", "title", "status", "detail", "limit", "request_id"}


async def test_a_cohort_is_private_again_when_people_leave(tmp_path: Path) -> None:
    site = _site(tmp_path, min_cohort_size=2)
    async with running(site) as engine:
        assert (await engine.cohort_size("locale:DE"))["users"] == 2
        site.user("u10", locale="US")
        site.flush()
        await engine.feeder.step()
        with pytest.raises(Exception, match="fewer than 2 users"):
            await engine.cohort_size("locale:DE")
        assert (await engine.cohort_size("locale:US"))["users"] == 11


def test_a_segment_that_names_an_unknown_signal_is_a_fault_of_the_schema() -> None:
    with pytest.raises(SchemaError) as caught:
        small_schema(segments={"fans": "count(lik, 7d) >= 3"})
    [problem] = caught.value.problems
    assert problem.path.startswith("segments.fans")
    assert problem.nearest == "like"
