"""Connections: frames in, answers out in order.

Requests of one connection are handled one after the other, as clients expect; only Produce does not
hold up what follows it, because its order is settled when it is appended. A connection that sends faster
than it is served is not read from until it has caught up.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

from streams.embedded.broker import Broker, Caller
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
from streams.embedded.errors import RequestError
from streams.embedded.handle_cluster import ClusterHandlers, api_versions_body
from streams.embedded.handle_fetch import FetchHandler, PendingFetch
from streams.embedded.handle_groups import GroupHandlers
from streams.embedded.handle_offsets import OffsetHandlers
from streams.embedded.handle_produce import ProduceHandler
from streams.embedded.handle_topics import TopicHandlers
from streams.embedded.handle_transactions import TransactionHandlers
from streams.embedded.hot_codec import read_fetch, read_produce
from streams.embedded.request_tags import decode_request

logger = logging.getLogger(__name__)

_PRODUCE, _FETCH, _API_VERSIONS = 0, 1, 18
_LENGTH_BYTES = 4
# Requests up to this size share one receive buffer; larger ones get their own, filled by the kernel.
_RECEIVE_BYTES = 64 * 1024
# What a length alone may claim; a longer request gets more as it really arrives.
_FIRST_BYTES = 2 << 20
_WRITE_BUFFER_BYTES = 4 << 20

Handler = Callable[[Any, Caller], ResponseBody | Awaitable[ResponseBody]]


class Answer:
    """The place of one answer in a connection's order. `parts` is None until it is known."""

    __slots__ = ("holds_up", "parts")

    def __init__(self, *, holds_up: bool) -> None:
        self.holds_up = holds_up
        self.parts: list[bytes] | None = None


class Dispatcher:
    """Finds the handler of a request."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.produce = ProduceHandler(broker)
        self.fetch = FetchHandler(broker)
        cluster, topics, offsets = ClusterHandlers(broker), TopicHandlers(broker), OffsetHandlers(broker)
        groups, transactions = GroupHandlers(broker), TransactionHandlers(broker)
        self.handlers: dict[int, Handler] = {
            2: offsets.list_offsets,
            3: cluster.metadata,
            8: groups.commit_offsets,
            9: groups.fetch_offsets,
            10: cluster.find_coordinator,
            11: groups.join,
            12: groups.heartbeat,
            13: groups.leave,
            14: groups.sync,
            15: groups.describe_groups,
            16: groups.list_groups,
            18: cluster.api_versions,
            19: topics.create,
            20: topics.delete,
            21: offsets.delete_records,
            22: transactions.init_producer_id,
            24: transactions.add_partitions,
            25: transactions.add_offsets,
            26: transactions.end,
            28: transactions.commit_offsets,
            32: topics.describe_configs,
            33: topics.alter_configs,
            37: topics.create_partitions,
            42: groups.delete_groups,
            44: topics.incremental_alter_configs,
            47: groups.delete_offsets,
            60: cluster.describe_cluster,
            68: groups.refuse_consumer_protocol,
        }


class Connection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(self, dispatcher: Dispatcher, connections: set[Connection]) -> None:
        self._dispatcher = dispatcher
        self._settings = dispatcher.broker.settings
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._host = ""
        self._shared = bytearray(_RECEIVE_BYTES)
        self._shared_view = memoryview(self._shared)
        self._shared_filled = 0
        self._own: bytearray | None = None
        self._own_filled = 0
        self._own_size = 0
        self._frames: deque[bytearray] = deque()
        self._answers: deque[Answer] = deque()
        self._held_up = False
        self._pumping = False
        self._paused_writing = False
        self._paused_reading = False
        self._waits_for_disk = False
        self._fetch: PendingFetch | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # -- transport -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface without the base class.
        self._transport = transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._host = str(peer[0]) if peer else ""
        if len(self._connections) >= self._settings.connections_max:
            logger.warning(
                "connection from %s refused, connections_max is %d", peer, self._settings.connections_max
            )
            transport.close()
            return
        self._connections.add(self)
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._transport = None
        self._frames.clear()
        self._answers.clear()
        if self._fetch is not None:
            self._fetch.cancel()
            self._fetch = None

    def pause_writing(self) -> None:
        self._paused_writing = True

    def resume_writing(self) -> None:
        self._paused_writing = False
        self._flush()
        self._pump()

    def close(self, reason: str = "") -> None:
        """Close after what is already written."""
        if self._transport is not None:
            if reason:
                logger.warning("connection from %s closed: %s", self._host, reason)
            self._transport.close()

    # -- frames --------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._own is not None:
            if self._own_filled == len(self._own):
                self._own = _grown(self._own, self._own_size)
            return memoryview(self._own)[self._own_filled :]
        return self._shared_view[self._shared_filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._own is not None:
            self._own_filled += nbytes
            if self._own_filled == self._own_size:
                self._frames.append(self._own)
                self._own = None
        else:
            self._shared_filled += nbytes
            self._split()
        self._pump()

    def _split(self) -> None:
        """Take the whole frames out of the shared buffer; the start of a further one gets its own."""
        start, end = 0, self._shared_filled
        while end - start >= _LENGTH_BYTES:
            size = int.from_bytes(self._shared[start : start + _LENGTH_BYTES], "big", signed=True)
            start += _LENGTH_BYTES
            if not 0 < size <= self._settings.request_bytes_max:
                self._shared_filled = 0
                self.close(f"a request of {size} bytes, the limit is {self._settings.request_bytes_max}")
                return
            if end - start < size:
                self._own_size, self._own_filled = size, end - start
                self._own = bytearray(min(size, _FIRST_BYTES))
                self._own[: end - start] = self._shared_view[start:end]
                self._shared_filled = 0
                return
            self._frames.append(bytearray(self._shared_view[start : start + size]))
            start += size
        rest = end - start
        self._shared[:rest] = self._shared[start:end]
        self._shared_filled = rest

    # -- requests ------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Handle waiting frames as far as order and limits allow."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._frames and self._may_handle():
                self._handle(self._frames.popleft())
        except RequestError as error:
            self.close(str(error))
        except Exception:
            logger.exception("a request failed")
            self.close("internal error")
        finally:
            self._pumping = False
        self._flush()
        self._throttle()

    def _may_handle(self) -> bool:
        if self._held_up or self._paused_writing or self._transport is None:
            return False
        if len(self._answers) >= self._settings.pipeline_max or self._waits_for_disk:
            return False
        commit = self._dispatcher.broker.commit
        if commit.unsynced_bytes > self._settings.unsynced_bytes_max:
            self._waits_for_disk = True
            commit.after(self._disk_caught_up)
            return False
        return True

    def _disk_caught_up(self) -> None:
        self._waits_for_disk = False
        self._pump()

    def _throttle(self) -> None:
        """Stop reading the socket while requests wait, so that the client's own buffers fill up."""
        if self._transport is None or self._transport.is_closing():
            return
        backlog = bool(self._frames) and (
            self._waits_for_disk
            or len(self._frames) >= self._settings.pipeline_max
            or sum(map(len, self._frames)) >= self._settings.pipeline_bytes_max
        )
        if backlog and not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()
        elif not backlog and self._paused_reading:
            self._paused_reading = False
            self._transport.resume_reading()

    def _handle(self, frame: bytearray) -> None:
        header = read_request_header(frame)
        api = APIS.get(header.api_key)
        if api is None or not api.version_min <= header.version <= api.version_max:
            self._refuse(header)
            return
        answer = Answer(holds_up=header.api_key != _PRODUCE)
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
        request = decode_request(header.api_key, header.version, frame, header.body)
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
            self.close("internal error")
            return
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
            self.close(f"API {header.api_key} version {header.version} is not served")
            return
        answer = Answer(holds_up=False)
        self._answers.append(answer)
        self._respond(header, answer, [body])

    # -- answers -------------------------------------------------------------------------------

    def _responder(self, header: RequestHeader, answer: Answer) -> Callable[[list[bytes] | None], None]:
        return lambda parts: self._respond(header, answer, parts)

    def _respond(self, header: RequestHeader, answer: Answer, parts: list[bytes] | None) -> None:
        if parts is None:
            answer.parts = []
        else:
            head = response_header(header.api_key, header.version, header.correlation_id)
            size = len(head) + sum(map(len, parts))
            answer.parts = [size.to_bytes(_LENGTH_BYTES, "big") + head + parts[0], *parts[1:]]
        if answer.holds_up:
            self._held_up = False
            self._fetch = None
        if not self._pumping:
            self._pump()

    def _flush(self) -> None:
        """Write what is known, in order."""
        answers, transport = self._answers, self._transport
        while answers and transport is not None and (parts := answers[0].parts) is not None:
            answers.popleft()
            if parts:
                transport.writelines(parts)


def _grown(buffer: bytearray, size: int) -> bytearray:
    """Twice as large, at most `size`."""
    larger = bytearray(min(2 * len(buffer), size))
    larger[: len(buffer)] = buffer
    return larger


class Server:
    """Listens and keeps the connections."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._dispatcher = Dispatcher(broker)
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Begin to listen; returns the port really bound."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._dispatcher, self._connections), host, port, backlog=512
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and close all connections."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()
        # Lets transports close; a client that does not read must not keep the log from stopping.
        await asyncio.sleep(0)
