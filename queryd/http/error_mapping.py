"""Which problem document each error of the inner layers becomes. The only place that knows."""

from __future__ import annotations

from queryd.errors import (
    CohortTooSmall,
    EngineNotReady,
    LimitExceeded,
    PositionTimeout,
    QueryError,
    QueryFailed,
)
from queryd.http.bodies import malformed_json
from queryd.http.problems import ProblemError
from queryd.http.shapes import FieldProblem
from schemas.errors import PredicateError, RecordError, SchemaError, TidalError
from streams.errors import (
    BrokerUnavailableError,
    DeliveryError,
    PositionError,
    ProducerClosedError,
    QueueFullError,
    TopicError,
)

RETRY_AFTER_S = "1"
"""The log's clients reconnect within about a second of its return."""
_LOG_AWAY = (BrokerUnavailableError, QueueFullError, ProducerClosedError, TopicError)


def problem_of(error: Exception) -> ProblemError:
    """The problem document of `error`; a 500 that says nothing about it when it is not one of ours."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, RecordError):
        return of_record_error(error)
    if isinstance(error, QueryFailed):
        return _of_query_failure(error)
    if isinstance(error, PredicateError):
        return ProblemError(400, "query-error", str(error), errors=[_place_in_query(error)])
    if isinstance(error, SchemaError):
        return _of_schema_error(error)
    if isinstance(error, PositionError):
        return ProblemError(400, "position", str(error), errors=[FieldProblem("AFTER", str(error))])
    if isinstance(error, (*_LOG_AWAY, DeliveryError)):
        return _of_log_error(error)
    if isinstance(error, TimeoutError):
        return ProblemError(504, "deadline", "the request ran out of time", limit="deadline_ms")
    return ProblemError(
        500, "internal", "an error inside the server; its log has the details under this request_id"
    )


def of_record_error(error: RecordError) -> ProblemError:
    """A 422 that names the field; malformed JSON is a 400."""
    if error.code == "malformed_json":
        return malformed_json(error.message)
    path = f"$.{error.path}" if error.path and not error.path.startswith("$") else error.path or "$"
    detail = f"{error.path}: {error.message}" if error.path else error.message
    return ProblemError(
        422, error.code, detail, errors=[FieldProblem(path=path, message=error.message, code=error.code)]
    )


def _of_query_failure(error: QueryFailed) -> ProblemError:
    errors = [_place_in_query(error)] if isinstance(error, QueryError) else []
    headers = {"Retry-After": RETRY_AFTER_S} if isinstance(error, EngineNotReady) else {}
    limit = error.limit if isinstance(error, LimitExceeded | CohortTooSmall) else None
    if isinstance(error, PositionTimeout):
        limit = "deadline_ms"
    return ProblemError(
        error.http_status, error.kind, str(error), errors=errors, limit=limit, headers=headers
    )


def _place_in_query(error: QueryError | PredicateError) -> FieldProblem:
    """Line and column in the text, or the key of the JSON form."""
    path = getattr(error, "path", "") or "query"
    path = f"{path}:{error.line}:{error.column}" if error.line else path
    message = error.message
    if error.expected:
        message = f"{message}; expected {' or '.join(error.expected)}"
    return FieldProblem(path, message, nearest=error.nearest)


def _of_schema_error(error: SchemaError) -> ProblemError:
    fields = [FieldProblem(p.path, f"expected {p.expected}", nearest=p.nearest) for p in error.problems]
    return ProblemError(422, "schema", str(error), errors=fields)


def _of_log_error(error: TidalError) -> ProblemError:
    return ProblemError(
        503,
        "log_unavailable",
        f"the log did not take the write: {error}",
        headers={"Retry-After": RETRY_AFTER_S},
    )
