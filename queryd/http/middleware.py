"""What happens around every request: an id, a log line, metrics, access, and errors as problem documents."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from urllib.parse import unquote_to_bytes

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from queryd.http.access import Caller, authorize, check_local_request
from queryd.http.bodies import body_too_large
from queryd.http.error_mapping import problem_of
from queryd.http.parameters import read_parameters
from queryd.http.problems import ProblemError, invalid, problem_response
from queryd.http.route import Role, Route
from queryd.http.services import Services, services
from queryd.http.shapes import FieldProblem
from schemas.nearest import nearest

logger = logging.getLogger("queryd.http")

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)

IN_FLIGHT_MAX = 1000
"""At 5 ms a page, one more would wait for five seconds. Most of these wait for the log, not for us."""
REQUEST_ID_HEADER = "X-Request-Id"
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SECURITY_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class RouteIndex:
    """Finds the declared route of a request that aiohttp has resolved."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._routes: dict[tuple[str, str], Route] = {(route.method, route.path): route for route in routes}
        self.paths = sorted({route.path for route in routes})

    def of(self, request: web.Request) -> Route | None:
        """The declared route, or None where no route answers (404, 405)."""
        resource = request.match_info.route.resource
        if resource is None:
            return None
        method = "GET" if request.method == "HEAD" else request.method
        return self._routes.get((method, resource.canonical))


def observe(index: RouteIndex) -> Middleware:
    """Outermost: gives the request an id, counts and times it, writes its log line."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[REQUEST_ID] = _request_id(request.headers.get(REQUEST_ID_HEADER))
        offered = services(request)
        metrics = offered.metrics
        label = _label(index, request)
        started = time.perf_counter()
        offered.in_flight += 1
        metrics.in_flight.inc()
        status = 499
        try:
            response = await handler(request)
            status = response.status
            response.headers[REQUEST_ID_HEADER] = request[REQUEST_ID]
            for name, value in _SECURITY_HEADERS.items():
                response.headers.setdefault(name, value)
            return response
        finally:
            took_s = time.perf_counter() - started
            offered.in_flight -= 1
            metrics.in_flight.dec()
            metrics.requests.labels(label, request.method, str(status)).inc()
            metrics.request_seconds.labels(label, request.method).observe(took_s)
            _log(request, label, status, took_s)

    return middleware


def problems(index: RouteIndex) -> Middleware:
    """Turns every error into a problem document; an unforeseen one is logged and tells the caller nothing."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            problem = _of_http_exception(request, index, error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            problem = problem_of(error)
            told = {"request_id": request[REQUEST_ID], "route": _label(index, request)}
            if problem.status == 500:
                logger.exception("request failed", extra=told)
            elif problem.status > 500:
                logger.warning("request refused", extra=told | {"code": problem.code})
        return problem_response(problem, request[REQUEST_ID])

    return middleware


def access(index: RouteIndex) -> Middleware:
    """Admits the caller: key, role, rate."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        route = index.of(request)
        needed = route.role if route is not None else Role.OPEN
        offered = services(request)
        if len(offered.keys) == 0:
            check_local_request(request.host, request.headers.get("Origin"))
        caller = authorize(offered.keys, request.headers.get("Authorization"), needed)
        if needed is not Role.OPEN:
            _admit(offered)
            offered.limiter.take(f"{caller.name}@{request.remote}" if len(offered.keys) == 0 else caller.name)
        request[CALLER] = caller
        if route is not None:
            _check_address(request, route)
        return await handler(request)

    return middleware


def _check_address(request: web.Request, route: Route) -> None:
    """Raises ProblemError (400) for an address that is not UTF-8, or parameters where none are declared."""
    try:
        unquote_to_bytes(request.raw_path).decode()
    except UnicodeDecodeError as error:
        told = f"the address, its %XX decoded, is not UTF-8 from byte {error.start} on"
        raise invalid("not_utf8", "path", told) from None
    if not route.parameters:
        read_parameters((), request.query)


def _admit(offered: Services) -> None:
    """Raises ProblemError (503) when so much is being served that one more would only make all slower."""
    if offered.in_flight > IN_FLIGHT_MAX:
        raise ProblemError(
            503,
            "overloaded",
            f"{IN_FLIGHT_MAX} requests are being served; try again in a second",
            limit="in_flight",
            headers={"Retry-After": "1"},
        )


def _request_id(given: str | None) -> str:
    if given is not None and _SANE_REQUEST_ID.fullmatch(given):
        return given
    return secrets.token_hex(12)


def _label(index: RouteIndex, request: web.Request) -> str:
    """The route's pattern."""
    route = index.of(request)
    return route.path if route is not None else "unmatched"


def _log(request: web.Request, route: str, status: int, took_s: float) -> None:
    """The route, not the path: that may name a user, and a log line outlives the user's deletion."""
    level = logging.WARNING if status >= 500 else logging.INFO
    logger.log(
        level,
        "request",
        extra={
            "request_id": request[REQUEST_ID],
            "method": request.method,
            "route": route,
            "status": status,
            "took_us": round(took_s * 1e6),
            "remote": request.remote,
        },
    )


def _of_http_exception(request: web.Request, index: RouteIndex, error: web.HTTPException) -> ProblemError:
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return body_too_large(request)
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return ProblemError(
            405,
            "method_not_allowed",
            f"{request.path} does not take {error.method}; it takes {allowed}",
            headers={"Allow": allowed},
        )
    if isinstance(error, web.HTTPNotFound):
        return _no_such_path(request.path, index.paths)
    return ProblemError(error.status, "http", error.reason)


def _no_such_path(path: str, paths: list[str]) -> ProblemError:
    near = nearest(path, paths, likeness_min=0.5)
    hint = f"; did you mean {near}?" if near else "; /openapi.json lists what there is"
    errors = [FieldProblem(path="path", message="no such path", nearest=near)] if near else []
    return ProblemError(404, "no_such_path", f"nothing answers at {path}{hint}", errors=errors)
