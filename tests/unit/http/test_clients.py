"""Both clients against the application."""

from __future__ import annotations

import asyncio
import inspect
import re
from typing import Any
from unittest import mock

import msgspec
import pytest
from aiohttp.test_utils import TestClient

import tidal
from queryd.http.routes import all_routes
from queryd.http.shapes import ProblemDocument, Written
from queryd.language.parse import parse_query
from streams.errors import BrokerUnavailableError
from tests.unit.http.conftest import FakeReader, FakeReadiness, FakeWriter
from tidal import calls, client_errors
from tidal.client import Client
from tidal.client_async import AsyncClient
from tidal.client_errors import ClientError, RefusedError, Retries, ServerUnreachableError, refused

Server = TestClient[Any, Any]


def test_the_public_names_are_exactly_the_exported_ones() -> None:
    assert sorted(tidal.__all__) == dir(tidal)
    assert {"Producer", "AsyncProducer", "Client", "AsyncClient", "Schema"} <= set(tidal.__all__)
    for name in tidal.__all__:
        assert getattr(tidal, name).__name__ == name
    assert set(tidal._HOME) == set(tidal.__all__)
    with pytest.raises(AttributeError, match="Produser"):
        getattr(tidal, "Produser")  # noqa: B009 - a static access would not type-check


def test_both_clients_have_the_same_methods() -> None:
    """Names, parameters, defaults and results."""

    def face(client: type) -> dict[str, str]:
        members = inspect.getmembers(client, inspect.isfunction)
        return {name: str(inspect.signature(member)) for name, member in members if not name.startswith("_")}

    assert face(Client) == face(AsyncClient)


NO_CALL = {"GET /": "a page", "GET /docs": "a page", "GET /v1/suggest": "answers 501"}
GIVEN = {
    "kind": "item",
    "id": "a/b",
    "name": "1-2",
    "type": "follows",
    "events": [],
    "records": [],
    "record": {},
    "changes": {},
    "source": "u",
    "target": "c",
    "user": "u",
    "query": "piano",
    "signal": "view",
    "cohort": "locale:US",
    "a": "locale:US",
    "b": "locale:DE",
}


def test_the_client_has_a_call_for_every_route() -> None:
    """Every method is called, for every kind of entity, with a client that sends nothing."""
    sent: list[calls.Call[Any]] = []

    class Recorder(Client):
        def _send(self, call: calls.Call[Any]) -> Any:
            sent.append(call)

    for name, method in inspect.getmembers(Recorder, inspect.isfunction):
        if name.startswith("_") or name == "close":
            continue
        needed = inspect.signature(method).parameters.values()
        given = {p.name: GIVEN[p.name] for p in needed if p.default is p.empty and p.name in GIVEN}
        for kind in ("item", "user", "creator"):
            method(Recorder(), **(given | ({"kind": kind} if "kind" in given else {})))
    called = {
        f"{route.method} {route.path}"
        for call in sent
        for route in all_routes()
        if call.method == route.method
        and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route.path).replace(":", "[:]"), call.path)
    }
    assert {f"{route.method} {route.path}" for route in all_routes()} == called | set(NO_CALL)


def test_a_query_written_in_python_is_sent_as_text() -> None:
    built = tidal.retrieve("items").using("trending").cohort("locale:US, age:18-24").limit(5)
    sent = calls.query(built, after="t1").body
    assert sent == {"query": built.text() + ' AFTER "t1"'}
    assert parse_query(built.text()) == built.build()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_lacks_is_refused(number: float) -> None:
    with pytest.raises(ClientError, match=r"\$\[1\]\.ts: (nan|inf)"):
        _ = calls.Call("POST", "/v1/signals", object, body=[{"ts": 1.5}, {"ts": number}]).payload


def test_a_read_after_a_write() -> None:
    """Whatever the write answered is understood."""
    position = tidal.Position("tidal.signals", 0, 7)
    token = position.encode()
    for after in (token, position, tidal.Positions((position,)), Written("a", token)):
        assert calls.user_preference("u", after).target == f"/v1/users/u/preference?after={token}"
        assert calls.query("RETRIEVE items", after).body == {"query": f'RETRIEVE items AFTER "{token}"'}
        assert calls.query({"retrieve": "items"}, after).body == {"retrieve": "items", "after": token}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, tidal.InvalidRequestError),
        (413, tidal.InvalidRequestError),
        (422, tidal.InvalidRequestError),
        (401, tidal.AccessDeniedError),
        (403, tidal.AccessDeniedError),
        (404, tidal.NotFoundError),
        (429, tidal.NotNowError),
        (503, tidal.NotNowError),
        (504, tidal.NotNowError),
        (500, RefusedError),
    ],
)
def test_errors_are_of_the_class_of_their_status(status: int, kind: type[RefusedError]) -> None:
    document = {
        "type": "urn:tidal:problem:why",
        "title": "T",
        "status": status,
        "detail": "what to do",
        "errors": [{"path": "$.a", "message": "m"}],
        "limit": "max",
        "request_id": "r",
    }
    with pytest.raises(kind) as raised:
        calls.status().result(status, msgspec.json.encode(document), "3")
    error = raised.value
    assert type(error) is kind
    assert (error.status, error.code, error.detail, error.limit) == (status, "why", "what to do", "max")
    assert (error.errors[0].path, error.request_id, error.retry_after_s) == ("$.a", "r", 3.0)


def _refusal(status: int, retry_after_s: float | None = None) -> RefusedError:
    return refused(ProblemDocument("urn:x", "T", status, "d"), retry_after_s)


def test_what_is_tried_again() -> None:
    def pause_s(error: ClientError, *, repeatable: bool) -> float | None:
        return Retries(repeatable, 2, 10.0).pause_s(error)

    away, slow = ServerUnreachableError("x"), ServerUnreachableError("x", timed_out=True)
    for error in (_refusal(503), away):
        assert pause_s(error, repeatable=True) is not None
        assert pause_s(error, repeatable=False) is None
    behind = refused(ProblemDocument("urn:tidal:problem:position-timeout", "T", 504, "d"))
    assert pause_s(behind, repeatable=True) is not None
    assert pause_s(_refusal(429, 2.0), repeatable=False) == 2.0
    assert pause_s(_refusal(429, 60.0), repeatable=True) is None  # beyond the time-out
    for error in (slow, _refusal(400), _refusal(404), _refusal(500), _refusal(504)):
        assert pause_s(error, repeatable=True) is None
    retries = Retries(True, 2, 10.0)
    assert [retries.pause_s(away) is None for _ in range(3)] == [False, False, True]


async def test_not_now_is_tried_again(client: Server, reader: FakeReader) -> None:
    """Until it is answered, or the retries are used up; a publish is not."""
    failures = [2]

    async def preference(user: str) -> Any:
        failures[0] -= 1
        if failures[0] >= 0:
            raise BrokerUnavailableError("away")
        return {"user": user, "slots": {}}

    reader.user_preference = preference  # type: ignore[method-assign]
    url = str(client.make_url("/"))
    with mock.patch.object(client_errors.Retries, "pause_s", _at_once(client_errors.Retries.pause_s)):
        async with AsyncClient(url) as patient:
            assert (await patient.user_preference("u")).user == "u"
        assert failures == [-1]
        failures[0] = 2
        async with AsyncClient(url, retries=1) as impatient:
            with pytest.raises(tidal.NotNowError):
                await impatient.user_preference("u")
        failures[0] = 2
        assert (await asyncio.to_thread(lambda: Client(url).user_preference("u"))).user == "u"


def _at_once(pause_s: Any) -> Any:
    return lambda self, error: None if pause_s(self, error) is None else 0.0


async def test_reads_wait_for_a_write(client: Server, reader: FakeReader) -> None:
    token = tidal.Position("tidal.signals", 0, 7).encode()
    async with AsyncClient(str(client.make_url("/"))) as tidal_client:
        await tidal_client.user_state("u", after=token)
        assert reader.asked[0] == ("wait_applied", tidal.Positions.parse(token))
        reader.applied = False
    async with AsyncClient(str(client.make_url("/")), retries=0) as tidal_client:
        with pytest.raises(tidal.NotNowError, match="not visible within") as raised:
            await tidal_client.relationships("follows", "u", after=token)
        assert raised.value.status == 504
        with pytest.raises(tidal.InvalidRequestError):
            await tidal_client.get("item", "i", after="no-token")


async def test_the_async_client(client: Server, reader: FakeReader, writer: FakeWriter) -> None:
    async with AsyncClient(str(client.make_url("/"))) as tidal_client:
        accepted = await tidal_client.publish({"kind": "view", "item": "i1", "user": "u1"})
        assert accepted.accepted == 1
        written = await tidal_client.put("item", "a/b é", {"title": "T"})
        assert writer.entities[-1][1] == written.id == "a/b é"
        page = await tidal_client.query("RETRIEVE items")
        assert page.results[0].id == "item_1"
        with pytest.raises(RefusedError, match="no item 'x'") as raised:
            await tidal_client.get("item", "x")
        assert raised.value.problem.status == 404
        reader.readiness_now = FakeReadiness(False, ("wait",))
        assert not (await tidal_client.readiness()).ready


async def test_the_blocking_client(client: Server, reader: FakeReader, writer: FakeWriter) -> None:
    url = str(client.make_url("/"))

    def use() -> None:
        with Client(url) as tidal_client:
            assert tidal_client.publish([{"kind": "view", "item": "i1"}]).accepted == 1
            tidal_client.put("user", "u/1", {"age": 20})
            assert writer.entities[-1][:2] == ("user", "u/1")
            tidal_client.relate("follows", "u1", "c1")
            assert tidal_client.put_many("creator", [{"id": "c1"}]).written[0].id == "c1"
            assert tidal_client.query({"retrieve": "items"}).estimator == "exact"
            assert tidal_client.cohort_size("locale:US").users == 3
            assert tidal_client.compare_cohorts("locale:US", "locale:DE").results[0].rank == 1
            assert tidal_client.user_state("u1").user == "u1"
            assert tidal_client.status().ready
            with pytest.raises(RefusedError) as raised:
                tidal_client.publish({"kind": "no", "item": "i1"})
            assert raised.value.problem.errors[0].path == "$.kind"

    await asyncio.to_thread(use)


async def test_a_closed_connection_is_opened_again(client: Server) -> None:
    url = str(client.make_url("/"))
    tidal_client = Client(url)
    await asyncio.to_thread(tidal_client.status)
    assert client.server.handler is not None
    for connection in client.server.handler.connections:
        assert connection.transport is not None
        connection.transport.abort()
    await asyncio.sleep(0.05)
    assert (await asyncio.to_thread(tidal_client.status)).ready
    tidal_client.close()


async def test_nobody_answers() -> None:
    with (
        pytest.raises(ServerUnreachableError, match="tidal up"),
        Client("http://127.0.0.1:1", retries=0) as blocking,
    ):
        blocking.status()
    async with AsyncClient("http://127.0.0.1:1", retries=0) as waiting:
        with pytest.raises(ServerUnreachableError):
            await waiting.status()


@pytest.mark.parametrize("url", ["ftp://x", "http://", "nonsense", "http://h:port"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ClientError):
        Client(url)


def test_an_error_that_is_no_problem_document() -> None:
    """A proxy in between may answer in its own way."""
    with pytest.raises(RefusedError, match="Bad gateway"):
        calls.status().result(502, b"<html>Bad gateway</html>")
    with pytest.raises(ClientError, match="not as expected"):
        calls.status().result(200, b"<html>")


@pytest.mark.parametrize("id", ["", None, 7])
def test_what_is_no_id_is_refused_before_it_becomes_another_path(id: Any) -> None:
    for call in (
        lambda: calls.get("item", id, None),
        lambda: calls.erase_user(id),
        lambda: calls.erasure(id),
    ):
        with pytest.raises(ClientError, match=f"{id!r} is no id"):
            call()
