"""The client of queryd's HTTP surface for asyncio; `tidal.client` is the same and blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from queryd.http.shapes import (
    BatchWritten,
    Cohorts,
    CohortSize,
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
from tidal import calls
from tidal.calls import DEFAULT_URL, TIMEOUT_S, Call, Event, Kind, Record, unreachable

T = TypeVar("T")


class AsyncClient:
    """Client for asyncio; one instance serves any number of tasks. Use it as an async context manager.

    Methods raise RefusedError when the server answers with a problem document, ServerUnreachableError when it
    does not answer.
    """

    def __init__(self, url: str = DEFAULT_URL, key: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> AsyncClient:
        self._opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def publish(self, events: Event | Sequence[Event]) -> SignalsAccepted:
        """Publishes one event or a sequence; returns when the log has them on disk."""
        return await self._send(calls.publish(events))

    async def put(self, kind: Kind, id: str, record: Record) -> Written:
        """Writes a whole record."""
        return await self._send(calls.put(kind, id, record))

    async def patch(self, kind: Kind, id: str, changes: Record) -> Written:
        """Merges changes into a record (RFC 7396)."""
        return await self._send(calls.patch(kind, id, changes))

    async def get(self, kind: Kind, id: str) -> dict[str, Any]:
        """The current record."""
        return await self._send(calls.get(kind, id))

    async def delete(self, kind: Kind, id: str) -> Written:
        """Deletes an entity."""
        return await self._send(calls.delete(kind, id))

    async def put_many(self, kind: Kind, records: Sequence[Record]) -> BatchWritten:
        """Writes records, each with its `id`."""
        return await self._send(calls.put_many(kind, records))

    async def relate(self, type: str, source: str, target: str, weight: float = 1.0) -> Written:
        """Writes an edge."""
        return await self._send(calls.relate(type, source, target, weight))

    async def unrelate(self, type: str, source: str, target: str) -> Written:
        """Removes an edge."""
        return await self._send(calls.unrelate(type, source, target))

    async def relationships(
        self, type: str, id: str, direction: str = "out", limit: int = 100, order: str = "weight"
    ) -> Relationships:
        """Edges of one type out of (or into) an entity, by weight or `newest`; `limit=0`: their number."""
        return await self._send(calls.relationships(type, id, direction, limit, order))

    async def relationship(self, type: str, source: str, target: str) -> Relationship:
        """One edge; RefusedError with status 404 when there is none."""
        return await self._send(calls.relationship(type, source, target))

    async def two_hops(self, user: str, type: str, fan_out: int = 50, limit: int = 100) -> TwoHops:
        """Whom those that the user has edges of a type to have such edges to, heaviest first."""
        return await self._send(calls.two_hops(user, type, fan_out, limit))

    async def similar_users(self, user: str, state: str | None = None, limit: int = 20) -> SimilarUsers:
        """Users who share items in a state that the schema lists under `co_engagement`."""
        return await self._send(calls.similar_users(user, state, limit))

    async def query(self, query: str | Mapping[str, Any]) -> QueryReply:
        """A ranked page, for query text or its JSON form."""
        return await self._send(calls.query(query))

    async def ledger(
        self,
        kind: Kind,
        id: str,
        signal: str,
        *,
        window: str | None = None,
        at: int | None = None,
        cohort: str | None = None,
    ) -> Ledger:
        """What one signal has amounted to for an entity."""
        return await self._send(calls.ledger(kind, id, signal, window, at, cohort))

    async def ledgers(
        self, kind: Kind, id: str, *, at: int | None = None, cohort: str | None = None
    ) -> dict[str, Ledger]:
        """Ledgers of all signals, by name."""
        return await self._send(calls.ledgers(kind, id, at, cohort))

    async def user_state(
        self, user: str, state: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> UserState:
        """Items that a user has seen, liked, saved, …"""
        return await self._send(calls.user_state(user, state, limit, cursor))

    async def user_relationships(self, user: str, limit: int | None = None) -> UserRelationships:
        """Edges out of a user."""
        return await self._send(calls.user_relationships(user, limit))

    async def user_preference(self, user: str) -> UserPreference:
        """A user's preference vectors."""
        return await self._send(calls.user_preference(user))

    async def cohorts(self) -> Cohorts:
        """Declared cohorts, segments and dimensions."""
        return await self._send(calls.cohorts())

    async def cohort_size(self, cohort: str) -> CohortSize:
        """Distinct users of a cohort."""
        return await self._send(calls.cohort_size(cohort))

    async def schema(self) -> dict[str, Any]:
        """The schema that is served."""
        return await self._send(calls.schema())

    async def status(self) -> Status:
        """How the engine is doing."""
        return await self._send(calls.status())

    async def readiness(self) -> Readiness:
        """Whether it serves, and if not, why not yet."""
        return await self._send(calls.readiness())

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        return self._session

    async def _send(self, call: Call[T]) -> T:
        payload = call.payload
        headers = calls.headers(self._key, with_body=payload is not None)
        # Already encoded: an id may contain %2F, which must stay as it is.
        url = URL(self.url + call.target, encoded=True)
        try:
            async with self._opened().request(call.method, url, data=payload, headers=headers) as response:
                body = await response.read()
                return call.result(response.status, body, response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise unreachable(self.url, error) from error
