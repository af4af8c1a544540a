"""What became of the deletion of a user."""

from __future__ import annotations

from aiohttp import web

from queryd.http.handlers.replies import json_reply, require_user
from queryd.http.problems import not_found
from queryd.http.services import services


async def erasure(request: web.Request) -> web.Response:
    """The state of an erasure by the name that the delete answered."""
    require_user(request, None, "read what was erased")  # names are easy to guess
    name = request.match_info["erasure"]
    report = await services(request).reader.erasure(name)
    if report is None:
        raise not_found("erasure", name)
    return json_reply(report)
