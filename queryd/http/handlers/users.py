"""What the engine believes about a user."""

from __future__ import annotations

from aiohttp import web

from queryd.http.handlers.replies import json_reply, parameters_of, require_user
from queryd.http.problems import not_found
from queryd.http.route import Parameter
from queryd.http.services import services

PAGE_MAX = 10_000
STATE_PARAMETERS = (
    Parameter("state", "only this state"),
    Parameter("limit", "item ids of each state at most", type=int, low=1, high=PAGE_MAX),
    Parameter("cursor", "where the page before ended"),
)
RELATIONSHIP_PARAMETERS = (
    Parameter("type", "only this type"),
    Parameter("limit", "edges at most", type=int, low=1, high=PAGE_MAX),
)


async def get_user_state(request: web.Request) -> web.Response:
    """Items that the user has seen, liked, saved, …"""
    user = _user(request)
    given = parameters_of(request, STATE_PARAMETERS)
    reader = services(request).reader
    state = given.get("state")
    if state is not None and state not in reader.schema.states:
        raise not_found("user state", state, reader.schema.states)
    return json_reply(await reader.user_state(user, **given))


async def get_user_relationships(request: web.Request) -> web.Response:
    """Edges out of the user."""
    user = _user(request)
    given = parameters_of(request, RELATIONSHIP_PARAMETERS)
    reader = services(request).reader
    type = given.get("type")
    if type is not None and type not in reader.schema.relationships:
        raise not_found("relationship type", type, reader.schema.relationships)
    return json_reply(await reader.user_relationships(user, **given))


async def get_user_preference(request: web.Request) -> web.Response:
    """The preference vectors that signals have taught."""
    return json_reply(await services(request).reader.user_preference(_user(request)))


def _user(request: web.Request) -> str:
    user = request.match_info["id"]
    require_user(request, user, "read it")
    return user
