"""queryd as a process: the engine, a producer and the HTTP face, started and stopped in the right order.

Start: listen first (so that /livez and /readyz answer while tables are read), then open the engine.

Stop: 1. refuse new connections and finish what is being served, 2. flush the producer – every 202 was sent
only after the log's acknowledgement, so this is for requests that were cut off –, 3. close the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiohttp import web

from materializers.tables.reader import TableReader
from queryd.engine import Engine
from queryd.http.access import Keys, RateLimiter, check_exposure
from queryd.http.app import create_app
from queryd.http.connections import Runner
from queryd.http.services import Services, readiness
from queryd.language.parse import parse_query
from queryd.log_lag import LogLag
from schemas.model import Schema
from schemas.settings import ProducerSettings, Settings
from streams.producer_async import AsyncProducer

logger = logging.getLogger("queryd")

READY_POLL_S = 0.05
DRAIN_S = 2.0
"""Patience with requests in flight at a stop: far above a query's deadline, within what `tidal up` allows."""
FLUSH_S = 2.5
KEEPALIVE_S = 60.0
BLOCK_S = 2.0
DELIVERY_MS = 10_000
"""An HTTP caller hears within this time that the log does not answer; a batch job may wait for longer."""


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """What one queryd needs to know.

    `name` is unique among the queryds of one folder; `port` 0 takes a free one; with `share_port` several
    listen on the same.
    """

    name: str
    host: str
    port: int
    settings: Settings
    keys: Keys
    share_port: bool = False

    @property
    def brokers(self) -> str:
        """The log that writes go to."""
        return self.settings.site.brokers or self.settings.log.listen


async def serve(
    config: DaemonConfig,
    schema: Schema,
    on_ready: Callable[[str], None],
    stopped: Callable[[], Awaitable[None]],
) -> None:
    """Serves until `stopped()` returns. `on_ready` gets host:port once the engine may serve.

    Raises AccessError when strangers could reach it without a key, OSError when the port is taken, and
    whatever keeps the engine from starting.
    """
    check_exposure(config.host, config.keys)
    async with contextlib.AsyncExitStack() as stack:
        tables = TableReader(Path(config.settings.site.data_dir), config.name)
        stack.callback(tables.close)
        engine = Engine(config.settings, schema, tables, name=config.name)
        stack.push_async_callback(engine.stop)
        producer = AsyncProducer(config.brokers, _producer_settings(config.settings), schema=schema)
        stack.push_async_callback(producer.close, FLUSH_S)
        lag = LogLag(config.brokers, config.settings.topics.app, tables, lambda: time.time_ns() // 1_000_000)
        services = _services(config, engine, producer, lag)
        address = await _listen(stack, config, services)
        logger.info("listening", extra={"address": address})
        starting = asyncio.create_task(_start(engine, services, lambda: on_ready(address)))
        stack.push_async_callback(_cancel, starting)
        watching = asyncio.create_task(lag.run())
        stack.push_async_callback(_cancel, watching)
        await _until(stopped, starting, watching)
    logger.info("stopped")


def _services(config: DaemonConfig, engine: Engine, producer: AsyncProducer, lag: LogLag) -> Services:
    queryd = config.settings.queryd
    return Services(
        reader=engine,
        writer=producer,
        lag=lag,
        lag_ms_max=queryd.lag_ms_max,
        keys=config.keys,
        limiter=RateLimiter(queryd.rate_limit_per_s),
    )


async def _until(
    stopped: Callable[[], Awaitable[None]], starting: asyncio.Task[None], watching: asyncio.Task[None]
) -> None:
    """Waits for the stop; a start that fails, or a watch that ends, ends the wait with its error."""
    stopping = asyncio.ensure_future(stopped())
    waiting: set[asyncio.Future[None]] = {stopping, starting, watching}
    try:
        while not stopping.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        stopping.cancel()


async def _listen(stack: contextlib.AsyncExitStack, config: DaemonConfig, services: Services) -> str:
    runner = Runner(
        create_app(services), access_log=None, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=DRAIN_S
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, config.host, config.port, reuse_port=config.share_port or None)
    await site.start()
    host, port = runner.addresses[0][:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _start(engine: Engine, services: Services, on_ready: Callable[[], None]) -> None:
    await engine.start()
    # The grammar's tables take 0.2 s to build, which the first asker need not wait for.
    parse_query("RETRIEVE items")
    while not readiness(services).ready:  # noqa: ASYNC110 - lag is a number, not an event
        await asyncio.sleep(READY_POLL_S)
    logger.info("ready")
    on_ready()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _producer_settings(settings: Settings) -> ProducerSettings:
    """The configured producer, with the patience of an HTTP caller."""
    given = settings.producer
    return msgspec.structs.replace(
        given,
        block_timeout_s=min(given.block_timeout_s, BLOCK_S),
        delivery_timeout_ms=min(given.delivery_timeout_ms, DELIVERY_MS),
    )
