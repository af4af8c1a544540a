"""The HTTP surface as values: each function makes the request of one route, without sending it.

`Client` and `AsyncClient` send the same values, so they cannot differ in anything but how they wait.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, cast
from urllib.parse import quote, urlencode

import msgspec

from queryd.http.shapes import (
    BatchWritten,
    Cohorts,
    CohortSize,
    Erasure,
    FieldProblem,
    Liveness,
    ProblemDocument,
    Readiness,
    Relationship,
    Relationships,
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
from queryd.reply import CohortComparison, Ledger, QueryReply
from streams.positions import Position, Positions
from tidal.client_errors import ClientError, refused

T = TypeVar("T")
Kind = Literal["item", "user", "creator"]
Record = Mapping[str, Any]
Event = Mapping[str, Any]


class HasPosition(Protocol):
    """The answer of a write."""

    @property
    def position(self) -> str: ...


class BuiltQuery(Protocol):
    """A query written in Python, by `retrieve` or `search`."""

    def text(self) -> str: ...


Asked: TypeAlias = str | Mapping[str, Any] | BuiltQuery
"""A query: its text, its JSON form, or as it was written in Python."""
After: TypeAlias = str | Position | Positions | HasPosition
"""A write that a read must reflect: what the write answered, its position, or the position's token."""
Parameter: TypeAlias = str | int | bool | Sequence[str]

DEFAULT_URL = "http://127.0.0.1:8080"
TIMEOUT_S = 10.0
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and the type of its reply.

    `also` are statuses besides 2xx that carry that type; `repeatable` calls may be sent again when it is not
    known whether the first one arrived.
    """

    method: str
    path: str
    reply: type[T]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    also: tuple[int, ...] = ()
    repeatable: bool = True

    @property
    def target(self) -> str:
        """Path and query string."""
        given = {name: _text(value) for name, value in self.parameters.items() if value is not None}
        return f"{self.path}?{urlencode(given)}" if given else self.path

    @property
    def payload(self) -> bytes | None:
        """The body as JSON. Raises ClientError where it has a number that JSON lacks."""
        if self.body is None:
            return None
        encoded = msgspec.json.encode(self.body)
        if b"null" in encoded:  # what such a number becomes
            _refuse_not_finite(self.body, "$")
        return encoded

    def result(self, status: int, body: bytes, retry_after: str | None = None) -> T:
        """The reply as its type. Raises RefusedError for a problem document, else ClientError."""
        if 200 <= status < 300 or status in self.also:
            if self.reply is str:
                return cast("T", body.decode())
            try:
                return msgspec.json.decode(body, type=self.reply)
            except msgspec.DecodeError as error:
                raise ClientError(
                    f"{self.method} {self.path}: the reply is not as expected: {error}"
                ) from error
        raise refused(_problem(status, body), _seconds(retry_after))


def _refuse_not_finite(value: Any, path: str) -> None:
    """JSON has no NaN and no infinity; encoded as null they would be taken for what was never given."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ClientError(f"{path}: {value!r} is no number that can be sent; leave it out")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_not_finite(inner, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            _refuse_not_finite(inner, f"{path}[{place}]")


def headers(key: str | None, *, with_body: bool) -> dict[str, str]:
    """Headers of every request."""
    made = {"Accept": _JSON, "User-Agent": "tidal-client"}
    if with_body:
        made["Content-Type"] = _JSON
    if key is not None:
        made["Authorization"] = f"Bearer {key}"
    return made


def publish(events: Event | Sequence[Event]) -> Call[SignalsAccepted]:
    """POST /v1/signals."""
    return Call("POST", "/v1/signals", SignalsAccepted, body=events, repeatable=False)


def put(kind: Kind, id: str, record: Record) -> Call[Written]:
    """PUT of an entity record."""
    return Call("PUT", _entity(kind, id), Written, body=record)


def patch(kind: Kind, id: str, changes: Record) -> Call[Written]:
    """PATCH of an entity record."""
    return Call("PATCH", _entity(kind, id), Written, body=changes)


def get(kind: Kind, id: str, after: After | None) -> Call[dict[str, Any]]:
    """GET of an entity record."""
    return Call("GET", _entity(kind, id), dict[str, Any], _after(after))


def delete(kind: Kind, id: str) -> Call[Written]:
    """DELETE of an entity."""
    return Call("DELETE", _entity(kind, id), Written)


def erase_user(id: str) -> Call[UserDeleted]:
    """DELETE of a user."""
    return Call("DELETE", _entity("user", id), UserDeleted)


def erasure(name: str) -> Call[Erasure]:
    """GET of what became of the deletion of a user."""
    return Call("GET", f"/v1/erasures/{_part(name)}", Erasure)


def put_many(kind: Kind, records: Sequence[Record]) -> Call[BatchWritten]:
    """POST of a batch of entity records."""
    return Call("POST", f"/v1/{kind}s:batch", BatchWritten, body=list(records))


def relate(type: str, source: str, target: str, weight: float = 1.0) -> Call[Written]:
    """PUT of an edge."""
    return Call("PUT", _edge(type, source, target), Written, body={"weight": weight})


def unrelate(type: str, source: str, target: str) -> Call[Written]:
    """DELETE of an edge."""
    return Call("DELETE", _edge(type, source, target), Written)


def relationships(
    type: str, id: str, direction: str, limit: int, order: str, after: After | None
) -> Call[Relationships]:
    """GET of edges."""
    path = f"/v1/relationships/{_part(type)}/{_part(id)}"
    parameters = {"direction": direction, "limit": limit, "order": order, **_after(after)}
    return Call("GET", path, Relationships, parameters)


def relationship(type: str, source: str, target: str, after: After | None) -> Call[Relationship]:
    """GET of one edge."""
    return Call("GET", _edge(type, source, target), Relationship, _after(after))


def two_hops(user: str, type: str, fan_out: int, limit: int, after: After | None) -> Call[TwoHops]:
    """GET of whom those that a user has edges to have edges to."""
    parameters = {"type": type, "fan_out": fan_out, "limit": limit, **_after(after)}
    return Call("GET", f"{_entity('user', user)}/two-hop", TwoHops, parameters)


def similar_users(user: str, state: str | None, limit: int, after: After | None) -> Call[SimilarUsers]:
    """GET of users who share items."""
    parameters = {"state": state, "limit": limit, **_after(after)}
    return Call("GET", f"{_entity('user', user)}/similar", SimilarUsers, parameters)


def query(asked: Asked, after: After | None) -> Call[QueryReply]:
    """POST /v1/query."""
    if isinstance(asked, Mapping):
        return Call("POST", "/v1/query", QueryReply, body={**asked, **_after(after)})
    text = asked if isinstance(asked, str) else asked.text()
    clause = "" if after is None else f' AFTER "{_token(after)}"'
    return Call("POST", "/v1/query", QueryReply, body={"query": text + clause})


def retrieve(parameters: Mapping[str, Parameter | None], after: After | None) -> Call[QueryReply]:
    """GET /v1/retrieve."""
    return Call("GET", "/v1/retrieve", QueryReply, {**parameters, **_after(after)})


def search(text: str, parameters: Mapping[str, Parameter | None], after: After | None) -> Call[QueryReply]:
    """GET /v1/search."""
    return Call("GET", "/v1/search", QueryReply, {"query": text, **parameters, **_after(after)})


def ledger(
    kind: Kind,
    id: str,
    signal: str,
    window: str | None,
    at: int | None,
    cohort: str | None,
    after: After | None,
) -> Call[Ledger]:
    """GET of one signal's ledger."""
    parameters = {"signal": signal, "window": window, "at": at, "cohort": cohort, **_after(after)}
    return Call("GET", f"{_entity(kind, id)}/signals", Ledger, parameters)


def ledgers(
    kind: Kind, id: str, window: str | None, at: int | None, cohort: str | None, after: After | None
) -> Call[dict[str, Ledger]]:
    """GET of all ledgers of an entity, by signal."""
    parameters = {"window": window, "at": at, "cohort": cohort, **_after(after)}
    return Call("GET", f"{_entity(kind, id)}/signals", dict[str, Ledger], parameters)


def user_state(
    user: str, state: str | None, limit: int | None, cursor: str | None, after: After | None
) -> Call[UserState]:
    """GET of a user's states."""
    parameters = {"state": state, "limit": limit, "cursor": cursor, **_after(after)}
    return Call("GET", f"{_entity('user', user)}/state", UserState, parameters)


def user_relationships(
    user: str, type: str | None, limit: int | None, after: After | None
) -> Call[UserRelationships]:
    """GET of a user's edges."""
    parameters = {"type": type, "limit": limit, **_after(after)}
    return Call("GET", f"{_entity('user', user)}/relationships", UserRelationships, parameters)


def user_preference(user: str, after: After | None) -> Call[UserPreference]:
    """GET of a user's preference vectors."""
    return Call("GET", f"{_entity('user', user)}/preference", UserPreference, _after(after))


def user_segments(user: str, after: After | None) -> Call[UserSegments]:
    """GET of the segments that a user is in."""
    return Call("GET", f"{_entity('user', user)}/segments", UserSegments, _after(after))


def cohorts() -> Call[Cohorts]:
    """GET /v1/cohorts."""
    return Call("GET", "/v1/cohorts", Cohorts)


def cohort_size(cohort: str, after: After | None) -> Call[CohortSize]:
    """GET /v1/cohorts/size."""
    return Call("GET", "/v1/cohorts/size", CohortSize, {"cohort": cohort, **_after(after)})


def compare_cohorts(
    a: str,
    b: str,
    signal: str | None,
    window: str | None,
    at: int | None,
    limit: int | None,
    min_count: int | None,
    after: After | None,
) -> Call[CohortComparison]:
    """GET /v1/cohorts/compare."""
    parameters = {
        "a": a,
        "b": b,
        "signal": signal,
        "window": window,
        "at": at,
        "limit": limit,
        "min_count": min_count,
        **_after(after),
    }
    return Call("GET", "/v1/cohorts/compare", CohortComparison, parameters)


def schema() -> Call[dict[str, Any]]:
    """GET /v1/schema."""
    return Call("GET", "/v1/schema", dict[str, Any])


def status() -> Call[Status]:
    """GET /v1/status."""
    return Call("GET", "/v1/status", Status)


def readiness() -> Call[Readiness]:
    """GET /readyz; 503 is an answer too."""
    return Call("GET", "/readyz", Readiness, also=(503,))


def liveness() -> Call[Liveness]:
    """GET /livez."""
    return Call("GET", "/livez", Liveness)


def metrics() -> Call[str]:
    """GET /metrics."""
    return Call("GET", "/metrics", str)


def openapi() -> Call[dict[str, Any]]:
    """GET /openapi.json."""
    return Call("GET", "/openapi.json", dict[str, Any])


def _after(after: After | None) -> dict[str, str]:
    return {} if after is None else {"after": _token(after)}


def _token(after: After) -> str:
    if isinstance(after, str):
        return after
    return after.encode() if isinstance(after, Position | Positions) else after.position


def _part(text: str) -> str:
    """A part of a path. Raises ClientError for what would be another path: nothing, or no text."""
    if not isinstance(text, str) or not text:
        raise ClientError(f"{text!r} is no id: expected a text that is not empty")
    return quote(text, safe="")


def _entity(kind: Kind, id: str) -> str:
    return f"/v1/{kind}s/{_part(id)}"


def _edge(type: str, source: str, target: str) -> str:
    return f"/v1/relationships/{_part(type)}/{_part(source)}/{_part(target)}"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def _problem(status: int, body: bytes) -> ProblemDocument:
    try:
        return msgspec.json.decode(body, type=ProblemDocument)
    except msgspec.DecodeError:
        shown = body[:200].decode("utf-8", "replace")
        return ProblemDocument(
            type="about:blank",
            title="Error",
            status=status,
            detail=shown or "an empty reply",
            errors=[FieldProblem("", "the server did not send a problem document")],
        )


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdigit() else None
