"""queryd as a process: the engine, a producer and the HTTP face, started and stopped in the right order.

Start: listen first (so that /livez and /readyz answer while tables are read), then open the engine.
Stop: 1. refuse new connections and finish what is being served, 2. flush the producer – every 202 has been sent
only after the log's acknowledgement, so this is for requests that were cut off –, 3. close the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from aiohttp import web

from queryd.engine import Engine
from queryd.http.access import Keys, RateLimiter, check_exposure
from queryd.http.app import create_app
from queryd.http.services import Services
from schemas.model import Schema
from schemas.settings import ProducerSettings, Settings
from streams.producer_async import AsyncProducer

logger = logging.getLogger("queryd")

READY_POLL_S = 0.05
DRAIN_S = 2.0
"""Patience with requests in flight at a stop: far above a query's deadline, and within what `tidal up` allows."""
FLUSH_S = 2.5
KEEPALIVE_S = 60.0
BLOCK_S = 2.0
DELIVERY_MS = 10_000
"""An HTTP caller hears within this time that the log does not answer; a batch job may wait for longer."""


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """What one queryd needs to know. `port` 0 takes a free one; `share_port` lets several listen on the same."""

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

    Raises AccessError when strangers could reach it without a key, OSError when the port is taken, and whatever
    keeps the engine from starting.
    """
    check_exposure(config.host, config.keys)
    async with contextlib.AsyncExitStack() as stack:
        engine = Engine(config.settings, schema, config.name)
        stack.push_async_callback(engine.stop)
        producer = AsyncProducer(config.brokers, _producer_settings(config.settings), schema=schema)
        stack.push_async_callback(producer.close, FLUSH_S)
        limiter = RateLimiter(config.settings.queryd.rate_limit_per_s)
        address = await _listen(stack, config, Services(engine, producer, config.keys, limiter))
        logger.info("listening", extra={"address": address})
        starting = asyncio.create_task(_start(engine, lambda: on_ready(address)))
        stack.push_async_callback(_cancel, starting)
        await _until(stopped, starting)
    logger.info("stopped")


async def _until(stopped: Callable[[], Awaitable[None]], starting: asyncio.Task[None]) -> None:
    """Waits for the stop; an engine that cannot start ends the wait with its error."""
    stopping = asyncio.ensure_future(stopped())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        if starting.exception() is not None:
            stopping.cancel()
        starting.result()
    await stopping


async def _listen(stack: contextlib.AsyncExitStack, config: DaemonConfig, services: Services) -> str:
    runner = web.AppRunner(
        create_app(services), access_log=None, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=DRAIN_S
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, config.host, config.port, reuse_port=config.share_port or None)
    await site.start()
    host, port = runner.addresses[0][:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _start(engine: Engine, on_ready: Callable[[], None]) -> None:
    await engine.start()
    while not engine.readiness().ready:  # noqa: ASYNC110 - lag is a number, not an event
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
