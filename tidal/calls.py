"""The HTTP surface as values: each function makes the request of one route, without sending it.

`Client` and `AsyncClient` send the same values, so they cannot differ in anything but how they wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from queryd.http.shapes import (
    BatchWritten,
    Cohorts,
    CohortSize,
    FieldProblem,
    ProblemDocument,
    Readiness,
    Relationship,
    Relationships,
    SignalsAccepted,
    SimilarUsers,
    Status,
    TwoHops,
    UserPreference,
    UserRelationships,
    UserState,
    Written,
)
from queryd.reply import Ledger, QueryReply
from schemas.errors import TidalError

T = TypeVar("T")
Kind = Literal["item", "user", "creator"]
Record = Mapping[str, Any]
Event = Mapping[str, Any]

DEFAULT_URL = "http://127.0.0.1:8080"
TIMEOUT_S = 10.0
_JSON = "application/json"


class ClientError(TidalError):
    """Base of everything that a client raises."""


class ServerUnreachableError(ClientError):
    """Nothing answered at the address, or it stopped answering."""


class RefusedError(ClientError):
    """The server answered with a problem document."""

    def __init__(self, problem: ProblemDocument, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")
        self.problem = problem
        self.retry_after_s = retry_after_s


def unreachable(url: str, error: BaseException) -> ServerUnreachableError:
    """Nothing answers at `url`, because of `error`."""
    why = str(error) or type(error).__name__
    return ServerUnreachableError(
        f"no answer from queryd at {url}: {why}; is it running? `tidal up` starts one"
    )


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
        """The body as JSON."""
        return None if self.body is None else msgspec.json.encode(self.body)

    def result(self, status: int, body: bytes, retry_after: str | None = None) -> T:
        """The reply as its type. Raises RefusedError for a problem document, else ClientError."""
        if 200 <= status < 300 or status in self.also:
            try:
                return msgspec.json.decode(body, type=self.reply)
            except msgspec.DecodeError as error:
                raise ClientError(
                    f"{self.method} {self.path}: the reply is not as expected: {error}"
                ) from error
        raise RefusedError(_problem(status, body), _seconds(retry_after))


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


def get(kind: Kind, id: str) -> Call[dict[str, Any]]:
    """GET of an entity record."""
    return Call("GET", _entity(kind, id), dict[str, Any])


def delete(kind: Kind, id: str) -> Call[Written]:
    """DELETE of an entity."""
    return Call("DELETE", _entity(kind, id), Written)


def put_many(kind: Kind, records: Sequence[Record]) -> Call[BatchWritten]:
    """POST of a batch of entity records."""
    return Call("POST", f"/v1/{kind}s:batch", BatchWritten, body=list(records))


def relate(type: str, source: str, target: str, weight: float = 1.0) -> Call[Written]:
    """PUT of an edge."""
    return Call("PUT", _edge(type, source, target), Written, body={"weight": weight})


def unrelate(type: str, source: str, target: str) -> Call[Written]:
    """DELETE of an edge."""
    return Call("DELETE", _edge(type, source, target), Written)


def relationships(type: str, id: str, direction: str, limit: int, order: str) -> Call[Relationships]:
    """GET of edges."""
    path = f"/v1/relationships/{_part(type)}/{_part(id)}"
    return Call("GET", path, Relationships, {"direction": direction, "limit": limit, "order": order})


def relationship(type: str, source: str, target: str) -> Call[Relationship]:
    """GET of one edge."""
    return Call("GET", _edge(type, source, target), Relationship)


def two_hops(user: str, type: str, fan_out: int, limit: int) -> Call[TwoHops]:
    """GET of whom those that a user has edges to have edges to."""
    parameters = {"type": type, "fan_out": fan_out, "limit": limit}
    return Call("GET", f"{_entity('user', user)}/two-hop", TwoHops, parameters)


def similar_users(user: str, state: str | None, limit: int) -> Call[SimilarUsers]:
    """GET of users who share items."""
    return Call("GET", f"{_entity('user', user)}/similar", SimilarUsers, {"state": state, "limit": limit})


def query(text_or_form: str | Mapping[str, Any]) -> Call[QueryReply]:
    """POST /v1/query."""
    body = {"query": text_or_form} if isinstance(text_or_form, str) else text_or_form
    return Call("POST", "/v1/query", QueryReply, body=body)


def ledger(
    kind: Kind, id: str, signal: str, window: str | None, at: int | None, cohort: str | None
) -> Call[Ledger]:
    """GET of one signal's ledger."""
    parameters = {"signal": signal, "window": window, "at": at, "cohort": cohort}
    return Call("GET", f"{_entity(kind, id)}/signals", Ledger, parameters)


def ledgers(kind: Kind, id: str, at: int | None, cohort: str | None) -> Call[dict[str, Ledger]]:
    """GET of all ledgers of an entity, by signal."""
    return Call("GET", f"{_entity(kind, id)}/signals", dict[str, Ledger], {"at": at, "cohort": cohort})


def user_state(user: str, state: str | None, limit: int | None, cursor: str | None) -> Call[UserState]:
    """GET of a user's states."""
    return Call(
        "GET", f"{_entity('user', user)}/state", UserState, {"state": state, "limit": limit, "cursor": cursor}
    )


def user_relationships(user: str, limit: int | None) -> Call[UserRelationships]:
    """GET of a user's edges."""
    return Call("GET", f"{_entity('user', user)}/relationships", UserRelationships, {"limit": limit})


def user_preference(user: str) -> Call[UserPreference]:
    """GET of a user's preference vectors."""
    return Call("GET", f"{_entity('user', user)}/preference", UserPreference)


def cohorts() -> Call[Cohorts]:
    """GET /v1/cohorts."""
    return Call("GET", "/v1/cohorts", Cohorts)


def cohort_size(cohort: str) -> Call[CohortSize]:
    """GET /v1/cohorts/size."""
    return Call("GET", "/v1/cohorts/size", CohortSize, {"cohort": cohort})


def schema() -> Call[dict[str, Any]]:
    """GET /v1/schema."""
    return Call("GET", "/v1/schema", dict[str, Any])


def status() -> Call[Status]:
    """GET /v1/status."""
    return Call("GET", "/v1/status", Status)


def readiness() -> Call[Readiness]:
    """GET /readyz; 503 is an answer too."""
    return Call("GET", "/readyz", Readiness, also=(503,))


def _part(text: str) -> str:
    return quote(text, safe="")


def _entity(kind: Kind, id: str) -> str:
    return f"/v1/{kind}s/{_part(id)}"


def _edge(type: str, source: str, target: str) -> str:
    return f"/v1/relationships/{_part(type)}/{_part(source)}/{_part(target)}"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
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
