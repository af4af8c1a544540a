"""The blocking client of queryd's HTTP surface; `tidal.client_async` is the same for asyncio."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

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
from tidal.calls import DEFAULT_URL, TIMEOUT_S, Call, ClientError, Event, Kind, Record, unreachable

T = TypeVar("T")

IDLE_MAX_S = 30.0
"""A connection idle for longer is opened anew: the server closes it after a minute, and a publish that meets
the closing may not be sent twice."""


class Client:
    """Blocking client over one kept-alive connection; not for use by several threads at once.

    Methods raise RefusedError when the server answers with a problem document, ServerUnreachableError when it
    does not answer.
    """

    def __init__(self, url: str = DEFAULT_URL, key: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self._key = key
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
        """Publishes one event or a sequence; returns when the log has them on disk."""
        return self._send(calls.publish(events))

    def put(self, kind: Kind, id: str, record: Record) -> Written:
        """Writes a whole record."""
        return self._send(calls.put(kind, id, record))

    def patch(self, kind: Kind, id: str, changes: Record) -> Written:
        """Merges changes into a record (RFC 7396)."""
        return self._send(calls.patch(kind, id, changes))

    def get(self, kind: Kind, id: str) -> dict[str, Any]:
        """The current record."""
        return self._send(calls.get(kind, id))

    def delete(self, kind: Kind, id: str) -> Written:
        """Deletes an entity."""
        return self._send(calls.delete(kind, id))

    def put_many(self, kind: Kind, records: Sequence[Record]) -> BatchWritten:
        """Writes records, each with its `id`."""
        return self._send(calls.put_many(kind, records))

    def relate(self, type: str, source: str, target: str, weight: float = 1.0) -> Written:
        """Writes an edge."""
        return self._send(calls.relate(type, source, target, weight))

    def unrelate(self, type: str, source: str, target: str) -> Written:
        """Removes an edge."""
        return self._send(calls.unrelate(type, source, target))

    def relationships(
        self, type: str, id: str, direction: str = "out", limit: int = 100, order: str = "weight"
    ) -> Relationships:
        """Edges of one type out of (or into) an entity, by weight or `newest`; `limit=0`: their number."""
        return self._send(calls.relationships(type, id, direction, limit, order))

    def relationship(self, type: str, source: str, target: str) -> Relationship:
        """One edge; RefusedError with status 404 when there is none."""
        return self._send(calls.relationship(type, source, target))

    def two_hops(self, user: str, type: str, fan_out: int = 50, limit: int = 100) -> TwoHops:
        """Whom those that the user has edges of a type to have such edges to, heaviest first."""
        return self._send(calls.two_hops(user, type, fan_out, limit))

    def similar_users(self, user: str, state: str | None = None, limit: int = 20) -> SimilarUsers:
        """Users who share items in a state that the schema lists under `co_engagement`."""
        return self._send(calls.similar_users(user, state, limit))

    def query(self, query: str | Mapping[str, Any]) -> QueryReply:
        """A ranked page, for query text or its JSON form."""
        return self._send(calls.query(query))

    def ledger(
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
        return self._send(calls.ledger(kind, id, signal, window, at, cohort))

    def ledgers(
        self, kind: Kind, id: str, *, at: int | None = None, cohort: str | None = None
    ) -> dict[str, Ledger]:
        """Ledgers of all signals, by name."""
        return self._send(calls.ledgers(kind, id, at, cohort))

    def user_state(
        self, user: str, state: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> UserState:
        """Items that a user has seen, liked, saved, …"""
        return self._send(calls.user_state(user, state, limit, cursor))

    def user_relationships(self, user: str, limit: int | None = None) -> UserRelationships:
        """Edges out of a user."""
        return self._send(calls.user_relationships(user, limit))

    def user_preference(self, user: str) -> UserPreference:
        """A user's preference vectors."""
        return self._send(calls.user_preference(user))

    def cohorts(self) -> Cohorts:
        """Declared cohorts, segments and dimensions."""
        return self._send(calls.cohorts())

    def cohort_size(self, cohort: str) -> CohortSize:
        """Distinct users of a cohort."""
        return self._send(calls.cohort_size(cohort))

    def schema(self) -> dict[str, Any]:
        """The schema that is served."""
        return self._send(calls.schema())

    def status(self) -> Status:
        """How the engine is doing."""
        return self._send(calls.status())

    def readiness(self) -> Readiness:
        """Whether it serves, and if not, why not yet."""
        return self._send(calls.readiness())

    def _send(self, call: Call[T]) -> T:
        try:
            return self._exchange(call)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            # An idle connection that the server has closed shows itself only at its next use.
            self._connection.close()
            if not call.repeatable:
                raise unreachable(self.url, error) from error
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise unreachable(self.url, error) from error
        try:
            return self._exchange(call)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise unreachable(self.url, error) from error

    def _exchange(self, call: Call[T]) -> T:
        if time.monotonic() - self._used_at > IDLE_MAX_S:
            self._connection.close()
        self._used_at = time.monotonic()
        payload = call.payload
        headers = calls.headers(self._key, with_body=payload is not None)
        self._connection.request(call.method, self._prefix + call.target, body=payload, headers=headers)
        response = self._connection.getresponse()
        return call.result(response.status, response.read(), response.getheader("Retry-After"))


def _connection(url: str, timeout_s: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClientError(f"{url!r} is not the address of a queryd; expected http://HOST:PORT")
    make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    with contextlib.suppress(ValueError):
        return make(parts.hostname, parts.port, timeout=timeout_s)
    raise ClientError(f"{url!r} has no usable port; expected http://HOST:PORT")
