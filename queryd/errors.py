"""Every error of the query engine, and what the HTTP face answers for it.

TidalError
└── QueryFailed
    ├── QueryError           400  does not parse, or names what the schema lacks
    │   └── NotServed        400  valid, and not served by this version
    ├── CursorError          400  tampered with, expired, or of another query
    ├── CohortTooSmall       403  fewer users than ``min_cohort_size``
    ├── LimitExceeded        422  past a limit of the schema; the limit is named
    ├── PositionTimeout      504  AFTER: a view did not reach the position before the deadline
    ├── UnknownEntity        404  a ledger of something that was never seen
    └── EngineNotReady       503  tables are still being read
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from schemas.errors import TidalError
from schemas.nearest import nearest


class QueryFailed(TidalError):  # noqa: N818 - the family's name; each member says what happened
    """Base of everything that a query can be refused for; ``http_status`` is what the daemon answers."""

    http_status: ClassVar[int] = 400
    kind: ClassVar[str] = "query-failed"


class QueryError(QueryFailed):
    """One mistake in a query, at one place.

    ``line`` and ``column`` count from 1; both are 0 for a query that did not come from text, where ``path``
    names the key instead. ``expected`` is in human words; ``nearest`` is the closest valid name.
    """

    http_status = 400
    kind = "query-error"

    def __init__(
        self,
        message: str,
        line: int = 0,
        column: int = 0,
        expected: Sequence[str] = (),
        nearest: str | None = None,
        path: str = "",
    ) -> None:
        self.message = message
        self.line = line
        self.column = column
        self.expected = tuple(expected)
        self.nearest = nearest
        self.path = path
        super().__init__(self._text())

    def _text(self) -> str:
        where = f" at line {self.line}, column {self.column}" if self.line else ""
        where = where or (f" in {self.path}" if self.path else "")
        wanted = f"; expected {' or '.join(self.expected)}" if self.expected else ""
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        return f"{self.message}{where}{wanted}{hint}"


class NotServed(QueryError):  # noqa: N818
    """A valid query that asks for what this version does not serve: refused by name, never ignored."""

    kind = "not-served"


class CursorError(QueryFailed):
    """A cursor that cannot be continued."""

    http_status = 400
    kind = "cursor"


class LimitExceeded(QueryFailed):
    """A query past one of the schema's limits."""

    http_status = 422
    kind = "limit-exceeded"

    def __init__(self, limit: str, value: int, allowed: int) -> None:
        beyond = f"{value:,} is past the limit {limit} = {allowed:,}"
        super().__init__(beyond if value > 0 else f"{value:,} is below 1; at most {limit} = {allowed:,}")
        self.limit = limit
        self.value = value
        self.allowed = allowed


class CohortTooSmall(QueryFailed):
    """A cohort of so few users that its counts would tell of single ones; its size is not told either."""

    http_status = 403
    kind = "cohort-too-small"
    limit = "min_cohort_size"

    def __init__(self, cohort: str, users_min: int, hints: Sequence[str] = ()) -> None:
        refusal = (
            f"the cohort {cohort} has fewer than {users_min:,} users (min_cohort_size), "
            "so that nothing is told of it; ask for a wider one"
        )
        super().__init__("; ".join([refusal, *hints]))


class PositionTimeout(QueryFailed):
    """AFTER waited for a write that did not become visible before the deadline."""

    http_status = 504
    kind = "position-timeout"


class UnknownEntity(QueryFailed):
    """Neither a signal nor a record of this entity was ever seen."""

    http_status = 404
    kind = "unknown-entity"


class EngineNotReady(QueryFailed):
    """The tables have not been read yet."""

    http_status = 503
    kind = "not-ready"


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` most likely was meant to be, None when none is close."""
    return nearest(name.lower(), known)
