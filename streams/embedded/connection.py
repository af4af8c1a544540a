"""One connection: requests in, answers out in order.

Requests of one connection are handled one after the other, as clients expect; only Produce does not
hold up what follows it, because its order is settled when it is appended. A connection that sends faster
than it is served is not read from until it has caught up; one that does not take its answers gets no more.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import cast

from streams.embedded.broker import Caller
from streams.embedded.codec import (
    APIS,
    ERRORS,
    RequestHeader,
    ResponseBody,
    encode,
    encode_refusal,
    read_request_header,
    response_header,
)
from streams.embedded.dispatcher import Dispatcher
from streams.embedded.errors import RequestError
from streams.embedded.file_slice import Records
from streams.embedded.frames import FrameReader
from streams.embedded.handle_cluster import api_versions_body
from streams.embedded.handle_fetch import PendingFetch
from streams.embedded.hot_codec import read_fetch, read_produce
from streams.embedded.login import Login
from streams.embedded.request_reader import read_request
from streams.embedded.users import Users

logger = logging.getLogger(__name__)

_PRODUCE, _FETCH, _SASL_HANDSHAKE, _API_VERSIONS, _SASL_AUTHENTICATE = 0, 1, 17, 18, 36
_BEFORE_LOGIN = (_SASL_HANDSHAKE, _API_VERSIONS, _SASL_AUTHENTICATE)
_FETCH_KEY = _FETCH.to_bytes(2, "big")
_LENGTH_BYTES = 4
# More than this not yet with the kernel, and the connection gets no further answers.
_WRITE_BUFFER_BYTES = 128 * 1024
# So much of a file is read and handed to the kernel at once: while it is in the processor's cache.
_PIECE_BYTES = 256 * 1024


class Answer:
    """The place of one answer in a connection's order. `parts` is None until it is known."""

    __slots__ = ("began_s", "holds_up", "parts")

    def __init__(self, began_s: float, *, holds_up: bool) -> None:
        self.began_s = began_s
        self.holds_up = holds_up
        self.parts: deque[Records] | None = None


class Connection(asyncio.BufferedProtocol):
    """One client. `users`: who may log in, None when nobody has to."""

    def __init__(self, dispatcher: Dispatcher, connections: set[Connection], users: Users | None) -> None:
        self._dispatcher = dispatcher
        self._broker = broker = dispatcher.broker
        self._settings = settings = broker.settings
        self._connections = connections
        self._login = Login(users)
        size_max = settings.login_bytes_max if self._login.is_needed else settings.request_bytes_max
        self._reader = FrameReader(broker.received, size_max, self._throttle)
        self._transport: asyncio.Transport | None = None
        self._host = ""
        self._answers: deque[Answer] = deque()
        self._held_up = False
        self._pumping = False
        self._paused_writing = False
        self._paused_reading = False
        # What the last look at a full write buffer found there, counted in the broker's budget.
        self._unsent = 0
        self._in_line = False
        self._fetch: PendingFetch | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened_s = self._active_s = monotonic()

    # -- transport -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface without the base class.
        self._transport = transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._host = str(peer[0]) if peer else ""
        self._connections.add(self)
        if len(self._connections) > self._settings.connections_max:
            self.close("too_many", f"connections_max is {self._settings.connections_max}")
            return
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._transport = None
        self._reader.close()
        self._answers.clear()
        self._count_unsent(0)
        if self._in_line:
            self._broker.unsent.leave(self._room_to_send)
        if self._fetch is not None:
            self._fetch.cancel()
            self._fetch = None

    def pause_writing(self) -> None:
        self._paused_writing = True
        assert self._transport is not None, "only a connection that is open writes"
        self._count_unsent(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._paused_writing = False
        self._active_s = monotonic()
        self._count_unsent(0)
        self._pump()

    def close(self, why: str, details: str = "") -> None:
        """Close after what is already written. `why` is counted, `details` are logged."""
        if self._transport is None or self._transport.is_closing():
            return
        self._broker.measures.closed[why] += 1
        if details:
            logger.warning("connection from %s closed (%s): %s", self._host, why, details)
        self._transport.close()

    def abort(self) -> None:
        """Close without waiting for the peer to take its answers."""
        if self._transport is not None:
            self._transport.abort()

    # -- time ----------------------------------------------------------------------------------

    def close_if_idle(self, now_s: float) -> None:
        """Close what has nothing to say; called every few seconds with the time of `monotonic`."""
        settings = self._settings
        silent_s = now_s - self._active_s
        if self._transport is None or self._transport.is_closing():
            if silent_s > settings.stall_timeout_s:
                self.abort()
        elif self._login.is_needed and now_s - self._opened_s > settings.login_timeout_s:
            self.close("no_login", f"no login within {settings.login_timeout_s:g} s")
        elif self._paused_writing:
            self._close_if_stuck(silent_s)
        elif self._reader.is_inside and not self._paused_reading:
            if silent_s > settings.stall_timeout_s:
                self.close("stalled", f"silent in the middle of a request for {silent_s:.0f} s")
        elif not self._answers and not self._reader.frames and silent_s > settings.idle_timeout_s:
            self.close("idle")

    def _close_if_stuck(self, silent_s: float) -> None:
        """The peer reads slowly: every byte that it takes gives it more time."""
        assert self._transport is not None, "a closed connection is in no list"
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._active_s = monotonic()
            self._count_unsent(unsent)
        elif silent_s > self._settings.stall_timeout_s:
            self.close("stalled", f"{unsent} bytes of answers not taken for {silent_s:.0f} s")
            # Or it would wait for the peer to take them.
            self.abort()

    # -- requests ------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self._active_s = monotonic()
        try:
            self._reader.received(nbytes)
        except RequestError as error:
            self.close("too_large", str(error))
            return
        self._pump()

    def _pump(self) -> None:
        """Handle waiting frames as far as order and limits allow."""
        if self._pumping:
            return
        self._pumping = True
        try:
            self._flush()
            while self._reader.frames and self._may_handle():
                self._handle(self._reader.take())
                # Before the next one is begun: only then is it known how much the client takes.
                self._flush()
        except RequestError as error:
            self.close("malformed", str(error))
        except Exception:
            logger.exception("a request failed")
            self.close("failed", "internal error")
        finally:
            self._pumping = False
        self._throttle()

    def _may_handle(self) -> bool:
        if self._held_up or self._paused_writing or self._in_line:
            return False
        if self._transport is None or self._transport.is_closing():
            return False
        if len(self._answers) >= self._settings.pipeline_max:
            return False
        commit, unsent = self._broker.commit, self._broker.unsent
        if commit.unsynced_bytes > self._settings.unsynced_bytes_max:
            self._in_line = True
            commit.after(self._turn_has_come)
        elif not unsent.room and self._reader.frames[0].startswith(_FETCH_KEY):
            self._in_line = True
            unsent.wait(1, self._room_to_send)
        return not self._in_line

    def _turn_has_come(self) -> None:
        self._in_line = False
        self._pump()

    def _room_to_send(self) -> None:
        # Later: this is called while another connection is in the middle of its own work.
        asyncio.get_running_loop().call_soon(self._turn_has_come)

    def _throttle(self) -> None:
        """Stop reading the socket while requests wait, so that the client's own buffers fill up."""
        if self._transport is None or self._transport.is_closing():
            return
        reader = self._reader
        backlog = reader.is_blocked or (
            bool(reader.frames)
            and (
                self._in_line
                or not self._broker.received.room
                or len(reader.frames) >= self._settings.pipeline_max
                or reader.waiting_bytes >= self._settings.pipeline_bytes_max
            )
        )
        if backlog and not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()
        elif not backlog and self._paused_reading:
            self._paused_reading = False
            self._active_s = monotonic()
            self._transport.resume_reading()

    def _handle(self, frame: bytearray) -> None:
        header = read_request_header(frame)
        if self._login.is_needed and header.api_key not in _BEFORE_LOGIN:
            self.close("no_login", f"API {header.api_key} before a login")
            return
        if header.api_key != _PRODUCE and len(frame) > self._settings.control_bytes_max:
            limit = self._settings.control_bytes_max
            self.close("too_large", f"{len(frame)} bytes for API {header.api_key}, the limit is {limit}")
            return
        api = APIS.get(header.api_key)
        if api is None or not api.version_min <= header.version <= api.version_max:
            self._refuse(header)
            return
        answer = Answer(monotonic(), holds_up=header.api_key != _PRODUCE)
        self._answers.append(answer)
        if header.api_key == _PRODUCE:
            request = read_produce(memoryview(frame), header.body, header.version)
            self._dispatcher.produce.handle(request, header.version, self._responder(header, answer))
            return
        self._held_up = True
        if header.api_key == _FETCH:
            fetch = read_fetch(memoryview(frame), header.body, header.version)
            self._fetch = self._dispatcher.fetch.handle(
                fetch, header.version, self._responder(header, answer)
            )
        else:
            self._call(header, answer, bytes(frame))

    def _call(self, header: RequestHeader, answer: Answer, frame: bytes) -> None:
        request = read_request(header.api_key, header.version, frame, header.body)
        if header.api_key == _SASL_HANDSHAKE:
            result: ResponseBody | Awaitable[ResponseBody] = self._login.handshake(request)
        elif header.api_key == _SASL_AUTHENTICATE:
            result = self._login.authenticate(request)
        else:
            caller = Caller(header.version, header.client_id or "", self._host)
            result = self._dispatcher.handlers[header.api_key](request, caller)
        if inspect.isawaitable(result):
            task = asyncio.ensure_future(self._await(header, answer, result))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._respond(header, answer, [encode(header.api_key, header.version, result)])

    async def _await(self, header: RequestHeader, answer: Answer, result: Awaitable[ResponseBody]) -> None:
        try:
            body = encode(header.api_key, header.version, await result)
        except Exception:
            logger.exception("%s v%d failed", APIS[header.api_key].name, header.version)
            self.close("failed", "internal error")
            return
        if header.api_key == _SASL_AUTHENTICATE and not self._login.is_needed:
            self._reader.request_bytes_max = self._settings.request_bytes_max
        self._respond(header, answer, [body])

    def _refuse(self, header: RequestHeader) -> None:
        """An API or version that is not served. ApiVersions is answered in its oldest form, with the list."""
        error = ERRORS["unsupported_version"]
        if header.api_key == _API_VERSIONS:
            header = header._replace(version=0)
            body: bytes | None = encode(_API_VERSIONS, 0, api_versions_body(error))
        else:
            body = encode_refusal(header.api_key, header.version, error)
        if body is None:
            self.close("unsupported", f"API {header.api_key} version {header.version} is not served")
            return
        answer = Answer(monotonic(), holds_up=False)
        self._answers.append(answer)
        self._respond(header, answer, [body])

    # -- answers -------------------------------------------------------------------------------

    def _responder(self, header: RequestHeader, answer: Answer) -> Callable[[Sequence[Records] | None], None]:
        return lambda parts: self._respond(header, answer, parts)

    def _respond(self, header: RequestHeader, answer: Answer, parts: Sequence[Records] | None) -> None:
        if parts is None:
            answer.parts = deque()
        else:
            head = response_header(header.api_key, header.version, header.correlation_id)
            size = len(head) + sum(map(len, parts))
            first = parts[0]
            assert isinstance(first, bytes), "an answer begins with fields of its own"
            answer.parts = deque([size.to_bytes(_LENGTH_BYTES, "big") + head + first, *parts[1:]])
        now_s = monotonic()
        if header.api_key in APIS:
            self._broker.measures.request_s[header.api_key].add(now_s - answer.began_s)
        if answer.holds_up:
            self._held_up = False
            self._fetch = None
        if not self._pumping:
            self._pump()

    def _flush(self) -> None:
        """Write what is known, in order; what is still in files only as far as the client takes it."""
        try:
            while self._transport is not None and (piece := self._next_piece()) is not None:
                self._transport.write(piece)
        except OSError as error:
            # The length has been announced already, so no other answer can follow.
            self.close("failed", f"an answer could not be read: {error}")
            self.abort()
        answers = self._answers
        if self._login.has_failed and not answers:
            self.close("login_failed", "a login was refused")

    def _next_piece(self) -> bytes | None:
        """The next bytes to be written, None if there are none now."""
        answers = self._answers
        while answers and (parts := answers[0].parts) is not None:
            part = parts[0] if parts else None
            if part is None:
                answers.popleft()
                self._active_s = monotonic()
            elif isinstance(part, bytes):
                parts.popleft()
                return part
            elif not len(part):
                parts.popleft()
            else:
                return None if self._paused_writing else part.take(_PIECE_BYTES)
        return None

    def _count_unsent(self, size: int) -> None:
        before, self._unsent = self._unsent, size
        self._broker.unsent.take(size)
        self._broker.unsent.release(before)
