"""Ranked pages: POST /v1/query with text or its JSON form, and the same by URL parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from queryd.http.bodies import decode_json, read_body
from queryd.http.handlers.replies import json_reply, parameters_of
from queryd.http.metrics import HttpMetrics
from queryd.http.middleware import CALLER
from queryd.http.problems import ProblemError, bad_fields
from queryd.http.services import services
from queryd.http.shapes import FieldProblem
from queryd.http.url_query import (
    RETRIEVE_PARAMETERS,
    SEARCH_PARAMETERS,
    SUGGEST_PARAMETERS,
    query_of_parameters,
)
from queryd.language.json_form import from_json
from queryd.language.parse import parse_query
from queryd.reply import Degradation, QueryReply
from schemas.model import Limits

Query = str | Mapping[str, Any]


async def run_query(request: web.Request) -> web.Response:
    """Runs a query given as text, as `{"query": text}`, or in the JSON form."""
    body = await read_body(request)
    limits = services(request).reader.schema.limits
    return await _answer(request, query_of_body(request.content_type, body, limits))


async def retrieve(request: web.Request) -> web.Response:
    """RETRIEVE by URL parameters."""
    given = parameters_of(request, RETRIEVE_PARAMETERS)
    return await _answer(request, query_of_parameters("retrieve", given))


async def search(request: web.Request) -> web.Response:
    """SEARCH by URL parameters."""
    given = parameters_of(request, SEARCH_PARAMETERS)
    return await _answer(request, query_of_parameters("search", given))


async def suggest(request: web.Request) -> web.Response:
    """SUGGEST by URL parameters: refused by name, so that nobody takes an empty list for an answer."""
    parameters_of(request, SUGGEST_PARAMETERS)
    raise ProblemError(501, "not-served", "SUGGEST is not served by this version; use /v1/search")


def query_of_body(content_type: str, body: bytes, limits: Limits) -> Query:
    """The query in a request body: text, `{"query": text}` or the JSON form.

    Raises ProblemError (400) for a body that is none of these, or text beyond `max_query_text_bytes`.
    """
    if content_type == "text/plain":
        return _text(body, limits)
    form = decode_json(body)
    if not isinstance(form, dict):
        raise bad_fields(
            "wrong_type", [FieldProblem("$", 'expected an object: {"query": "…"} or the JSON form')]
        )
    if "query" in form and not form.keys() & {"retrieve", "search", "suggest"}:
        if len(form) > 1:
            beside = min(form.keys() - {"query"})
            told = "beside a query as text stands nothing else: put it into the text, or use the JSON form"
            raise bad_fields("wrong_type", [FieldProblem(f"$.{beside}", told)])
        if not isinstance(form["query"], str):
            raise bad_fields("wrong_type", [FieldProblem("$.query", "expected a text")])
        return _text(form["query"].encode("utf-8", "surrogatepass"), limits)
    return form


def _text(raw: bytes, limits: Limits) -> str:
    if len(raw) > limits.max_query_text_bytes:
        message = f"the query has {len(raw):,} bytes, max_query_text_bytes is {limits.max_query_text_bytes:,}"
        raise ProblemError(
            400,
            "limit-exceeded",
            message,
            limit="max_query_text_bytes",
            errors=[FieldProblem("query", message)],
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_fields("not_utf8", [FieldProblem("query", f"byte {error.start} is not UTF-8")]) from None


async def _answer(request: web.Request, query: Query) -> web.Response:
    offered = services(request)
    if request[CALLER].user is not None:
        asker = _user_of(query, offered.reader.schema.limits)
        request[CALLER].require_user(asker, "ask for another user's page")
    reply = await offered.reader.query(query)
    if (fault := offered.lag.fault) is not None:
        reply = msgspec.structs.replace(reply, degraded=[*reply.degraded, Degradation("log", fault)])
    _measure(offered.metrics, reply)
    return json_reply(reply)


def _user_of(query: Query, limits: Limits) -> str | None:
    depth_max = limits.max_predicate_depth
    if isinstance(query, str):
        return parse_query(query, depth_max=depth_max).user
    return from_json(query, depth_max=depth_max).user


def _measure(metrics: HttpMetrics, reply: QueryReply) -> None:
    """Counts what was cut, times the query, and its stages where the reply states them (EXPLAIN ANALYZE)."""
    metrics.query_seconds.observe(reply.took_us / 1e6)
    for cut in reply.degraded:
        metrics.degraded.labels(cut.stage).inc()
    stages = [] if reply.explain is None else reply.explain.stages
    for stage in stages:
        metrics.stage_seconds.labels(stage["stage"]).observe(stage["took_us"] / 1e6)
