"""Listens, keeps the connections and closes those that have nothing more to say."""

from __future__ import annotations

import asyncio
from time import monotonic

from streams.embedded.broker import Broker
from streams.embedded.connection import Connection
from streams.embedded.dispatcher import Dispatcher
from streams.embedded.security import Security, tls_context

# How often connections are looked at; their time-outs are longer.
_LOOK_S = 1.0


class Server:
    """The listening socket of one log. `security`: TLS and login, None for neither."""

    def __init__(self, broker: Broker, security: Security | None = None) -> None:
        self._broker = broker
        self._security = security
        self._dispatcher = Dispatcher(broker)
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._looking: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Begin to listen; returns the port really bound. Raises ListenError, OSError."""
        security = self._security
        users = security.users if security is not None else None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._dispatcher, self.connections, users), host, port, backlog=512,
            ssl=tls_context(security) if security is not None else None,
            ssl_handshake_timeout=self._broker.settings.login_timeout_s if security is not None else None,
        )  # fmt: skip
        self._looking = loop.create_task(self._close_idle(), name="idle connections")
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and close all connections."""
        if self._looking is not None:
            self._looking.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.close("stopping")
        # Lets transports close; a client that does not read must not keep the log from stopping.
        await asyncio.sleep(0)

    async def _close_idle(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            now_s = monotonic()
            for connection in list(self.connections):
                connection.close_if_idle(now_s)
