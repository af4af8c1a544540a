"""The client of queryd's HTTP surface for asyncio; `tidal.client` is the same and blocks.

>>> import asyncio
>>> from tidal import AsyncClient
>>> async def main() -> list[str]:
...     async with AsyncClient(URL, timeout_s=60) as client:
...         liked = await client.publish({"kind": "save", "item": "chess-1", "user": "omar"})
...         page = await client.user_state("omar", "saved", after=liked)
...         return page.states["saved"].items
>>> asyncio.run(main())
['chess-1']
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from queryd.http.shapes import (
    BatchWritten,
    Cohorts,
    CohortSize,
    Erasure,
    Liveness,
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
from tidal import calls
from tidal.calls import DEFAULT_URL, TIMEOUT_S, After, Asked, Call, Event, Kind, Parameter, Record
from tidal.client_errors import RETRIES, ClientError, Retries, unreachable

T = TypeVar("T")


class AsyncClient:
    """Client for asyncio; one instance serves any number of tasks. Use it as an async context manager.

    Methods raise RefusedError (of the class of its status) when the server answers with a problem document,
    ServerUnreachableError when it does not answer within `timeout_s`. What can be repeated without harm is
    tried up to `retries` times more when the server says "not now" or cannot be reached.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
    ) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s
        self._retries = retries
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
        """Publishes one event or a sequence; returns when the log has them on disk. Never sent twice."""
        return await self._send(calls.publish(events))

    async def put(self, kind: Kind, id: str, record: Record) -> Written:
        """Writes a whole record."""
        return await self._send(calls.put(kind, id, record))

    async def patch(self, kind: Kind, id: str, changes: Record) -> Written:
        """Merges changes into a record (RFC 7396)."""
        return await self._send(calls.patch(kind, id, changes))

    async def get(self, kind: Kind, id: str, *, after: After | None = None) -> dict[str, Any]:
        """The current record; NotFoundError when there is none."""
        return await self._send(calls.get(kind, id, after))

    async def delete(self, kind: Kind, id: str) -> Written:
        """Deletes an entity."""
        return await self._send(calls.delete(kind, id))

    async def erase_user(self, id: str) -> UserDeleted:
        """Deletes a user; `erasure(reply.erasure)` tells what became of it."""
        return await self._send(calls.erase_user(id))

    async def erasure(self, name: str) -> Erasure:
        """What became of the deletion of a user."""
        return await self._send(calls.erasure(name))

    async def put_many(self, kind: Kind, records: Sequence[Record]) -> BatchWritten:
        """Writes records, each with its `id`: the good ones, whatever the others are."""
        return await self._send(calls.put_many(kind, records))

    async def relate(self, type: str, source: str, target: str, weight: float = 1.0) -> Written:
        """Writes an edge."""
        return await self._send(calls.relate(type, source, target, weight))

    async def unrelate(self, type: str, source: str, target: str) -> Written:
        """Removes an edge."""
        return await self._send(calls.unrelate(type, source, target))

    async def relationships(
        self,
        type: str,
        id: str,
        direction: str = "out",
        limit: int = 100,
        order: str = "weight",
        *,
        after: After | None = None,
    ) -> Relationships:
        """Edges of one type out of (or into) an entity, by weight or `newest`; `limit=0`: their number."""
        return await self._send(calls.relationships(type, id, direction, limit, order, after))

    async def relationship(
        self, type: str, source: str, target: str, *, after: After | None = None
    ) -> Relationship:
        """One edge; NotFoundError when there is none."""
        return await self._send(calls.relationship(type, source, target, after))

    async def two_hops(
        self, user: str, type: str, fan_out: int = 50, limit: int = 100, *, after: After | None = None
    ) -> TwoHops:
        """Whom those that the user has edges of a type to have such edges to, heaviest first."""
        return await self._send(calls.two_hops(user, type, fan_out, limit, after))

    async def similar_users(
        self, user: str, state: str | None = None, limit: int = 20, *, after: After | None = None
    ) -> SimilarUsers:
        """Users who share items in a state that the schema lists under `co_engagement`."""
        return await self._send(calls.similar_users(user, state, limit, after))

    async def query(self, query: Asked, *, after: After | None = None) -> QueryReply:
        """A ranked page, for query text, its JSON form, or a query of `tidal.retrieve` or `tidal.search`."""
        return await self._send(calls.query(query, after))

    async def retrieve(self, *, after: After | None = None, **parameters: Parameter | None) -> QueryReply:
        """A ranked page by the parameters of `GET /v1/retrieve`, such as `using_profile="trending"`."""
        return await self._send(calls.retrieve(parameters, after))

    async def search(
        self, query: str, *, after: After | None = None, **parameters: Parameter | None
    ) -> QueryReply:
        """What a text finds, by the parameters of `GET /v1/search`."""
        return await self._send(calls.search(query, parameters, after))

    async def ledger(
        self,
        kind: Kind,
        id: str,
        signal: str,
        *,
        window: str | None = None,
        at: int | None = None,
        cohort: str | None = None,
        after: After | None = None,
    ) -> Ledger:
        """What one signal has amounted to for an item or creator, now or at `at` (ms since the epoch)."""
        return await self._send(calls.ledger(kind, id, signal, window, at, cohort, after))

    async def ledgers(
        self,
        kind: Kind,
        id: str,
        *,
        window: str | None = None,
        at: int | None = None,
        cohort: str | None = None,
        after: After | None = None,
    ) -> dict[str, Ledger]:
        """Ledgers of all signals, by name."""
        return await self._send(calls.ledgers(kind, id, window, at, cohort, after))

    async def user_state(
        self,
        user: str,
        state: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        *,
        after: After | None = None,
    ) -> UserState:
        """Items that a user has seen, liked, saved, …; with `state`, `cursor` leads from page to page."""
        return await self._send(calls.user_state(user, state, limit, cursor, after))

    async def user_relationships(
        self,
        user: str,
        type: str | None = None,
        limit: int | None = None,
        *,
        after: After | None = None,
    ) -> UserRelationships:
        """Edges out of a user, of one type or of all, heaviest first."""
        return await self._send(calls.user_relationships(user, type, limit, after))

    async def user_preference(self, user: str, *, after: After | None = None) -> UserPreference:
        """A user's preference vectors."""
        return await self._send(calls.user_preference(user, after))

    async def user_segments(self, user: str, *, after: After | None = None) -> UserSegments:
        """The behavioural segments that a user is in, and until when if nothing happens."""
        return await self._send(calls.user_segments(user, after))

    async def cohorts(self) -> Cohorts:
        """Declared cohorts, segments and dimensions."""
        return await self._send(calls.cohorts())

    async def cohort_size(self, cohort: str, *, after: After | None = None) -> CohortSize:
        """Distinct users of a cohort."""
        return await self._send(calls.cohort_size(cohort, after))

    async def compare_cohorts(
        self,
        a: str,
        b: str,
        signal: str | None = None,
        window: str | None = None,
        *,
        at: int | None = None,
        limit: int | None = None,
        min_count: int | None = None,
        after: After | None = None,
    ) -> CohortComparison:
        """Items by lift of cohort `a` over cohort `b`, with counts, rates and an interval of confidence."""
        call = calls.compare_cohorts(a, b, signal, window, at, limit, min_count, after)
        return await self._send(call)

    async def schema(self) -> dict[str, Any]:
        """The schema that is served."""
        return await self._send(calls.schema())

    async def status(self) -> Status:
        """How the engine is doing."""
        return await self._send(calls.status())

    async def readiness(self) -> Readiness:
        """Whether it serves, and if not, why not yet."""
        return await self._send(calls.readiness())

    async def liveness(self) -> Liveness:
        """Whether the process answers."""
        return await self._send(calls.liveness())

    async def metrics(self) -> str:
        """Prometheus' text format."""
        return await self._send(calls.metrics())

    async def openapi(self) -> dict[str, Any]:
        """The OpenAPI 3.1 document of the daemon."""
        return await self._send(calls.openapi())

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        return self._session

    async def _send(self, call: Call[T]) -> T:
        retries = Retries(call.repeatable, self._retries, self._timeout_s)
        while True:
            try:
                return await self._exchange(call)
            except ClientError as error:
                pause_s = retries.pause_s(error)
                if pause_s is None:
                    raise
            await asyncio.sleep(pause_s)

    async def _exchange(self, call: Call[T]) -> T:
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
