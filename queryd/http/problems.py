"""Problem documents (RFC 9457): the one shape in which this daemon says that something went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web

from queryd.http.shapes import FieldProblem, ProblemDocument
from schemas.errors import TidalError
from schemas.nearest import nearest

NAMED_MAX = 20
"""Valid names that a 404 lists."""
SHOWN_MAX = 100
"""Characters of a name that a 404 repeats."""
PROBLEM_CONTENT_TYPE = "application/problem+json"


class ProblemError(TidalError):
    """Raised by a handler to end the request with a problem document.

    `code` is a short machine-readable reason (it becomes the last part of `type`), `limit` the name of the
    setting that was exceeded, if one was.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Iterable[FieldProblem] = (),
        limit: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.limit = limit
        self.headers = dict(headers or {})

    def document(self, request_id: str | None = None) -> ProblemDocument:
        """The document that a client receives."""
        return ProblemDocument(
            type=f"urn:tidal:problem:{self.code}",
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            errors=self.errors,
            limit=self.limit,
            request_id=request_id,
        )


def problem_response(problem: ProblemError, request_id: str | None = None) -> web.Response:
    """A response carrying `problem` as `application/problem+json`."""
    return web.Response(
        status=problem.status,
        body=msgspec.json.encode(problem.document(request_id)),
        content_type=PROBLEM_CONTENT_TYPE,
        headers=problem.headers,
    )


def field_problem(
    path: str, message: str, name: str | None = None, valid: Iterable[str] = ()
) -> FieldProblem:
    """A field problem; with `name` and `valid`, it also proposes the nearest valid name."""
    near = nearest(name, valid) if name is not None else None
    if near is not None:
        message = f"{message}; did you mean {near!r}?"
    return FieldProblem(path=path, message=message, nearest=near)


def invalid(
    code: str, path: str, message: str, name: str | None = None, valid: Iterable[str] = ()
) -> ProblemError:
    """A 400 about one field."""
    return bad_fields(code, [field_problem(path, message, name, valid)])


def bad_fields(code: str, errors: list[FieldProblem], status: int = 400) -> ProblemError:
    """A 400 (or `status`) about several fields; the first one is also the document's detail."""
    first = errors[0]
    where = f"{first.path}: " if first.path else ""
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return ProblemError(status, code, f"{where}{first.message}{more}", errors=errors)


def not_found(what: str, name: str, valid: Iterable[str] = ()) -> ProblemError:
    """A 404 for a named thing, with the nearest valid name when the set of names is known."""
    known = list(valid)
    near = nearest(name, known)
    hint = f"; there is {', '.join(known[:NAMED_MAX])}" if known else ""
    hint = f"; did you mean {near!r}?" if near else hint
    name = name if len(name) <= SHOWN_MAX else f"{name[:SHOWN_MAX]}…"
    errors = [FieldProblem(path="", message=f"no {what} {name!r}{hint}", nearest=near)] if known else []
    return ProblemError(404, "not_found", f"there is no {what} {name!r}{hint}", errors=errors)
