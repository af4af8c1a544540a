"""Explicit edges: written to the log, read from the tables."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from aiohttp import web

from queryd.hot.edges_ahead import AheadWrite
from queryd.http.bodies import decode_json, read_body
from queryd.http.error_mapping import RETRY_AFTER_S, of_record_error
from queryd.http.handlers.replies import json_reply, require_user, table_parameters_of
from queryd.http.problems import ProblemError, bad_fields, not_found
from queryd.http.route import Parameter
from queryd.http.services import services
from queryd.http.shapes import FieldProblem, RelationshipBody, Written
from schemas.errors import RecordError
from schemas.model import Schema
from schemas.records.edge_key import edge_key
from schemas.records.entities import decode_edge

EDGES_MAX = 1000
LIST_PARAMETERS = (
    Parameter("direction", "edges out of the entity, or into it", choices=("out", "in")),
    Parameter("limit", "edges at most; 0 for their number alone", type=int, low=0, high=EDGES_MAX),
    Parameter("order", "heaviest first, or newest first", choices=("weight", "newest")),
)


async def put_relationship(request: web.Request) -> web.Response:
    """Writes an edge."""
    type, source, target = _edge(request)
    body = await read_body(request)
    given: RelationshipBody = decode_json(body, RelationshipBody) if body.strip() else RelationshipBody()
    now_ms = time.time_ns() // 1_000_000
    ts = now_ms if given.ts is None else given.ts
    if ts > now_ms + services(request).reader.schema.limits.future_skew_ms:
        told = f"{ts} lies too far in the future (future_skew_ms); now is {now_ms}"
        raise bad_fields("timestamp_in_future", [FieldProblem("$.ts", told)], status=422)
    return json_reply(await _write(request, type, source, target, {"weight": given.weight, "ts": ts}))


async def delete_relationship(request: web.Request) -> web.Response:
    """Removes an edge."""
    type, source, target = _edge(request)
    return json_reply(await _write(request, type, source, target, None))


async def get_relationship(request: web.Request) -> web.Response:
    """One edge with its weight as decayed to now."""
    type, source, target = _edge(request)
    await table_parameters_of(request, ())
    edge = await services(request).reader.relationship(type, source, target)
    if edge is None:
        raise not_found(f"{type} edge", f"{source} → {target}")
    return json_reply(edge)


async def list_relationships(request: web.Request) -> web.Response:
    """Edges of one type at an entity, and how many there are."""
    type, source = request.match_info["type"], request.match_info["from"]
    _check_type(services(request).reader.schema, type)
    require_user(request, source, "read its relationships")
    given = await table_parameters_of(request, LIST_PARAMETERS)
    reader = services(request).reader
    return json_reply(await reader.relationships(type, source, **given))


async def _write(
    request: web.Request, type: str, source: str, target: str, record: dict[str, Any] | None
) -> Written:
    offered = services(request)
    value = None if record is None else msgspec.json.encode(record)
    try:
        decode_edge(edge_key(type, source, target), value, offered.reader.schema)
    except RecordError as error:
        raise of_record_error(error) from None
    if offered.reader.schema.relationships[type].hides and not offered.reader.may_hide():
        raise ProblemError(
            503,
            "tables_behind",
            f"the tables lack more {type} than this daemon can hold: the edge would not hide anything yet",
            headers={"Retry-After": RETRY_AFTER_S},
        )
    position = await offered.writer.put_relationship(type, source, target, record)
    weight, ts_ms = (None, 0) if record is None else (record["weight"], record["ts"])
    offered.reader.edge_written(AheadWrite(position, type, source, target, weight, ts_ms))
    return Written(id=f"{type}/{source}/{target}", position=position.encode())


def _edge(request: web.Request) -> tuple[str, str, str]:
    type, source, target = (request.match_info[name] for name in ("type", "from", "to"))
    _check_type(services(request).reader.schema, type)
    require_user(request, source, "use its relationships")
    return type, source, target


def _check_type(schema: Schema, type: str) -> None:
    if type not in schema.relationships:
        raise not_found("relationship type", type, schema.relationships)
