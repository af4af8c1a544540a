"""What is no HTTP gets a problem document, and leaves no trace of what it said in the log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from queryd.http.app import create_app
from queryd.http.connections import Runner
from queryd.http.services import Services
from streams.errors import BrokerUnavailableError

from .conftest import FakeReader

SECRET = b"user-of-a-secret"
HEAD = b" HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture
async def port(services: Services) -> AsyncIterator[int]:
    runner = Runner(create_app(services), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def _exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    reply = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return reply


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"GET /v1/users/" + SECRET * 600 + HEAD + b"\r\n", "head_too_large"),
        (b"GET /livez" + HEAD + b"X: " + SECRET * 600 + b"\r\n\r\n", "head_too_large"),
        (b"GET /v1/users/" + SECRET + b"\xff" + HEAD + b"\r\n", "malformed_http"),
        (b"GET /v1/users/" + SECRET + b" HTTP/9.9\r\n\r\n", "malformed_http"),
        (b"GET http://[" + SECRET + HEAD + b"\r\n", "malformed_http"),
        (b"POST /" + SECRET + HEAD + b"Content-Length: -5\r\n\r\n", "malformed_http"),
    ],
)
async def test_what_is_no_http_is_a_problem_and_is_not_logged(
    port: int, request_bytes: bytes, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    head, _, body = (await _exchange(port, request_bytes)).partition(b"\r\n\r\n")
    assert b" 400 " in head.splitlines()[0]
    assert b"application/problem+json" in head
    assert json.loads(body)["type"] == f"urn:tidal:problem:{code}"
    logged = [record for record in caplog.records if record.name != "asyncio"]
    assert [record.getMessage() for record in logged] == ["request that is no HTTP"]
    assert SECRET.decode() not in caplog.text + str([vars(record) for record in logged])
    assert SECRET not in body


async def test_a_body_that_is_no_chunk_is_told_in_lines_without_a_trace(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    chunked = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n"
    await _exchange(port, b"POST /v1/signals" + HEAD + chunked)
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_log_that_is_away_is_a_line_and_no_trace(
    port: int, reader: FakeReader, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    reader.error = BrokerUnavailableError("away")
    reply = await _exchange(port, b"GET /v1/items/i1/signals" + HEAD + b"Connection: close\r\n\r\n")
    assert b" 503 " in reply.splitlines()[0]
    assert [record for record in caplog.records if record.exc_info] == []
    assert "request refused" in caplog.messages
