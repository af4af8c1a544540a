"""The blocking client of queryd's HTTP surface; `tidal.client_async` is the same for asyncio.

    >>> from tidal import Client, NotFoundError
    >>> client = Client(URL, timeout_s=60)

Records of entities, whole or in parts. Every write answers a position, and every read takes the answer of a
write as `after=`: it waits until it can reflect it.

    >>> written = client.put("item", "piano-1", {"title": "Piano: the first hour", "creator": "ada"})
    >>> client.get("item", "piano-1", after=written)["title"]
    'Piano: the first hour'
    >>> patched = client.patch("item", "piano-1", {"category": "music"})
    >>> client.put_many("user", [{"id": "lena", "locale": "US", "age": 21}, {"id": 7}]).rejected[0].path
    '$.id'

Signals, and what they amount to.

    >>> liked = client.publish({"kind": "like", "item": "piano-1", "user": "lena"})
    >>> client.user_state("lena", "liked", after=liked).states["liked"].items
    ['piano-1']
    >>> client.ledger("item", "piano-1", "like", after=liked).windows["24h"].count
    1
    >>> [result.id for result in client.query("RETRIEVE items USING PROFILE trending SIGNAL like").results]
    ['piano-1']
    >>> client.retrieve(using_profile="trending", signal="like", limit=1).results[0].rank
    1

Two cohorts beside each other: what the first wants more than the second.

    >>> compared = client.compare_cohorts("locale:US", "NOT locale:US", "like", "7d", min_count=1)
    >>> (compared.window, compared.confidence)
    ('7d', 0.95)

Edges.

    >>> edge = client.relate("follows", "lena", "ada")
    >>> client.relationships("follows", "ada", "in", limit=0, after=edge).total
    1

Errors have the fields of the problem document.

    >>> try:
    ...     client.get("item", "none")
    ... except NotFoundError as error:
    ...     print(error.status, error.code, error.detail)
    404 not_found there is no item 'none'

A user can be erased, and the report be read.

    >>> gone = client.erase_user("lena")
    >>> client.erasure(gone.erasure).state in ("pending", "erased", "done")
    True
    >>> client.close()
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

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

IDLE_MAX_S = 30.0
"""A connection idle for longer is opened anew: the server closes it after a minute, and a publish that meets
the closing may not be sent twice."""


class Client:
    """Blocking client over one kept-alive connection; not for use by several threads at once.

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
        self._prefix = urlsplit(self.url).path
        self._connection = _connection(self.url, timeout_s)
        self._used_at = time.monotonic()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def publish(self, events: Event | Sequence[Event]) -> SignalsAccepted:
        """Publishes one event or a sequence; returns when the log has them on disk. Never sent twice."""
        return self._send(calls.publish(events))

    def put(self, kind: Kind, id: str, record: Record) -> Written:
        """Writes a whole record."""
        return self._send(calls.put(kind, id, record))

    def patch(self, kind: Kind, id: str, changes: Record) -> Written:
        """Merges changes into a record (RFC 7396)."""
        return self._send(calls.patch(kind, id, changes))

    def get(self, kind: Kind, id: str, *, after: After | None = None) -> dict[str, Any]:
        """The current record; NotFoundError when there is none."""
        return self._send(calls.get(kind, id, after))

    def delete(self, kind: Kind, id: str) -> Written:
        """Deletes an entity."""
        return self._send(calls.delete(kind, id))

    def erase_user(self, id: str) -> UserDeleted:
        """Deletes a user; `erasure(reply.erasure)` tells what became of it."""
        return self._send(calls.erase_user(id))

    def erasure(self, name: str) -> Erasure:
        """What became of the deletion of a user."""
        return self._send(calls.erasure(name))

    def put_many(self, kind: Kind, records: Sequence[Record]) -> BatchWritten:
        """Writes records, each with its `id`: the good ones, whatever the others are."""
        return self._send(calls.put_many(kind, records))

    def relate(self, type: str, source: str, target: str, weight: float = 1.0) -> Written:
        """Writes an edge."""
        return self._send(calls.relate(type, source, target, weight))

    def unrelate(self, type: str, source: str, target: str) -> Written:
        """Removes an edge."""
        return self._send(calls.unrelate(type, source, target))

    def relationships(
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
        return self._send(calls.relationships(type, id, direction, limit, order, after))

    def relationship(
        self, type: str, source: str, target: str, *, after: After | None = None
    ) -> Relationship:
        """One edge; NotFoundError when there is none."""
        return self._send(calls.relationship(type, source, target, after))

    def two_hops(
        self, user: str, type: str, fan_out: int = 50, limit: int = 100, *, after: After | None = None
    ) -> TwoHops:
        """Whom those that the user has edges of a type to have such edges to, heaviest first."""
        return self._send(calls.two_hops(user, type, fan_out, limit, after))

    def similar_users(
        self, user: str, state: str | None = None, limit: int = 20, *, after: After | None = None
    ) -> SimilarUsers:
        """Users who share items in a state that the schema lists under `co_engagement`."""
        return self._send(calls.similar_users(user, state, limit, after))

    def query(self, query: Asked, *, after: After | None = None) -> QueryReply:
        """A ranked page, for query text, its JSON form, or a query of `tidal.retrieve` or `tidal.search`."""
        return self._send(calls.query(query, after))

    def retrieve(self, *, after: After | None = None, **parameters: Parameter | None) -> QueryReply:
        """A ranked page by the parameters of `GET /v1/retrieve`, such as `using_profile="trending"`."""
        return self._send(calls.retrieve(parameters, after))

    def search(self, query: str, *, after: After | None = None, **parameters: Parameter | None) -> QueryReply:
        """What a text finds, by the parameters of `GET /v1/search`."""
        return self._send(calls.search(query, parameters, after))

    def ledger(
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
        return self._send(calls.ledger(kind, id, signal, window, at, cohort, after))

    def ledgers(
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
        return self._send(calls.ledgers(kind, id, window, at, cohort, after))

    def user_state(
        self,
        user: str,
        state: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        *,
        after: After | None = None,
    ) -> UserState:
        """Items that a user has seen, liked, saved, …; with `state`, `cursor` leads from page to page."""
        return self._send(calls.user_state(user, state, limit, cursor, after))

    def user_relationships(
        self,
        user: str,
        type: str | None = None,
        limit: int | None = None,
        *,
        after: After | None = None,
    ) -> UserRelationships:
        """Edges out of a user, of one type or of all, heaviest first."""
        return self._send(calls.user_relationships(user, type, limit, after))

    def user_preference(self, user: str, *, after: After | None = None) -> UserPreference:
        """A user's preference vectors."""
        return self._send(calls.user_preference(user, after))

    def user_segments(self, user: str, *, after: After | None = None) -> UserSegments:
        """The behavioural segments that a user is in, and until when if nothing happens."""
        return self._send(calls.user_segments(user, after))

    def cohorts(self) -> Cohorts:
        """Declared cohorts, segments and dimensions."""
        return self._send(calls.cohorts())

    def cohort_size(self, cohort: str, *, after: After | None = None) -> CohortSize:
        """Distinct users of a cohort."""
        return self._send(calls.cohort_size(cohort, after))

    def compare_cohorts(
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
        return self._send(call)

    def schema(self) -> dict[str, Any]:
        """The schema that is served."""
        return self._send(calls.schema())

    def status(self) -> Status:
        """How the engine is doing."""
        return self._send(calls.status())

    def readiness(self) -> Readiness:
        """Whether it serves, and if not, why not yet."""
        return self._send(calls.readiness())

    def liveness(self) -> Liveness:
        """Whether the process answers."""
        return self._send(calls.liveness())

    def metrics(self) -> str:
        """Prometheus' text format."""
        return self._send(calls.metrics())

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI 3.1 document of the daemon."""
        return self._send(calls.openapi())

    def _send(self, call: Call[T]) -> T:
        retries = Retries(call.repeatable, self._retries, self._timeout_s)
        while True:
            try:
                return self._exchange(call)
            except ClientError as error:
                pause_s = retries.pause_s(error)
                if pause_s is None:
                    raise
            time.sleep(pause_s)

    def _exchange(self, call: Call[T]) -> T:
        if time.monotonic() - self._used_at > IDLE_MAX_S:
            self._connection.close()
        self._used_at = time.monotonic()
        payload = call.payload
        headers = calls.headers(self._key, with_body=payload is not None)
        try:
            self._connection.request(call.method, self._prefix + call.target, body=payload, headers=headers)
            response = self._connection.getresponse()
            return call.result(response.status, response.read(), response.getheader("Retry-After"))
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise unreachable(self.url, error) from error


def _connection(url: str, timeout_s: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClientError(f"{url!r} is not the address of a queryd; expected http://HOST:PORT")
    make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    with contextlib.suppress(ValueError):
        return make(parts.hostname, parts.port, timeout=timeout_s)
    raise ClientError(f"{url!r} has no usable port; expected http://HOST:PORT")
