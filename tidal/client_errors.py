"""What a client raises, and when it asks again by itself.

ClientError
├── ServerUnreachableError     nothing answered, or the connection broke
└── RefusedError               the server answered with a problem document
    ├── InvalidRequestError    400, 413, 422: the request has to change
    ├── AccessDeniedError      401, 403: the key is missing, or may not
    ├── NotFoundError          404
    └── NotNowError            429, 503, 504: the same request may succeed later
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Final

from queryd.errors import PositionTimeout
from queryd.http.shapes import FieldProblem, ProblemDocument
from schemas.errors import TidalError

RETRIES: Final = 2
_FIRST_PAUSE_S: Final = 0.1


class ClientError(TidalError):
    """Base of everything that a client raises."""


class ServerUnreachableError(ClientError):
    """Nothing answered at the address, or it stopped answering; `timed_out` if it took too long."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class RefusedError(ClientError):
    """The server answered with a problem document; its fields are here under their names.

    `errors` names each field that was refused, `limit` the setting that was exceeded, `request_id` the line
    of the server's log.
    """

    def __init__(self, problem: ProblemDocument, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def code(self) -> str:
        """The last part of the document's type, such as `unknown_kind`."""
        return self.problem.type.rpartition(":")[2]

    @property
    def detail(self) -> str:
        """What is wrong, where, and what to do."""
        return self.problem.detail

    @property
    def errors(self) -> list[FieldProblem]:
        """The fields that were refused."""
        return self.problem.errors

    @property
    def limit(self) -> str | None:
        """The setting that was exceeded, if one was."""
        return self.problem.limit

    @property
    def request_id(self) -> str | None:
        """Under which the server logged the request."""
        return self.problem.request_id


class InvalidRequestError(RefusedError):
    """The request has to change: malformed, of the wrong type, unknown names, past a limit."""


class AccessDeniedError(RefusedError):
    """The key is missing or unknown, or may not do this."""


class NotFoundError(RefusedError):
    """There is no such record, edge, signal, state or path."""


class NotNowError(RefusedError):
    """The same request may succeed later: rate limit, log away, tables behind or being read."""


_BY_STATUS: Final[dict[int, type[RefusedError]]] = {
    **dict.fromkeys((400, 413, 422), InvalidRequestError),
    **dict.fromkeys((401, 403), AccessDeniedError),
    404: NotFoundError,
    **dict.fromkeys((429, 503, 504), NotNowError),
}


def refused(problem: ProblemDocument, retry_after_s: float | None = None) -> RefusedError:
    """The error of a problem document, of the class of its status."""
    return _BY_STATUS.get(problem.status, RefusedError)(problem, retry_after_s)


def unreachable(url: str, error: BaseException) -> ServerUnreachableError:
    """Nothing answers at `url`, because of `error`."""
    why = str(error) or type(error).__name__
    return ServerUnreachableError(
        f"no answer from queryd at {url}: {why}; is it running? `tidal up` starts one",
        timed_out=isinstance(error, TimeoutError),
    )


@dataclass(slots=True)
class Retries:
    """Whether one call is sent again, and after which pause.

    A call that is not repeatable is sent again only where the server says that it did nothing with it (429).
    A read that waited in vain for its `after` waits once more. Pauses are what the server asks for,
    else doubled from 0.1 s; none begins that would end after `timeout_s`.
    """

    repeatable: bool
    left: int
    timeout_s: float
    _pause_s: float = _FIRST_PAUSE_S
    _began_s: float = field(default_factory=time.monotonic)

    def pause_s(self, error: ClientError) -> float | None:
        """Seconds to wait before the next attempt; None when there is none."""
        if self.left < 1 or not self._may_help(error):
            return None
        self.left -= 1
        asked = error.retry_after_s if isinstance(error, RefusedError) else None
        pause_s = self._pause_s * random.uniform(0.5, 1.0) if asked is None else asked
        self._pause_s *= 2
        within = time.monotonic() - self._began_s + pause_s < self.timeout_s
        return pause_s if within else None

    def _may_help(self, error: ClientError) -> bool:
        if isinstance(error, RefusedError):
            later = error.status == 503 or error.code == PositionTimeout.kind
            return error.status == 429 or (later and self.repeatable)
        return isinstance(error, ServerUnreachableError) and self.repeatable and not error.timed_out
