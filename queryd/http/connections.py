"""What arrives and is no HTTP: answered by a problem document, told by one line that repeats nothing of it.

aiohttp would answer with the bytes that it could not read, and log them with a trace: a path in the log may
name a user, and outlives the user's deletion.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from queryd.http.problems import ProblemError, problem_response

logger = logging.getLogger("queryd.http")

HEAD_LINE_BYTES_MAX = 8190
"""aiohttp's own bound of the address, and of each header."""


class Runner(web.AppRunner):
    """Runs an application; its connections are ours."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=asyncio.get_running_loop(),
            **made._kwargs,
        )


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    """One client's connection."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not isinstance(exc, HttpProcessingError) or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        self.log_exception(exc_info=exc)
        response = problem_response(_problem(status, exc))
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        error = kw.get("exc_info")
        if isinstance(error, HttpProcessingError):
            logger.info("request that is no HTTP", extra={"why": type(error).__name__})
        else:
            super().log_exception(*args, **kw)


def _problem(status: int, error: HttpProcessingError) -> ProblemError:
    if isinstance(error, LineTooLong):
        told = f"the address or a header has more than {HEAD_LINE_BYTES_MAX:,} bytes"
        return ProblemError(
            status,
            "head_too_large",
            f"{told}; a long query goes into the body of POST /v1/query",
            limit="head_line",
        )
    return ProblemError(status, "malformed_http", f"this cannot be read as HTTP ({type(error).__name__})")
