"""The schema that is being served."""

from __future__ import annotations

from aiohttp import web

from queryd.http.handlers.replies import json_reply
from queryd.http.services import services
from schemas.loading import to_document


async def get_schema(request: web.Request) -> web.Response:
    """The schema as a document that `tidal schema validate` accepts."""
    return json_reply(to_document(services(request).reader.schema))
