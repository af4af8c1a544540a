"""Clients with the settings that a conformance test needs, and reading to the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.brokers import Broker

WAIT_S = 60.0
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def admin(log: Broker) -> AdminClient:
    """One for each log, kept: its futures fail when the client is collected."""
    return _admin(log.bootstrap)


@lru_cache(maxsize=4)
def _admin(address: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": address})


def create(log: Broker, name: str, partitions: int, config: dict[str, str] | None = None) -> None:
    """Makes a topic and waits until every partition has a leader. Records of long ago do not expire."""
    settings = {"retention.ms": "-1", **(config or {})}
    admin(log).create_topics([NewTopic(name, partitions, 1, config=settings)])[name].result(WAIT_S)
    until(lambda: _leaders(log, name) == partitions, lambda: time.sleep(0.02))


def _leaders(log: Broker, name: str) -> int:
    known = admin(log).list_topics(name, WAIT_S).topics[name].partitions
    return sum(partition.leader >= 0 for partition in known.values())


def producer(log: Broker, **config: object) -> Producer:
    """An idempotent one."""
    return Producer(
        {"bootstrap.servers": log.bootstrap, "linger.ms": 1, "enable.idempotence": True, **config}
    )


def transactional(log: Broker, transactional_id: str, **config: object) -> Producer:
    """The owner of a transactional id."""
    made = producer(log, **{"transactional.id": transactional_id, **config})
    made.init_transactions(WAIT_S)
    return made


def consumer(log: Broker, group: str, **config: object) -> Consumer:
    """It commits only when it is told to."""
    return Consumer(
        {
            "bootstrap.servers": log.bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6_000,
            "heartbeat.interval.ms": 200,
            "fetch.wait.max.ms": 20,
            **config,
        }
    )


def until(condition: Callable[[], bool], step: Callable[[], object]) -> None:
    """Repeats `step`; fails when the condition does not come true."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        step()


def send(log: Broker, topic: str, *values: bytes, partition: int = 0) -> None:
    """Plain records to one partition."""
    sender = producer(log)
    for value in values:
        sender.produce(topic, value=value, partition=partition)
    assert sender.flush(WAIT_S) == 0


def read(log: Broker, topic: str, count: int, **config: object) -> list[Message]:
    """The first `count` records of a topic, over all its partitions."""
    reader = consumer(log, "reader", **config)
    partitions = reader.list_topics(topic, WAIT_S).topics[topic].partitions
    reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    found: list[Message] = []

    def step() -> None:
        for message in reader.consume(count - len(found), 0.2):
            assert message.error() is None, message.error()
            found.append(message)

    until(lambda: len(found) >= count, step)
    reader.close()
    return found


def read_to_end(log: Broker, topic: str, partition: int = 0, **config: object) -> list[bytes | None]:
    """Values of one partition up to what the client takes for its end."""
    reader = consumer(log, "reader", **{"enable.partition.eof": True, **config})
    # The client looks for a leader that it does not know yet only every half second.
    reader.list_topics(topic, WAIT_S)
    reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
    values: list[bytes | None] = []
    ended: list[bool] = []

    def step() -> None:
        message = reader.poll(0.2)
        if message is None:
            return
        error = message.error()
        if error is None:
            values.append(message.value())
        else:
            assert error.code() == KafkaError._PARTITION_EOF, error
            ended.append(True)

    until(lambda: bool(ended), step)
    reader.close()
    return values
