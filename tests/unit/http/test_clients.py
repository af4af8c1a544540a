"""Both clients against the application."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

import tidal
from tests.unit.http.conftest import FakeReader, FakeReadiness, FakeWriter
from tidal import calls
from tidal.calls import RefusedError, ServerUnreachableError
from tidal.client import Client
from tidal.client_async import AsyncClient

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
    with pytest.raises(ServerUnreachableError, match="tidal up"), Client("http://127.0.0.1:1") as blocking:
        blocking.status()
    async with AsyncClient("http://127.0.0.1:1") as waiting:
        with pytest.raises(ServerUnreachableError):
            await waiting.status()


@pytest.mark.parametrize("url", ["ftp://x", "http://", "nonsense", "http://h:port"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(calls.ClientError):
        Client(url)


def test_an_error_that_is_no_problem_document() -> None:
    """A proxy in between may answer in its own way."""
    with pytest.raises(RefusedError, match="Bad gateway"):
        calls.status().result(502, b"<html>Bad gateway</html>")
    with pytest.raises(calls.ClientError, match="not as expected"):
        calls.status().result(200, b"<html>")
