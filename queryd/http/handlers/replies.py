"""Small helpers to answer with JSON and to read what a route declares."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from queryd.http.middleware import CALLER
from queryd.http.parameters import read_parameters
from queryd.http.route import Parameter

_ENCODER = msgspec.json.Encoder()


def json_reply(value: Any, status: int = 200) -> web.Response:
    """`value` as JSON."""
    return web.Response(body=_ENCODER.encode(value), status=status, content_type="application/json")


def raw_json_reply(body: bytes) -> web.Response:
    """Bytes that already are JSON."""
    return web.Response(body=body, content_type="application/json")


def parameters_of(request: web.Request, declared: tuple[Parameter, ...]) -> dict[str, Any]:
    """The URL parameters of the request, as declared."""
    return read_parameters(declared, request.query)


def require_user(request: web.Request, user: str | None, what: str) -> None:
    """Raises ProblemError (403) when the caller's key is limited to another user."""
    request[CALLER].require_user(user, what)
