"""Small helpers to answer with JSON and to read what a route declares."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from queryd.errors import PositionTimeout
from queryd.http.middleware import CALLER
from queryd.http.parameters import read_parameters
from queryd.http.route import AFTER, Parameter
from queryd.http.services import services
from streams.positions import Positions

AFTER_TIMEOUT_S = 5.0
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


async def table_parameters_of(request: web.Request, declared: tuple[Parameter, ...]) -> dict[str, Any]:
    """The URL parameters of a read of tables, once the tables reflect the write that `after` names.

    Raises ProblemError (400), PositionError for a token that is none, PositionTimeout (504).
    """
    given = read_parameters((*declared, AFTER), request.query)
    token = given.pop(AFTER.name, None)
    if token is not None and not await services(request).reader.wait_applied(
        Positions.parse(token), AFTER_TIMEOUT_S
    ):
        raise PositionTimeout(
            f"after: the write at {token} was not visible within {AFTER_TIMEOUT_S:g} s; "
            "the workers are behind: ask again, or without `after`"
        )
    return given


def require_user(request: web.Request, user: str | None, what: str) -> None:
    """Raises ProblemError (403) when the caller's key is limited to another user."""
    request[CALLER].require_user(user, what)
