"""What goes over the wire: the bodies of requests and replies, from which OpenAPI is generated.

Replies that the engine assembles are described here too, so that the document and the contract tests have one
source. Times are milliseconds since the epoch unless the name says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec


class FieldProblem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field that was refused: where it is, why, and the valid name that it resembles."""

    path: str
    message: str
    code: str | None = None
    nearest: str | None = None


class ProblemDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of every reply of status 400 and above."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = []
    limit: str | None = None
    request_id: str | None = None


class SignalEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event, as any producer may publish it to the log."""

    kind: str
    item: str
    user: str | None = None
    weight: float = 1.0
    ts: int | None = None
    request_id: str | None = None
    context: dict[str, Any] | None = None


class RejectedEvent(msgspec.Struct, frozen=True):
    """An event of an array that was refused; `index` is its place in the array."""

    index: int
    code: str
    message: str


class SignalsAccepted(msgspec.Struct, frozen=True):
    """The log has acknowledged the accepted events; `position` is what `AFTER` waits for.

    `duplicates` is null: they are found where the log is read, not where it is written.
    """

    position: str
    accepted: int
    duplicates: int | None
    rejected: list[RejectedEvent]


class Written(msgspec.Struct, frozen=True):
    """An entity or relationship write that the log has acknowledged."""

    id: str
    position: str


class UserDeleted(msgspec.Struct, frozen=True):
    """The deletion of a user that the log has acknowledged; `erasure` is how to ask what became of it."""

    id: str
    position: str
    erasure: str


class ErasureParts(msgspec.Struct, frozen=True):
    """How many parts of an erasure have deleted rows, and of how many the disk has no trace any more."""

    erased: int
    wiped: int
    of: int


class ErasureRemainder(msgspec.Struct, frozen=True):
    """A topic of the log that may still name the user; `until_ms` null = as long as `until` takes."""

    topic: str
    until: str
    until_ms: int | None


class Erasure(msgspec.Struct, frozen=True):
    """What became of the deletion of a user: `pending`, `erased` from every table, `done` on every disk."""

    erasure: str
    state: Literal["pending", "erased", "done"]
    asked_ms: int | None
    wiped_ms: int | None
    parts: ErasureParts
    rows: dict[str, int]
    remains: list[ErasureRemainder]


class RejectedRecord(msgspec.Struct, frozen=True):
    """A record of a batch that was refused."""

    index: int
    code: str
    path: str
    message: str


class BatchWritten(msgspec.Struct, frozen=True):
    """Records of a batch that the log has acknowledged, and those that were refused."""

    position: str
    written: list[Written]
    rejected: list[RejectedRecord]


class QueryRequest(msgspec.Struct, frozen=True):
    """A query as text in a JSON body."""

    query: str


class StateItems(msgspec.Struct, frozen=True):
    """Items in one state of a user: how many, and a page of their ids."""

    count: int
    items: list[str]


class UserState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The states of a user."""

    user: str
    states: dict[str, StateItems]
    cursor: str | None = None


class Edge(msgspec.Struct, frozen=True, omit_defaults=True):
    """A relationship seen from its source; `weight` is as decayed to now."""

    type: str
    to: str
    weight: float
    updated_at: int


class UserRelationships(msgspec.Struct, frozen=True):
    """Edges out of a user."""

    user: str
    edges: list[Edge]


class PreferenceSlot(msgspec.Struct, frozen=True, omit_defaults=True):
    """A learnt vector of a user: unit norm, one number for each dimension of the slot."""

    updates: int
    vector: list[float]
    short_vector: list[float] | None = None


class UserPreference(msgspec.Struct, frozen=True):
    """The preference vectors of a user; a slot without updates is absent."""

    user: str
    slots: dict[str, PreferenceSlot]


class RelationshipBody(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What may be said about an explicit edge."""

    weight: Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)] = 1.0
    ts: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Relationship(msgspec.Struct, frozen=True, omit_defaults=True, rename={"source": "from"}):
    """One explicit or learnt edge."""

    type: str
    source: str
    to: str
    weight: float
    updated_at: int


class Relationships(msgspec.Struct, frozen=True):
    """Edges of one type at an entity, and how many there are.

    `complete` says that the order was made among all of them; of an entity with more than 10,000 an even
    sample is ordered.
    """

    edges: list[Relationship]
    total: int
    complete: bool


class SegmentStay(msgspec.Struct, frozen=True):
    """A segment that a user is in; `until`: the moment from which not any more unless something happens, null
    if time alone changes nothing."""

    name: str
    until: int | None


class UserSegments(msgspec.Struct, frozen=True):
    """The behavioural segments that a user is in now."""

    user: str
    segments: list[SegmentStay]


class ReachedEntity(msgspec.Struct, frozen=True):
    """An entity two edges away: the sum over `paths` ways of the product of their two weights."""

    id: str
    weight: float
    paths: int


class TwoHops(msgspec.Struct, frozen=True):
    """Whom those that a user has edges to have edges to, heaviest first."""

    user: str
    type: str
    reached: list[ReachedEntity]


class SimilarUser(msgspec.Struct, frozen=True):
    """A user who shares items: `shared` of them, over the geometric mean of both users' numbers of items."""

    id: str
    score: float
    shared: int


class SimilarUsers(msgspec.Struct, frozen=True):
    """Users who share items in a state, the most alike first."""

    user: str
    state: str
    users: list[SimilarUser]


class CohortSummary(msgspec.Struct, frozen=True):
    """A declared cohort."""

    name: str
    predicate: str


class SegmentSummary(msgspec.Struct, frozen=True):
    """A declared segment and how many users are in it now; null: fewer than `min_cohort_size`."""

    name: str
    predicate: str
    users: int | None


class Cohorts(msgspec.Struct, frozen=True):
    """Cohorts, segments and dimensions that the schema declares."""

    cohorts: list[CohortSummary]
    segments: list[SegmentSummary]
    dimensions: list[str]


class CohortSize(msgspec.Struct, frozen=True):
    """How many distinct users are in a cohort now.

    `warnings`: why it may not be the cohort that was meant.
    """

    cohort: str
    users: int
    estimator: Literal["exact", "ipf", "independence"] = "exact"
    warnings: list[str] = []


class Liveness(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["alive"]


class Readiness(msgspec.Struct, frozen=True):
    """Whether queries are served from restored tables with a lag under its bound; if not, why not yet."""

    ready: bool
    why: list[str]
    progress: dict[str, Any]


class Status(msgspec.Struct, frozen=True):
    """What `tidal status` prints.

    `log` holds ends, applied offsets and the lag; `workers` what each worker last wrote of itself; `rejected`
    counts refused records by reason.
    """

    version: str
    ready: bool
    log: dict[str, Any]
    engine: dict[str, Any]
    workers: dict[str, Any]
    rejected: dict[str, int]
    http: dict[str, Any]
