"""What the HTTP handlers need from the rest of the daemon, and how they find it in the application."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from queryd.hot.edges_ahead import AheadWrite
from queryd.http.access import Keys, RateLimiter
from queryd.http.metrics import HttpMetrics
from queryd.http.restores import unfinished
from queryd.http.shapes import Readiness
from queryd.log_lag import Lag
from queryd.reply import QueryReply
from schemas.model import Schema
from schemas.records.columns import EventColumns
from streams.positions import Position, Positions


class ReadinessReport(Protocol):
    """Whether the engine may serve, and if not, why not yet and how far it is."""

    @property
    def ready(self) -> bool: ...

    @property
    def why(self) -> Sequence[str]: ...

    @property
    def progress(self) -> Mapping[str, Any]: ...


class Reader(Protocol):
    """The engine as the handlers use it. Replies encode to the shapes of `queryd.http.shapes`.

    Names that the schema lacks raise a TidalError with the nearest valid one; an unknown entity is None.
    """

    @property
    def schema(self) -> Schema:
        """The schema that is served now."""
        ...

    async def query(self, query: str | Mapping[str, Any], now_ms: int | None = None) -> QueryReply:
        """A ranked page for query text or its JSON form."""
        ...

    async def ledger(
        self,
        kind: str,
        id: str,
        signal: str | None = None,
        window: str | None = None,
        at: int | None = None,
        cohort: str | None = None,
    ) -> Any:
        """One ledger, or without `signal` a mapping of signal name to ledger."""
        ...

    async def user_state(
        self, user: str, state: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Any:
        """The user's states with a page of item ids each."""
        ...

    async def user_relationships(self, user: str, type: str | None = None, limit: int = 100) -> Any:
        """Edges out of the user, heaviest first, weights decayed to now."""
        ...

    async def user_preference(self, user: str) -> Any:
        """The user's preference vectors by slot."""
        ...

    async def user_segments(self, user: str) -> Any:
        """The behavioural segments that the user is in now."""
        ...

    async def two_hops(self, user: str, type: str, fan_out: int = 50, limit: int = 100) -> Any:
        """Whom those that the user has edges of a type to have such edges to."""
        ...

    async def similar_users(self, user: str, state: str | None = None, limit: int = 20) -> Any:
        """Users who share items in a state."""
        ...

    async def relationships(
        self, type: str, id: str, direction: str = "out", limit: int = 100, order: str = "weight"
    ) -> Any:
        """Edges of one type out of or into an entity, and how many there are."""
        ...

    async def relationship(self, type: str, source: str, target: str) -> Any | None:
        """One edge."""
        ...

    def may_hide(self) -> bool:
        """Whether another hiding edge can be made to hide before the tables have it."""
        ...

    def edge_written(self, write: AheadWrite) -> None:
        """Tells of an edge that the log has acknowledged."""
        ...

    async def cohorts(self) -> Any:
        """Declared cohorts, segments and dimensions."""
        ...

    async def cohort_size(self, cohort: str) -> Any:
        """Distinct users of a cohort: a declared name or a predicate."""
        ...

    async def compare_cohorts(
        self,
        a: str,
        b: str,
        signal: str | None = None,
        window: str = "24h",
        at: int | None = None,
        limit: int = 20,
        min_count: int = 5,
    ) -> Any:
        """Items by lift of one cohort over another."""
        ...

    async def record(self, kind: str, id: str) -> bytes | None:
        """The current record of an item, user or creator, as JSON."""
        ...

    async def creator_facts(self, creator: str) -> dict[str, Any]:
        """What the engine adds to a creator's record."""
        ...

    async def erasure(self, name: str) -> Any | None:
        """What became of an erasure."""
        ...

    async def wait_applied(self, positions: Positions, timeout_s: float) -> bool:
        """Waits until the records at these positions are visible; False when they are not in time."""
        ...

    def status(self) -> Mapping[str, Any]:
        """What `tidal status` prints: lag, tables, freshness, versions."""
        ...

    def readiness(self) -> ReadinessReport:
        """Tables restored, lag under its bound?"""
        ...


class Writer(Protocol):
    """The producer as the handlers use it; every call returns once the log has acknowledged."""

    async def publish_columns(self, columns: EventColumns) -> Sequence[Position]: ...

    async def put_entity(self, kind: str, id: str, record: Mapping[str, Any] | None) -> Position: ...

    async def put_relationship(
        self, type: str, src: str, dst: str, record: Mapping[str, Any] | None
    ) -> Position: ...


class LagWatch(Protocol):
    """How far the tables are behind the log."""

    @property
    def fault(self) -> str | None:
        """Why the log does not answer; None while it does."""
        ...

    def now(self) -> Lag: ...

    def status(self) -> Mapping[str, Any]: ...


@dataclass(slots=True)
class Services:
    """Everything that a handler may use.

    `lag_ms_max` is the lag beyond which /readyz says no; `was_ready` is set when it first says yes;
    `in_flight` counts the requests being served.
    """

    reader: Reader
    writer: Writer
    lag: LagWatch
    lag_ms_max: int = 10_000
    keys: Keys = field(default_factory=Keys)
    limiter: RateLimiter = field(default_factory=lambda: RateLimiter(0.0))
    metrics: HttpMetrics = field(default_factory=HttpMetrics)
    was_ready: bool = False
    in_flight: int = 0


def readiness(offered: Services) -> Readiness:
    """Tables restored and lag under its bound.

    Restores count until the first yes only: later they mean that partitions move between workers, and a
    daemon that went away at each rebalance would be worse than one that says how old its answers are. A log
    that does not answer leaves the lag unknown: what was ready keeps serving, and /v1/status says that the
    log is away.
    """
    report, lag = offered.reader.readiness(), offered.lag.now()
    why = list(report.why)
    if not offered.was_ready:
        why += unfinished(offered.reader.status().get("tables", {}), time.time_ns() // 1_000_000)
    if lag.behind_ms is not None and lag.behind_ms > offered.lag_ms_max:
        why.append(
            f"{lag.records:,} records and {lag.behind_ms:,} ms behind the log; "
            f"queryd.lag_ms_max is {offered.lag_ms_max:,}"
        )
    ready = report.ready and not why
    offered.was_ready = offered.was_ready or ready
    progress = {**report.progress, "lag_records": lag.records, "lag_ms": lag.behind_ms}
    return Readiness(ready=ready, why=why, progress=progress)


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)


def services(request: web.Request) -> Services:
    """The services of the application that serves `request`."""
    return request.app[SERVICES]
