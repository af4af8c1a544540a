"""The asyncio producer on a real log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from schemas.errors import RecordError
from schemas.records.columns import EventColumns
from schemas.settings import ProducerSettings
from streams.errors import DeliveryError, ProducerClosedError, QueueFullError, TopicError
from streams.partitioner import partition_for
from streams.positions import Position
from streams.producer_async import AsyncProducer
from tests.brokers import Broker
from tests.log_reading import logged_events, make_topics

PARTITIONS = 4
ACK_S = 60
PROMPT = ProducerSettings(group_linger_ms=1)


@pytest.fixture
def log(broker: Broker) -> Broker:
    """A broker with the engine's topics."""
    make_topics(broker.bootstrap, PARTITIONS)
    return broker


@pytest.fixture
async def producer(log: Broker) -> AsyncIterator[AsyncProducer]:
    """A producer that does not linger."""
    async with AsyncProducer(log.bootstrap, PROMPT) as producer:
        yield producer


def batch_of(count: int, user: str) -> EventColumns:
    """`count` events of one user, numbered by weight."""
    return EventColumns(
        kinds=["view"],
        items=["item_1"],
        users=[user],
        kind=np.zeros(count, np.uint16),
        item=np.zeros(count, np.uint32),
        user=np.zeros(count, np.uint32),
        weight=np.arange(count, dtype=np.int64) * 1_000_000,
        ts_ms=np.full(count, 1_700_000_000_000, np.int64),
    )


async def test_publish_returns_the_acknowledged_position(log: Broker, producer: AsyncProducer) -> None:
    """Where the event really is."""
    position = await producer.publish("view", "item_1", "user_1", weight=3)
    assert position == Position("tidal.signals", partition_for(b"user_1", PARTITIONS), 0)
    (event,) = await asyncio.to_thread(logged_events, log.bootstrap)
    assert (event.partition, event.offset, event.weight) == (position.partition, 0, 3.0)


async def test_tasks_that_publish_at_once_share_records(log: Broker) -> None:
    """A hundred requests of one user cost the log one record."""
    async with AsyncProducer(log.bootstrap, ProducerSettings(group_linger_ms=60_000)) as producer:
        tasks = [producer.publish("view", f"item_{n}", "user_1") for n in range(100)]
        assert len(set(await asyncio.wait_for(asyncio.gather(*tasks), ACK_S))) == 1


async def test_enqueue_keeps_order_and_lets_the_caller_go_on(log: Broker, producer: AsyncProducer) -> None:
    """The future is the acknowledgement."""
    futures = [await producer.enqueue("view", "item_1", "user_1", weight=n) for n in range(500)]
    await asyncio.wait_for(asyncio.gather(*futures), ACK_S)
    events = await asyncio.to_thread(logged_events, log.bootstrap)
    assert [int(event.weight) for event in events] == list(range(500))


async def test_batches_records_and_edges(log: Broker, producer: AsyncProducer) -> None:
    """The same calls as the blocking producer's."""
    assert await producer.publish_columns(batch_of(0, "u")) == []
    small = await producer.publish_columns(batch_of(5, "user_1"))
    large = await producer.publish_columns(batch_of(10_000, "user_2"))
    assert len(small) == 1
    assert len(large) == 3
    assert (await producer.put_entity("item", "item_1", {"title": "x"})).topic == "tidal.items"
    assert (await producer.put_relationship("follows", "u", "c", {})).topic == "tidal.relationships"
    assert len(await asyncio.to_thread(logged_events, log.bootstrap)) == 10_005


async def test_errors_reach_the_caller(broker: Broker) -> None:
    """A bad field at once, a missing topic by the acknowledgement."""
    async with AsyncProducer(broker.bootstrap, PROMPT) as producer:
        with pytest.raises(RecordError, match="item"):
            await producer.publish("view", "")
        with pytest.raises(TopicError, match="tidal topics init"):
            await producer.publish("view", "item_1")
        with pytest.raises(TopicError):
            await producer.publish_columns(batch_of(200, "u"))


async def test_a_full_buffer_suspends_the_task_and_not_the_loop(log: Broker) -> None:
    """While the log is away the loop goes on; the task is refused in time; what was accepted arrives."""
    settings = ProducerSettings(
        buffer_bytes_max=5_000, block_timeout_s=0.3, group_linger_ms=1, record_bytes_max=4_000
    )
    async with AsyncProducer(log.bootstrap, settings) as producer:
        await producer.publish("view", "item_1", "user_1")
        log.kill()
        accepted: list[asyncio.Future[Position]] = []
        while producer.stats().buffered_bytes < 4_500:
            accepted.append(await producer.enqueue("view", "item_1", "user_1"))
        ticks = 0
        refused = asyncio.gather(
            *(producer.enqueue("view", "item_1", "user_1") for _ in range(30)), return_exceptions=True
        )
        while not refused.done():
            ticks += 1
            await asyncio.sleep(0.01)
        results = await refused
        assert ticks > 5
        assert [type(result) for result in results].count(QueueFullError) >= 25
        accepted += [result for result in results if isinstance(result, asyncio.Future)]
        log.restart()
        await asyncio.wait_for(asyncio.gather(*accepted), ACK_S)
        await producer.publish("view", "item_1", "user_1")


async def test_a_waiting_task_gets_room_when_there_is(log: Broker) -> None:
    """More tasks than the buffer holds, none refused."""
    settings = ProducerSettings(buffer_bytes_max=3_000, group_linger_ms=1, record_bytes_max=2_000)
    async with AsyncProducer(log.bootstrap, settings) as producer:
        await asyncio.gather(*(producer.publish("view", "item_1", f"user_{n}") for n in range(200)))
        assert producer.stats().buffered_bytes == 0
    assert len(await asyncio.to_thread(logged_events, log.bootstrap)) == 200


async def test_a_cancelled_wait_for_room_leaves_the_line(log: Broker) -> None:
    """Its room goes to the next; cancelling a wait for the acknowledgement disturbs nobody either."""
    settings = ProducerSettings(buffer_bytes_max=1_000, group_linger_ms=50, record_bytes_max=900)
    async with AsyncProducer(log.bootstrap, settings) as producer:
        tasks = [asyncio.create_task(producer.publish("view", "item_1", "user_1")) for _ in range(20)]
        await asyncio.sleep(0.005)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), ACK_S)
        assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
        assert all(isinstance(result, Position) for result in results[1::2])
        await producer.flush(ACK_S)
        assert producer.stats().buffered_bytes == 0


async def test_close_flushes_and_sends_waiting_tasks_away(log: Broker) -> None:
    """Nothing can be published after."""
    producer = AsyncProducer(log.bootstrap, ProducerSettings(group_linger_ms=60_000))
    tasks = [asyncio.create_task(producer.publish("view", "item_1", "user_1")) for _ in range(10)]
    await asyncio.sleep(0)
    await producer.close()
    assert len({task.result() for task in tasks}) == 1
    with pytest.raises(ProducerClosedError):
        await producer.publish("view", "item_1")


async def test_close_without_a_log_fails_what_is_left(log: Broker) -> None:
    """And does not block the loop meanwhile."""
    producer = AsyncProducer(log.bootstrap, PROMPT)
    await producer.publish("view", "item_1", "user_1")
    log.kill()
    future = await producer.enqueue("view", "item_1", "user_1")
    with pytest.raises(DeliveryError, match="away or slow"):
        await producer.close(0.3)
    with pytest.raises(DeliveryError, match="closed before"):
        await future
