"""Every route of the daemon, in one table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from queryd.http.handlers import cohorts, ledgers, operations, query, relationships, schema, signals, users
from queryd.http.handlers.entities import EntityRoutes
from queryd.http.route import Body, Parameter, Role, Route
from queryd.http.shapes import (
    BatchWritten,
    Cohorts,
    CohortSize,
    Ledger,
    Liveness,
    QueryReply,
    QueryRequest,
    Readiness,
    Relationship,
    RelationshipBody,
    Relationships,
    SignalEvent,
    SignalsAccepted,
    Status,
    UserPreference,
    UserRelationships,
    UserState,
    Written,
)
from queryd.http.url_query import RETRIEVE_PARAMETERS, SEARCH_PARAMETERS, SUGGEST_PARAMETERS

JSON = "application/json"
EVENT_OR_EVENTS = (SignalEvent, list[SignalEvent])
QUERY_BODY = (QueryRequest, dict[str, Any])
LEDGER_OR_LEDGERS = (Ledger, dict[str, Ledger])

_EVENT_EXAMPLE = {"kind": "like", "item": "item_I", "user": "user_U", "weight": 1.0, "ts": 1763600000000}
_QUERY_EXAMPLE = "RETRIEVE items USING PROFILE trending COHORT locale:US, age:18-24 WINDOW 24h LIMIT 25"
_ENTITY_EXAMPLES: dict[str, Any] = {
    "items": {"id": "item_I", "creator": "creator_C", "title": "Piano for beginners", "tags": ["piano"]},
    "users": {"id": "user_U", "locale": "US", "age": 21},
    "creators": {"id": "creator_C", "name": "Clara"},
}


def all_routes() -> tuple[Route, ...]:
    """The table."""
    return (
        *_signal_routes(),
        *(route for plural in _ENTITY_EXAMPLES for route in _entity_routes(plural)),
        *_relationship_routes(),
        *_query_routes(),
        *_read_routes(),
        *_operation_routes(),
    )


def _signal_routes() -> Iterator[Route]:
    yield Route(
        "POST",
        "/v1/signals",
        signals.publish_signals,
        "publishSignals",
        Role.WRITE,
        "signals",
        "Publish one event or an array; answers when the log has them on disk.",
        body=Body({JSON: EVENT_OR_EVENTS}, {JSON: _EVENT_EXAMPLE}),
        status=202,
        reply=SignalsAccepted,
        problems=(400, 413, 422, 503),
    )


def _entity_routes(plural: str) -> Iterator[Route]:
    handlers = EntityRoutes(plural)
    singular = handlers.kind
    name = singular.capitalize()
    record = Body({JSON: dict[str, Any]}, {JSON: _ENTITY_EXAMPLES[plural]})
    records = Body({JSON: list[dict[str, Any]]}, {JSON: [_ENTITY_EXAMPLES[plural]]})
    path = f"/v1/{plural}/{{id}}"
    yield Route(
        "PUT", path, handlers.put, f"put{name}", Role.WRITE, plural, f"Write the whole record of the {singular}.",
        body=record, reply=Written, problems=(400, 413, 422, 503),
    )  # fmt: skip
    yield Route(
        "PATCH", path, handlers.patch, f"patch{name}", Role.WRITE, plural,
        f"Merge into the record of the {singular} (JSON merge patch).",
        body=record, reply=Written, problems=(400, 404, 413, 422, 503),
    )  # fmt: skip
    yield Route(
        "GET", path, handlers.get, f"get{name}", Role.READ, plural, f"The record of the {singular}.",
        reply=dict[str, Any], problems=(404,),
    )  # fmt: skip
    yield Route(
        "DELETE", path, handlers.delete, f"delete{name}", Role.WRITE, plural, f"Delete the {singular}.",
        reply=Written, problems=(422, 503),
    )  # fmt: skip
    yield Route(
        "POST", f"/v1/{plural}:batch", handlers.batch, f"put{plural.capitalize()}", Role.WRITE, plural,
        f"Write an array of records, each with its id; the good {plural} are written whatever the others are.",
        body=records, reply=BatchWritten, problems=(400, 413, 422, 503),
    )  # fmt: skip


def _relationship_routes() -> Iterator[Route]:
    edge = "/v1/relationships/{type}/{from}/{to}"
    yield Route(
        "PUT", edge, relationships.put_relationship, "putRelationship", Role.WRITE, "relationships",
        "Write an edge.",
        body=Body({JSON: RelationshipBody}, {JSON: {"weight": 1.0}}, required=False),
        reply=Written, problems=(400, 404, 413, 422, 503),
    )  # fmt: skip
    yield Route(
        "DELETE", edge, relationships.delete_relationship, "deleteRelationship", Role.WRITE, "relationships",
        "Remove an edge.", reply=Written, problems=(400, 404, 422, 503),
    )  # fmt: skip
    yield Route(
        "GET", edge, relationships.get_relationship, "getRelationship", Role.READ, "relationships",
        "One edge, its weight as decayed to now.", reply=Relationship, problems=(400, 404),
    )  # fmt: skip
    yield Route(
        "GET", "/v1/relationships/{type}/{from}", relationships.list_relationships, "listRelationships", Role.READ,
        "relationships", "Edges of one type out of or into an entity, heaviest first.",
        parameters=relationships.LIST_PARAMETERS, reply=Relationships, problems=(400, 404),
    )  # fmt: skip


def _query_routes() -> Iterator[Route]:
    yield Route(
        "POST", "/v1/query", query.run_query, "query", Role.READ, "query",
        "Run a query: its text, as text or in JSON, or its JSON form.",
        body=Body(
            {JSON: QUERY_BODY, "text/plain": str}, {JSON: {"query": _QUERY_EXAMPLE}, "text/plain": _QUERY_EXAMPLE}
        ),
        reply=QueryReply, problems=(400, 413, 503, 504),
    )  # fmt: skip
    for verb, handler, parameters in (
        ("retrieve", query.retrieve, RETRIEVE_PARAMETERS),
        ("search", query.search, SEARCH_PARAMETERS),
    ):
        yield Route(
            "GET", f"/v1/{verb}", handler, verb, Role.READ, "query", f"{verb.upper()} by URL parameters.",
            parameters=parameters, reply=QueryReply, problems=(400, 503, 504),
        )  # fmt: skip
    yield Route(
        "GET", "/v1/suggest", query.suggest, "suggest", Role.READ, "query", "Not served yet: answers 501.",
        parameters=SUGGEST_PARAMETERS, status=501, reply_media="application/problem+json",
    )  # fmt: skip


def _read_routes() -> Iterator[Route]:
    for plural, handler in (("items", ledgers.get_item_signals), ("creators", ledgers.get_creator_signals)):
        yield Route(
            "GET", f"/v1/{plural}/{{id}}/signals", handler, f"get{plural[:-1].capitalize()}Signals", Role.READ,
            plural, "Ledger: counts, sums, velocities and decayed scores; by signal name without `signal`.",
            parameters=ledgers.LEDGER_PARAMETERS, reply=LEDGER_OR_LEDGERS, problems=(400, 404),
        )  # fmt: skip
    yield from _user_routes()
    yield Route(
        "GET", "/v1/cohorts", cohorts.list_cohorts, "listCohorts", Role.READ, "cohorts",
        "Declared cohorts, segments and dimensions.", reply=Cohorts, problems=(400,),
    )  # fmt: skip
    yield Route(
        "GET", "/v1/cohorts/size", cohorts.get_cohort_size, "getCohortSize", Role.READ, "cohorts",
        "Distinct users in a cohort.", parameters=cohorts.SIZE_PARAMETERS, reply=CohortSize, problems=(400, 404),
    )  # fmt: skip
    yield Route(
        "GET", "/v1/schema", schema.get_schema, "getSchema", Role.READ, "schema", "The schema that is served.",
        reply=dict[str, Any], problems=(400,),
    )  # fmt: skip


def _user_routes() -> Iterator[Route]:
    shapes: tuple[tuple[str, Any, Any, tuple[Parameter, ...], str], ...] = (
        ("state", users.get_user_state, UserState, users.STATE_PARAMETERS, "Items seen, liked, saved, …"),
        (
            "relationships",
            users.get_user_relationships,
            UserRelationships,
            users.RELATIONSHIP_PARAMETERS,
            "Edges out of the user.",
        ),
        (
            "preference",
            users.get_user_preference,
            UserPreference,
            (),
            "Preference vectors learnt from signals.",
        ),
    )
    for what, handler, reply, parameters, summary in shapes:
        yield Route(
            "GET", f"/v1/users/{{id}}/{what}", handler, f"getUser{what.capitalize()}", Role.READ, "users", summary,
            parameters=parameters, reply=reply, problems=(400, 404),
        )  # fmt: skip


def _operation_routes() -> Iterator[Route]:
    yield Route(
        "GET", "/livez", operations.livez, "livez", Role.OPEN, "operations", "Liveness.", reply=Liveness
    )
    yield Route(
        "GET", "/readyz", operations.readyz, "readyz", Role.OPEN, "operations",
        "Readiness: tables restored and lag under its bound.", reply=Readiness, other_replies={503: Readiness},
    )  # fmt: skip
    yield Route(
        "GET", "/metrics", operations.metrics, "metrics", Role.READ, "operations", "Prometheus metrics.",
        reply_media="text/plain",
    )  # fmt: skip
    yield Route(
        "GET", "/v1/status", operations.get_status, "status", Role.READ, "operations", "What `tidal status` prints.",
        reply=Status,
    )  # fmt: skip
    yield Route(
        "GET", "/openapi.json", operations.openapi, "openapi", Role.OPEN, "operations", "This document.",
        reply=dict[str, Any],
    )  # fmt: skip
    yield Route(
        "GET", "/docs", operations.docs, "docs", Role.OPEN, "operations", "This document as a page.",
        reply_media="text/html",
    )  # fmt: skip
    yield Route(
        "GET", "/", operations.index, "index", Role.OPEN, "operations", "A small status page.",
        reply_media="text/html",
    )  # fmt: skip
