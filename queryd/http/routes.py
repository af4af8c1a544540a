"""Every route of the daemon, in one table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from queryd.http.examples import ENTITIES
from queryd.http.handlers import (
    cohorts,
    erasures,
    ledgers,
    operations,
    query,
    relationships,
    schema,
    signals,
    users,
)
from queryd.http.handlers.entities import EntityRoutes
from queryd.http.problems import PROBLEM_CONTENT_TYPE
from queryd.http.route import AFTER, Body, Handler, Method, RecordShape, Role, Route
from queryd.http.shapes import (
    BatchWritten,
    Cohorts,
    CohortSize,
    Erasure,
    Liveness,
    ProblemDocument,
    QueryRequest,
    Readiness,
    Relationship,
    RelationshipBody,
    Relationships,
    SignalEvent,
    SignalsAccepted,
    SimilarUsers,
    Status,
    TwoHops,
    UserDeleted,
    UserPreference,
    UserRelationships,
    UserSegments,
    UserState,
    Written,
)
from queryd.http.url_query import RETRIEVE_PARAMETERS, SEARCH_PARAMETERS, SUGGEST_PARAMETERS
from queryd.reply import CohortComparison, Ledger, QueryReply

JSON = "application/json"
EVENT_OR_EVENTS = (SignalEvent, list[SignalEvent])
QUERY_BODY = (QueryRequest, dict[str, Any])
LEDGER_OR_LEDGERS = (Ledger, dict[str, Ledger])

_TABLE_PROBLEMS = (400, 404, 503, 504)
_LEDGER_PROBLEMS = (400, 403, 404, 422, 503, 504)
_COHORT_PROBLEMS = (400, 403, 422, 503, 504)
_QUERY_PROBLEMS = (400, 404, 413, 422, 503, 504)
_EVENT_EXAMPLE = {"kind": "like", "item": "item_I", "user": "user_U", "weight": 1.0, "ts": 1763600000000}
_QUERY_EXAMPLE = "RETRIEVE items USING PROFILE trending COHORT locale:US, age:18-24 WINDOW 24h LIMIT 25"


def all_routes() -> tuple[Route, ...]:
    """The table."""
    return (
        *_signal_routes(),
        *(route for plural in ENTITIES for route in _entity_routes(plural)),
        *_erasure_routes(),
        *_relationship_routes(),
        *_query_routes(),
        *_ledger_routes(),
        *_user_routes(),
        *_graph_routes(),
        *_declaration_routes(),
        *_operation_routes(),
    )


def _read(path: str, handler: Handler, name: str, tag: str, summary: str, **more: Any) -> Route:
    """A GET for everyone who may read."""
    return Route("GET", path, handler, name, more.pop("role", Role.READ), tag, summary, **more)


def _write(
    method: Method, path: str, handler: Handler, name: str, tag: str, summary: str, **more: Any
) -> Route:
    """A route that puts something into the log."""
    problems = more.pop("problems", (400, 413, 422, 503))
    return Route(method, path, handler, name, Role.WRITE, tag, summary, problems=problems, **more)


def _signal_routes() -> Iterator[Route]:
    yield _write(
        "POST",
        "/v1/signals",
        signals.publish_signals,
        "publishSignals",
        "signals",
        "Publish one event or an array; answers when the log has them on disk.",
        body=Body({JSON: EVENT_OR_EVENTS}, {JSON: _EVENT_EXAMPLE}),
        status=202,
        reply=SignalsAccepted,
    )


def _entity_routes(plural: str) -> Iterator[Route]:
    handlers = EntityRoutes(plural)
    kind = handlers.kind
    name = kind.capitalize()
    path = f"/v1/{plural}/{{id}}"
    example = ENTITIES[plural]
    record = {"body": Body({JSON: RecordShape(kind)}, {JSON: example}), "reply": Written}
    changes = {"body": Body({JSON: dict[str, Any]}, {JSON: example}), "reply": Written}
    records = {"body": Body({JSON: RecordShape(kind, many=True)}, {JSON: [example]}), "reply": BatchWritten}
    merge = f"Merge into the record of the {kind} (JSON merge patch)."
    some = f"Write an array of records, each with its id: the good {plural}, whatever the others are."
    faults = (400, 404, 413, 422, 503)
    yield _write("PUT", path, handlers.put, f"put{name}", plural, f"Write the whole {kind} record.", **record)
    yield _write("PATCH", path, handlers.patch, f"patch{name}", plural, merge, problems=faults, **changes)
    reply = {"parameters": (AFTER,), "reply": RecordShape(kind), "problems": _TABLE_PROBLEMS}
    yield _read(path, handlers.get, f"get{name}", plural, f"The {kind} record.", **reply)
    deleted = UserDeleted if kind == "user" else Written
    yield _write(
        "DELETE", path, handlers.delete, f"delete{name}", plural, f"Delete the {kind}.", reply=deleted
    )
    yield _write("POST", f"/v1/{plural}:batch", handlers.batch, f"put{name}s", plural, some, **records)


def _erasure_routes() -> Iterator[Route]:
    yield _read(
        "/v1/erasures/{erasure}",
        erasures.erasure,
        "getErasure",
        "users",
        "What became of the deletion of a user, by the `erasure` that it answered.",
        reply=Erasure,
        problems=(404,),
    )


def _relationship_routes() -> Iterator[Route]:
    edge = "/v1/relationships/{type}/{from}/{to}"
    tag = "relationships"
    body = Body({JSON: RelationshipBody}, {JSON: {"weight": 1.0}}, required=False)
    faults = (400, 404, 413, 422, 503)
    put, delete, get = (
        relationships.put_relationship,
        relationships.delete_relationship,
        relationships.get_relationship,
    )
    yield _write(
        "PUT", edge, put, "putRelationship", tag, "Write an edge.", body=body, reply=Written, problems=faults
    )
    yield _write(
        "DELETE", edge, delete, "deleteRelationship", tag, "Remove an edge.", reply=Written, problems=faults
    )
    yield _read(
        edge,
        get,
        "getRelationship",
        tag,
        "One edge, its weight as decayed to now.",
        parameters=(AFTER,),
        reply=Relationship,
        problems=_TABLE_PROBLEMS,
    )
    yield _read(
        "/v1/relationships/{type}/{from}",
        relationships.list_relationships,
        "listRelationships",
        tag,
        "Edges of one type out of or into an entity, heaviest or newest first, and how many there are.",
        parameters=(*relationships.LIST_PARAMETERS, AFTER),
        reply=Relationships,
        problems=_TABLE_PROBLEMS,
    )


def _query_routes() -> Iterator[Route]:
    text = "text/plain"
    yield Route(
        "POST",
        "/v1/query",
        query.run_query,
        "query",
        Role.READ,
        "query",
        "Run a query: its text, as text or in JSON, or its JSON form.",
        body=Body({JSON: QUERY_BODY, text: str}, {JSON: {"query": _QUERY_EXAMPLE}, text: _QUERY_EXAMPLE}),
        reply=QueryReply,
        problems=_QUERY_PROBLEMS,
    )
    for verb, handler, parameters in (
        ("retrieve", query.retrieve, RETRIEVE_PARAMETERS),
        ("search", query.search, SEARCH_PARAMETERS),
    ):
        yield _read(
            f"/v1/{verb}",
            handler,
            verb,
            "query",
            f"{verb.upper()} by URL parameters.",
            parameters=parameters,
            reply=QueryReply,
            problems=_QUERY_PROBLEMS,
        )
    yield _read(
        "/v1/suggest",
        query.suggest,
        "suggest",
        "query",
        "Not served by this version: answers 501.",
        parameters=SUGGEST_PARAMETERS,
        status=501,
        reply=ProblemDocument,
        reply_media=PROBLEM_CONTENT_TYPE,
    )


def _ledger_routes() -> Iterator[Route]:
    for plural, handler in (("items", ledgers.get_item_signals), ("creators", ledgers.get_creator_signals)):
        yield _read(
            f"/v1/{plural}/{{id}}/signals",
            handler,
            f"get{plural[:-1].capitalize()}Signals",
            plural,
            "Ledger: counts, sums, velocities and decayed scores; by signal name without `signal`.",
            parameters=(*ledgers.LEDGER_PARAMETERS, AFTER),
            reply=LEDGER_OR_LEDGERS,
            problems=_LEDGER_PROBLEMS,
        )


def _user_routes() -> Iterator[Route]:
    yield _read(
        "/v1/users/{id}/state",
        users.get_user_state,
        "getUserState",
        "users",
        "Items seen, liked, saved, …",
        parameters=(*users.STATE_PARAMETERS, AFTER),
        reply=UserState,
        problems=_TABLE_PROBLEMS,
    )
    yield _read(
        "/v1/users/{id}/relationships",
        users.get_user_relationships,
        "getUserRelationships",
        "users",
        "Edges out of the user, heaviest first.",
        parameters=(*users.RELATIONSHIP_PARAMETERS, AFTER),
        reply=UserRelationships,
        problems=_TABLE_PROBLEMS,
    )
    yield _read(
        "/v1/users/{id}/preference",
        users.get_user_preference,
        "getUserPreference",
        "users",
        "Preference vectors learnt from signals.",
        parameters=(AFTER,),
        reply=UserPreference,
        problems=_TABLE_PROBLEMS,
    )
    yield _read(
        "/v1/users/{id}/segments",
        users.get_user_segments,
        "getUserSegments",
        "users",
        "Behavioural segments that the user is in, and until when if nothing happens.",
        parameters=(AFTER,),
        reply=UserSegments,
        problems=_TABLE_PROBLEMS,
    )


def _graph_routes() -> Iterator[Route]:
    yield _read(
        "/v1/users/{id}/two-hop",
        users.get_two_hops,
        "getTwoHops",
        "users",
        "Whom those that the user follows follow: both edges of one type, each entity's heaviest.",
        parameters=(*users.TWO_HOP_PARAMETERS, AFTER),
        reply=TwoHops,
        problems=_TABLE_PROBLEMS,
    )
    yield _read(
        "/v1/users/{id}/similar",
        users.get_similar_users,
        "getSimilarUsers",
        "users",
        "Users who share items in a state that the schema lists under `co_engagement`.",
        parameters=(*users.SIMILAR_PARAMETERS, AFTER),
        reply=SimilarUsers,
        problems=_TABLE_PROBLEMS,
    )


def _declaration_routes() -> Iterator[Route]:
    yield _read(
        "/v1/cohorts",
        cohorts.list_cohorts,
        "listCohorts",
        "cohorts",
        "Declared cohorts, segments and dimensions.",
        reply=Cohorts,
        problems=(400,),
    )
    yield _read(
        "/v1/cohorts/size",
        cohorts.get_cohort_size,
        "getCohortSize",
        "cohorts",
        "Distinct users in a cohort.",
        parameters=(*cohorts.SIZE_PARAMETERS, AFTER),
        reply=CohortSize,
        problems=_COHORT_PROBLEMS,
    )
    yield _read(
        "/v1/cohorts/compare",
        cohorts.compare_cohorts,
        "compareCohorts",
        "cohorts",
        "Items by lift between two cohorts: counts, rates and an interval of confidence.",
        parameters=(*cohorts.COMPARE_PARAMETERS, AFTER),
        reply=CohortComparison,
        problems=_COHORT_PROBLEMS,
    )
    yield _read(
        "/v1/schema",
        schema.get_schema,
        "getSchema",
        "schema",
        "The schema that is served.",
        reply=dict[str, Any],
        problems=(400,),
    )


def _operation_routes() -> Iterator[Route]:
    tag, is_open, html = "operations", {"role": Role.OPEN}, {"role": Role.OPEN, "reply_media": "text/html"}
    ready = "Readiness: tables restored and lag under its bound."
    yield _read("/livez", operations.livez, "livez", tag, "Liveness.", reply=Liveness, **is_open)
    yield _read(
        "/readyz",
        operations.readyz,
        "readyz",
        tag,
        ready,
        reply=Readiness,
        other_replies={503: Readiness},
        **is_open,
    )
    yield _read(
        "/metrics", operations.metrics, "metrics", tag, "Prometheus metrics.", reply_media="text/plain"
    )
    yield _read(
        "/v1/status", operations.get_status, "status", tag, "What `tidal status` prints.", reply=Status
    )
    yield _read(
        "/openapi.json", operations.openapi, "openapi", tag, "This document.", reply=dict[str, Any], **is_open
    )
    yield _read("/docs", operations.docs, "docs", tag, "This document as a page.", **html)
    yield _read("/", operations.index, "index", tag, "A small status page.", **html)
