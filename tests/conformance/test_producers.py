"""Idempotent and transactional producers: what is acknowledged, what is seen, who is fenced."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import ProducerFenced
from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.brokers import Broker
from tests.conformance.clients import WAIT_S, consumer, producer, read_to_end, send, transactional, until

UNCOMMITTED = {"isolation.level": "read_uncommitted"}


def member_of(log: Broker, topic: str) -> Consumer:
    """The only member of a group, with all partitions."""
    member = consumer(log, f"group-{topic}")
    member.subscribe([topic])
    until(lambda: bool(member.assignment()), lambda: member.poll(0.05))
    return member


def test_an_idempotent_producer_keeps_order_over_many_batches(log: Broker, topic: str) -> None:
    acknowledged: list[int] = []
    sender = producer(log, **{"batch.num.messages": 7, "linger.ms": 0})
    for number in range(500):
        sender.produce(
            topic, b"%d" % number, partition=0, on_delivery=lambda _, m: acknowledged.append(m.offset())
        )
    assert sender.flush(WAIT_S) == 0
    assert acknowledged == list(range(500))
    assert read_to_end(log, topic) == [b"%d" % number for number in range(500)]


def test_only_committed_records_are_seen_by_read_committed(log: Broker, topic: str) -> None:
    sender = transactional(log, topic)
    for number, ends in enumerate([sender.commit_transaction, sender.abort_transaction] * 2):
        sender.begin_transaction()
        for partition in range(2):
            sender.produce(topic, value=b"%d" % number, partition=partition)
        sender.flush(WAIT_S)
        ends(WAIT_S)
    for partition in range(2):
        assert read_to_end(log, topic, partition) == [b"0", b"2"]
        assert read_to_end(log, topic, partition, **UNCOMMITTED) == [b"0", b"1", b"2", b"3"]


def test_markers_take_an_offset_each(log: Broker, topic: str) -> None:
    sender = transactional(log, topic)
    for ends in (sender.commit_transaction, sender.abort_transaction):
        sender.begin_transaction()
        sender.produce(topic, value=b"v", partition=0)
        sender.flush(WAIT_S)
        ends(WAIT_S)
    reader = consumer(log, "ends")
    assert reader.get_watermark_offsets(TopicPartition(topic, 0), WAIT_S) == (0, 4)
    reader.close()


def test_an_open_transaction_hides_what_follows(log: Broker, topic: str) -> None:
    sender = transactional(log, topic)
    sender.begin_transaction()
    sender.produce(topic, value=b"mine", partition=0)
    sender.flush(WAIT_S)
    send(log, topic, b"other")
    assert read_to_end(log, topic) == []
    assert read_to_end(log, topic, **UNCOMMITTED) == [b"mine", b"other"]
    sender.commit_transaction(WAIT_S)
    assert read_to_end(log, topic) == [b"mine", b"other"]


def test_a_zombie_is_fenced(log: Broker, topic: str) -> None:
    zombie = transactional(log, topic)
    zombie.begin_transaction()
    zombie.produce(topic, value=b"zombie", partition=0)
    zombie.flush(WAIT_S)
    owner = transactional(log, topic)
    owner.begin_transaction()
    owner.produce(topic, value=b"owner", partition=0)
    owner.commit_transaction(WAIT_S)
    zombie.produce(topic, value=b"zombie again", partition=0)
    with pytest.raises(KafkaException) as caught:
        zombie.commit_transaction(WAIT_S)
    assert caught.value.args[0].fatal()
    assert read_to_end(log, topic) == [b"owner"]


def test_an_idle_zombie_is_fenced_at_its_next_transaction(log: Broker, topic: str) -> None:
    zombie = transactional(log, topic)
    owner = transactional(log, topic)
    zombie.begin_transaction()
    zombie.produce(topic, value=b"zombie", partition=0)
    with pytest.raises(KafkaException) as caught:
        zombie.commit_transaction(WAIT_S)
    assert caught.value.args[0].fatal()
    owner.begin_transaction()
    owner.produce(topic, value=b"owner", partition=0)
    owner.commit_transaction(WAIT_S)
    assert read_to_end(log, topic) == [b"owner"]


def test_a_transaction_times_out(log: Broker, topic: str) -> None:
    sender = transactional(log, topic, **{"transaction.timeout.ms": 1_000})
    sender.begin_transaction()
    sender.produce(topic, value=b"late", partition=0)
    sender.flush(WAIT_S)
    send(log, topic, b"other")
    seen: list[bytes | None] = []
    until(lambda: bool(seen), lambda: seen.extend(read_to_end(log, topic)))
    assert seen == [b"other"]
    with pytest.raises(KafkaException):
        sender.commit_transaction(WAIT_S)


def test_offsets_are_committed_with_their_transaction(log: Broker, topic: str) -> None:
    source = member_of(log, topic)
    sender = transactional(log, topic)
    for offset, ends, committed in ((3, sender.abort_transaction, -1001), (5, sender.commit_transaction, 5)):
        sender.begin_transaction()
        sender.send_offsets_to_transaction(
            [TopicPartition(topic, 0, offset)], source.consumer_group_metadata(), WAIT_S
        )
        ends(WAIT_S)
        assert source.committed([TopicPartition(topic, 0)], WAIT_S)[0].offset == committed
    source.close()


async def test_aiokafka_transactions_and_their_fence(log: Broker, topic: str) -> None:
    sender = AIOKafkaProducer(bootstrap_servers=log.bootstrap, transactional_id=topic)
    await sender.start()
    async with sender.transaction():
        await sender.send_and_wait(topic, b"committed", partition=0)
    await sender.begin_transaction()
    await sender.send_and_wait(topic, b"aborted", partition=0)
    await sender.abort_transaction()
    owner = AIOKafkaProducer(bootstrap_servers=log.bootstrap, transactional_id=topic)
    await owner.start()
    with pytest.raises(ProducerFenced):
        async with sender.transaction():
            await sender.send_and_wait(topic, b"zombie", partition=0)
    async with owner.transaction():
        await owner.send_and_wait(topic, b"last", partition=0)
    await owner.stop()
    await sender.stop()
    reader = AIOKafkaConsumer(
        topic, bootstrap_servers=log.bootstrap, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    await reader.start()
    values = [(await asyncio.wait_for(reader.getone(), WAIT_S)).value for _ in range(2)]
    await reader.stop()
    assert values == [b"committed", b"last"]
