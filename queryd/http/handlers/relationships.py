"""Explicit edges: written to the log, read from the tables."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from queryd.http.bodies import decode_json, read_body
from queryd.http.handlers.replies import json_reply, parameters_of, require_user
from queryd.http.problems import ProblemError, invalid, not_found
from queryd.http.route import Parameter
from queryd.http.services import services
from queryd.http.shapes import RelationshipBody, Written
from schemas.model import Schema

EDGES_MAX = 1000
LIST_PARAMETERS = (
    Parameter("direction", "edges out of the entity, or into it", choices=("out", "in")),
    Parameter("limit", "edges at most", type=int, low=1, high=EDGES_MAX),
)


async def put_relationship(request: web.Request) -> web.Response:
    """Writes an edge."""
    type, source, target = _edge(request, write=True)
    body = await read_body(request)
    given: RelationshipBody = decode_json(body, RelationshipBody) if body.strip() else RelationshipBody()
    ts = given.ts if given.ts is not None else time.time_ns() // 1_000_000
    return json_reply(await _write(request, type, source, target, {"weight": given.weight, "ts": ts}))


async def delete_relationship(request: web.Request) -> web.Response:
    """Removes an edge."""
    type, source, target = _edge(request, write=True)
    return json_reply(await _write(request, type, source, target, None))


async def get_relationship(request: web.Request) -> web.Response:
    """One edge with its weight as decayed to now."""
    type, source, target = _edge(request, write=False)
    edge = await services(request).reader.relationship(type, source, target)
    if edge is None:
        raise not_found(f"{type} edge", f"{source} → {target}")
    return json_reply(edge)


async def list_relationships(request: web.Request) -> web.Response:
    """Edges of one type at an entity, heaviest first."""
    type, source = request.match_info["type"], request.match_info["from"]
    _check_type(services(request).reader.schema, type)
    require_user(request, source, "read its relationships")
    given = parameters_of(request, LIST_PARAMETERS)
    reader = services(request).reader
    return json_reply(await reader.relationships(type, source, **given))


async def _write(
    request: web.Request, type: str, source: str, target: str, record: dict[str, Any] | None
) -> Written:
    position = await services(request).writer.put_relationship(type, source, target, record)
    return Written(id=f"{type}/{source}/{target}", position=position.encode())


def _edge(request: web.Request, *, write: bool) -> tuple[str, str, str]:
    type, source, target = (request.match_info[name] for name in ("type", "from", "to"))
    schema = services(request).reader.schema
    _check_type(schema, type)
    if write and not schema.relationships[type].explicit:
        raise ProblemError(
            422, "learnt_relationship", f"relationship {type!r} is learnt from signals; it cannot be written"
        )
    for place, id in (("from", source), ("to", target)):
        _check_id(schema, place, id)
    require_user(request, source, "use its relationships")
    return type, source, target


def _check_type(schema: Schema, type: str) -> None:
    if type not in schema.relationships:
        raise not_found("relationship type", type, schema.relationships)


def _check_id(schema: Schema, place: str, id: str) -> None:
    size, limit = len(id.encode()), schema.limits.max_id_bytes
    if size > limit:
        raise invalid("id_too_long", place, f"the id has {size} bytes, max_id_bytes is {limit}")
