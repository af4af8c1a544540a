"""What the engine believes about a user."""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import web

from queryd.http.handlers.replies import json_reply, require_user, table_parameters_of
from queryd.http.problems import not_found
from queryd.http.route import Parameter
from queryd.http.services import services

PAGE_MAX = 10_000
FAN_OUT_MAX = 100
ALIKE_MAX = 200
STATE_PARAMETERS = (
    Parameter("state", "only this state"),
    Parameter("limit", "item ids of each state at most", type=int, low=1, high=PAGE_MAX),
    Parameter("cursor", "where the page before ended; needs `state`"),
)
RELATIONSHIP_PARAMETERS = (
    Parameter("type", "only this type"),
    Parameter("limit", "edges at most", type=int, low=1, high=PAGE_MAX),
)


TWO_HOP_PARAMETERS = (
    Parameter("type", "the type of both edges, an explicit one", required=True),
    Parameter("fan_out", "edges followed from each entity, the heaviest", type=int, low=1, high=FAN_OUT_MAX),
    Parameter("limit", "entities at most", type=int, low=1, high=ALIKE_MAX),
)
SIMILAR_PARAMETERS = (
    Parameter("state", "the state in which they share items; the first that the schema indexes by default"),
    Parameter("limit", "users at most", type=int, low=1, high=ALIKE_MAX),
)


async def get_user_state(request: web.Request) -> web.Response:
    """Items that the user has seen, liked, saved, …"""
    user = _user(request)
    given = await table_parameters_of(request, STATE_PARAMETERS)
    reader = services(request).reader
    _check_known("user state", given.get("state"), reader.schema.states)
    return json_reply(await reader.user_state(user, **given))


async def get_user_relationships(request: web.Request) -> web.Response:
    """Edges out of the user."""
    user = _user(request)
    given = await table_parameters_of(request, RELATIONSHIP_PARAMETERS)
    reader = services(request).reader
    _check_known("relationship type", given.get("type"), reader.schema.relationships)
    return json_reply(await reader.user_relationships(user, **given))


async def get_user_preference(request: web.Request) -> web.Response:
    """The preference vectors that signals have taught."""
    user = _user(request)
    await table_parameters_of(request, ())
    return json_reply(await services(request).reader.user_preference(user))


async def get_user_segments(request: web.Request) -> web.Response:
    """The segments that the user is in."""
    user = _user(request)
    await table_parameters_of(request, ())
    return json_reply(await services(request).reader.user_segments(user))


async def get_two_hops(request: web.Request) -> web.Response:
    """Whom those that the user follows follow."""
    user = _user_among_others(request)
    given = await table_parameters_of(request, TWO_HOP_PARAMETERS)
    reader = services(request).reader
    _check_known("relationship type", given["type"], reader.schema.relationships)
    return json_reply(await reader.two_hops(user, **given))


async def get_similar_users(request: web.Request) -> web.Response:
    """Users who share items."""
    user = _user_among_others(request)
    given = await table_parameters_of(request, SIMILAR_PARAMETERS)
    reader = services(request).reader
    _check_known("user state", given.get("state"), reader.schema.states)
    return json_reply(await reader.similar_users(user, **given))


def _user_among_others(request: web.Request) -> str:
    """A key that is limited to one user may not read whom others follow or what they share."""
    require_user(request, None, "read about other users")
    return request.match_info["id"]


def _user(request: web.Request) -> str:
    user = request.match_info["id"]
    require_user(request, user, "read it")
    return user


def _check_known(what: str, name: str | None, known: Collection[str]) -> None:
    if name is not None and name not in known:
        raise not_found(what, name, known)
