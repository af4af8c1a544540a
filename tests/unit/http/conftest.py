"""The application on a free port, over an engine and a producer that only remember what they were asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from queryd.hot.edges_ahead import AheadWrite
from queryd.http.app import create_app
from queryd.http.examples import REPLIES
from queryd.http.services import Services
from queryd.log_lag import Lag
from queryd.reply import QueryReply
from schemas.default import default_schema
from schemas.model import Schema
from schemas.records.columns import EventColumns
from streams.positions import Position, Positions

REPLY: dict[str, Any] = {
    "request_id": "r1",
    "results": [{"id": "item_1", "rank": 1, "score": 0.5, "exploration": False}],
    "cursor": None,
    "total_estimate": 1,
    "estimator": "exact",
    "freshness_ms": 12,
    "degraded": [{"stage": "text", "why": "no index yet"}],
    "warnings": [],
    "took_us": 900,
}


@dataclass(frozen=True)
class FakeReadiness:
    """What /readyz shows."""

    ready: bool = True
    why: tuple[str, ...] = ()
    progress: Mapping[str, Any] = field(default_factory=dict)


class FakeReader:
    """An engine whose answers are set by the test."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.asked: list[tuple[str, Any]] = []
        self.error: Exception | None = None
        self.records: dict[tuple[str, str], bytes] = {}
        self.applied = True
        self.readiness_now = FakeReadiness()
        self.room = True
        self.edges_written: list[AheadWrite] = []
        self.edge: dict[str, Any] | None = None
        self.worker: dict[str, Any] = {"written_ms": 1 << 50, "partitions": {"0": {}}}

    async def query(self, query: str | Mapping[str, Any], now_ms: int | None = None) -> Any:
        return self._answer("query", query, msgspec.convert(REPLY, QueryReply))

    async def ledger(self, kind: str, id: str, *args: Any, **given: Any) -> Any:
        if id == "nobody":
            return None
        return self._answer("ledger", (kind, id, given), {"id": id})

    async def user_state(self, user: str, *args: Any, **given: Any) -> Any:
        return self._answer("user_state", (user, given), {"user": user, "states": {}})

    async def user_relationships(self, user: str, *args: Any, **given: Any) -> Any:
        return self._answer("user_relationships", (user, given), {"user": user, "edges": []})

    async def user_preference(self, user: str) -> Any:
        return self._answer("user_preference", user, {"user": user, "slots": {}})

    async def user_segments(self, user: str) -> Any:
        return self._answer("user_segments", user, {"user": user, "segments": []})

    async def relationships(self, type: str, id: str, *args: Any, **given: Any) -> Any:
        return self._answer("relationships", (type, id, given), {"edges": [], "total": 0, "complete": True})

    async def two_hops(self, user: str, type: str, **given: Any) -> Any:
        return self._answer("two_hops", (user, type, given), {"user": user, "type": type, "reached": []})

    async def similar_users(self, user: str, state: str | None = None, **given: Any) -> Any:
        return self._answer(
            "similar_users", (user, state, given), {"user": user, "state": "liked", "users": []}
        )

    def may_hide(self) -> bool:
        return self.room

    def edge_written(self, write: AheadWrite) -> None:
        self.edges_written.append(write)

    async def relationship(self, type: str, source: str, target: str) -> Any:
        return self._answer("relationship", (type, source, target), self.edge)

    async def cohorts(self) -> Any:
        return self._answer("cohorts", None, {"cohorts": [], "segments": [], "dimensions": []})

    async def cohort_size(self, cohort: str) -> Any:
        size = {"cohort": cohort, "users": 3, "estimator": "exact", "warnings": []}
        return self._answer("cohort_size", cohort, size)

    async def compare_cohorts(self, a: str, b: str, *args: Any, **given: Any) -> Any:
        return self._answer("compare_cohorts", (a, b, given), REPLIES["compareCohorts"])

    async def record(self, kind: str, id: str) -> bytes | None:
        return self.records.get((kind, id))

    async def creator_facts(self, creator: str) -> dict[str, Any]:
        return {"catalog": {"items": 2, "embeddings": {}}, "followers": 3, "edges_in": {"follows": 3}}

    async def erasure(self, name: str) -> Any:
        if name == "9-9":
            return None
        return self._answer("erasure", name, {"erasure": name, "state": "pending"})

    async def wait_applied(self, positions: Positions, timeout_s: float) -> bool:
        self.asked.append(("wait_applied", positions))
        return self.applied

    def status(self) -> Mapping[str, Any]:
        shards = {
            "0": {"rejected": {"unknown_kind": 2}},
            "1": {"rejected": {"unknown_kind": 1, "id_empty": 4}},
        }
        return {
            "freshness_ms": 12.0,
            "text": {"waiting": 3},
            "name": "x",
            "tables": {"worker-0": {**self.worker, "shards": shards}},
        }

    def readiness(self) -> FakeReadiness:
        return self.readiness_now

    def _answer(self, name: str, question: Any, answer: Any) -> Any:
        self.asked.append((name, question))
        if self.error is not None:
            raise self.error
        return answer


class FakeLag:
    """A lag that the test sets."""

    def __init__(self) -> None:
        self.lag = Lag(0, 0)
        self.fault: str | None = None

    def now(self) -> Lag:
        return self.lag

    def status(self) -> Mapping[str, Any]:
        return {"reachable": True, "lag_records": self.lag.records}


class FakeWriter:
    """A producer that acknowledges everything at once."""

    def __init__(self) -> None:
        self.columns: list[EventColumns] = []
        self.entities: list[tuple[str, str, Mapping[str, Any] | None]] = []
        self.edges: list[tuple[str, str, str, Mapping[str, Any] | None]] = []
        self.error: Exception | None = None
        self._offset = 0

    async def publish_columns(self, columns: EventColumns) -> Sequence[Position]:
        self._fail()
        self.columns.append(columns)
        return [self._next("tidal.signals")]

    async def put_entity(self, kind: str, id: str, record: Mapping[str, Any] | None) -> Position:
        self._fail()
        self.entities.append((kind, id, record))
        return self._next(f"tidal.{kind}s")

    async def put_relationship(
        self, type: str, src: str, dst: str, record: Mapping[str, Any] | None
    ) -> Position:
        self._fail()
        self.edges.append((type, src, dst, record))
        return self._next("tidal.relationships")

    def _next(self, topic: str) -> Position:
        self._offset += 1
        return Position(topic, 0, self._offset)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def reader() -> FakeReader:
    """The engine."""
    return FakeReader(default_schema())


@pytest.fixture
def writer() -> FakeWriter:
    """The producer."""
    return FakeWriter()


@pytest.fixture
def lag() -> FakeLag:
    """The watch on the log."""
    return FakeLag()


@pytest.fixture
def services(reader: FakeReader, writer: FakeWriter, lag: FakeLag) -> Services:
    """What the application is made of; a test may change it before it uses `client`."""
    return Services(reader, writer, lag)


@pytest.fixture
async def client(services: Services) -> AsyncIterator[TestClient[Any, Any]]:
    """A client of the running application."""
    async with TestClient(TestServer(create_app(services))) as running:
        yield running
