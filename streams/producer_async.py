"""The producer SDK for asyncio: the same calls as `Producer`, awaitable.

    async with AsyncProducer("127.0.0.1:9092") as producer:
        position = await producer.publish("view", "item_2", "user_7")
        futures = [await producer.enqueue("view", item, "user_7") for item in page]
        await asyncio.gather(*futures)

It stands on the same core as `Producer` and bridges to the event loop once for each record, not for each
event: up to 100 futures are settled by one `call_soon_threadsafe`. confluent_kafka's own asyncio producer
(confluent_kafka.aio, 2.16) was considered and not taken. It gathers messages by count and an inactivity
timer of its own in front of ours, so every record would linger twice; it refuses headers in that mode; and
its buffer has no bound that a caller could wait on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from schemas.model import Schema
from schemas.records.columns import EventColumns
from schemas.settings import ProducerSettings
from streams.bulk_ack import BulkAck
from streams.errors import StreamError
from streams.positions import Position
from streams.producer_core import ProducerCore, ProducerStats, Publication
from streams.producer_requests import Requests
from streams.settled import Settled, settle_all

logger = logging.getLogger(__name__)


class AsyncProducer:
    """Publishes to the log from the tasks of one event loop; create it inside that loop.

    A cancelled task stops waiting; what it had handed over is published all the same.
    """

    def __init__(
        self, brokers: str, settings: ProducerSettings | None = None, *, schema: Schema | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings = settings or ProducerSettings()
        self._requests = Requests(self._settings, schema)
        self._core = ProducerCore(brokers, self._settings, self._settle_on_loop)

    async def publish(
        self,
        kind: str,
        item: str,
        user: str | None = None,
        weight: float = 1.0,
        ts: int | None = None,
        request_id: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Position:
        """Publish one signal and wait for its acknowledgement; arguments and errors as in `Producer`."""
        return await (await self.enqueue(kind, item, user, weight, ts, request_id, context))

    async def enqueue(
        self,
        kind: str,
        item: str,
        user: str | None = None,
        weight: float = 1.0,
        ts: int | None = None,
        request_id: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> asyncio.Future[Position]:
        """Publish one signal, waiting only for room; the future is the acknowledgement."""
        future: asyncio.Future[Position] = self._loop.create_future()
        await self._submit(self._requests.event(kind, item, user, weight, ts, request_id, context, future))
        return future

    async def publish_columns(self, columns: EventColumns) -> list[Position]:
        """Publish many signals as columns and wait for all: the positions of their records."""
        self._requests.check_columns(columns)
        if not len(columns):
            return []
        future: asyncio.Future[list[Position]] = self._loop.create_future()
        ack = BulkAck(self._requests.part_count(columns), partial(self._settle_batch_on_loop, future))
        await self._submit_all(self._requests.parts(columns, ack), ack)
        return await future

    async def put_entity(self, kind: str, id: str, record: Mapping[str, Any] | None) -> Position:
        """Write the whole record of an item, user or creator; None deletes it."""
        future: asyncio.Future[Position] = self._loop.create_future()
        await self._submit(self._requests.entity(kind, id, record, future))
        return await future

    async def put_relationship(
        self, type: str, src: str, dst: str, record: Mapping[str, Any] | None
    ) -> Position:
        """Write an explicit edge such as ("follows", user, creator); None deletes it."""
        future: asyncio.Future[Position] = self._loop.create_future()
        await self._submit(self._requests.relationship(type, src, dst, record, future))
        return await future

    async def flush(self, timeout_s: float | None = None) -> None:
        """Wait until everything published before has been acknowledged or has failed."""
        timeout_s = self._settings.close_timeout_s if timeout_s is None else timeout_s
        await asyncio.to_thread(self._core.flush, timeout_s)

    async def close(self, timeout_s: float | None = None) -> None:
        """Flush and stop. What the log has not acknowledged in time fails, in its future and here."""
        timeout_s = self._settings.close_timeout_s if timeout_s is None else timeout_s
        await asyncio.to_thread(self._core.close, timeout_s)

    def stats(self) -> ProducerStats:
        """Counts of records and what is buffered."""
        return self._core.stats()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _submit(self, publication: Publication) -> None:
        if not self._core.budget.try_take(publication.cost_bytes):
            await self._wait_for_room(publication.cost_bytes)
        self._core.submit(publication)

    async def _submit_all(self, parts: Sequence[Publication], ack: BulkAck) -> None:
        for index, part in enumerate(parts):
            try:
                await self._submit(part)
            except StreamError as error:
                if index == 0:
                    raise
                for _ in parts[index:]:
                    ack.set_exception(error)
                return

    async def _wait_for_room(self, cost_bytes: int) -> None:
        budget = self._core.budget
        room: asyncio.Future[None] = self._loop.create_future()
        waiter = budget.join_line(cost_bytes, lambda: self._on_loop(_open, room))
        try:
            async with asyncio.timeout(self._settings.block_timeout_s):
                await room
        except TimeoutError:
            if budget.leave_line(waiter):
                raise budget.full(self._settings.block_timeout_s) from None
        except asyncio.CancelledError:
            budget.give_up(waiter)
            raise
        budget.check_open_after_wait()

    def _settle_on_loop(
        self, futures: Sequence[Settled], position: Position | None, error: Exception | None
    ) -> None:
        self._on_loop(settle_all, futures, position, error)

    def _settle_batch_on_loop(
        self,
        future: asyncio.Future[list[Position]],
        positions: list[Position] | None,
        error: Exception | None,
    ) -> None:
        self._on_loop(_settle_batch, future, positions, error)

    def _on_loop(self, function: Any, *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop was closed before the producer: nobody is left to tell, but somebody should know.
            logger.exception("the event loop was closed before its AsyncProducer; close the producer first")


def _open(room: asyncio.Future[None]) -> None:
    if not room.done():
        room.set_result(None)


def _settle_batch(
    future: asyncio.Future[list[Position]], positions: list[Position] | None, error: Exception | None
) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(positions or [])
