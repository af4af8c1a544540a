"""Consumer groups: three who share, leave and return, by each assignor, static ones too; offsets and lag."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec
from kafka import KafkaConsumer

from tests.brokers import Broker
from tests.conformance.clients import WAIT_S, admin, consumer, send, until


def poll(members: Sequence[Consumer]) -> None:
    for member in members:
        member.poll(0.02)


def owned(members: Sequence[Consumer]) -> list[int]:
    """The partitions of all, each as often as it is owned."""
    return sorted(place.partition for member in members for place in member.assignment())


def shared(members: Sequence[Consumer]) -> bool:
    """Everybody owns something, and each of four partitions has one owner."""
    return owned(members) == [0, 1, 2, 3] and all(member.assignment() for member in members)


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_three_share_leave_and_return(log: Broker, topic: str, strategy: str) -> None:
    def join() -> Consumer:
        member = consumer(log, f"group-{topic}", **{"partition.assignment.strategy": strategy})
        member.subscribe([topic])
        return member

    members = [join() for _ in range(3)]
    until(lambda: shared(members), lambda: poll(members))
    members.pop(0).close()
    until(lambda: shared(members), lambda: poll(members))
    members.append(join())
    until(lambda: shared(members), lambda: poll(members))
    for member in members:
        member.close()


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_a_static_member_returns_to_its_partitions_and_nobody_else_is_disturbed(
    log: Broker, topic: str, strategy: str
) -> None:
    revoked: list[str] = []

    def join(name: str) -> Consumer:
        config = {"group.instance.id": name, "partition.assignment.strategy": strategy}
        member = consumer(log, f"group-{topic}", **{**config, "session.timeout.ms": 30_000})
        member.subscribe([topic], on_revoke=lambda *_: revoked.append(name))
        return member

    stays, goes = join("a"), join("b")
    until(lambda: shared([stays, goes]), lambda: poll([stays, goes]))
    had = owned([goes])
    revoked.clear()
    goes.close()
    returned = join("b")
    until(lambda: shared([stays, returned]), lambda: poll([stays, returned]))
    assert owned([returned]) == had
    assert "a" not in revoked
    stays.close()
    returned.close()


def test_a_second_owner_of_an_instance_id_fences_the_first(log: Broker, topic: str) -> None:
    def join() -> Consumer:
        member = consumer(log, f"group-{topic}", **{"group.instance.id": "only"})
        member.subscribe([topic])
        return member

    first = join()
    until(lambda: owned([first]) == [0, 1, 2, 3], lambda: poll([first]))
    second = join()
    told: list[KafkaError] = []

    def step() -> None:
        poll([second])
        message = first.poll(0.02)
        if message is not None and (error := message.error()) is not None:
            told.append(error)

    until(lambda: bool(told) and owned([second]) == [0, 1, 2, 3], step)
    assert told[0].code() == KafkaError._FATAL
    assert "fenced" in told[0].str()
    second.close()
    first.close()


async def test_three_of_aiokafka(log: Broker, topic: str) -> None:
    readers = [
        AIOKafkaConsumer(
            topic, bootstrap_servers=log.bootstrap, group_id=f"aio-{topic}", auto_offset_reset="earliest",
            heartbeat_interval_ms=200, enable_auto_commit=False,
        )
        for _ in range(3)
    ]  # fmt: skip
    send(log, topic, *(b"%d" % number for number in range(50)))
    await asyncio.gather(*(reader.start() for reader in readers))
    found: list[bytes | None] = []
    deadline = time.monotonic() + WAIT_S
    while len(set(found)) < 50 or not all_share(readers):
        assert time.monotonic() < deadline
        for reader in readers:
            for messages in (await reader.getmany(timeout_ms=20)).values():
                found += [message.value for message in messages]
    for reader in readers:
        await reader.stop()
    assert set(found) == {b"%d" % number for number in range(50)}


def all_share(readers: Sequence[AIOKafkaConsumer]) -> bool:
    partitions = sorted(place.partition for reader in readers for place in reader.assignment())
    return partitions == [0, 1, 2, 3] and all(reader.assignment() for reader in readers)


def test_kafka_python_reads_in_a_group_and_goes_on(log: Broker, topic: str) -> None:
    send(log, topic, *(b"%d" % number for number in range(20)))
    for start in (0, 10):
        reader = KafkaConsumer(
            topic, bootstrap_servers=log.bootstrap, group_id=f"python-{topic}", auto_offset_reset="earliest",
            max_poll_records=10, enable_auto_commit=False,
        )  # fmt: skip
        values: list[bytes] = []

        def step(reader: KafkaConsumer = reader, values: list[bytes] = values) -> None:
            values.extend(m.value for batch in reader.poll(100).values() for m in batch)

        until(lambda v=values: len(v) >= 10, step)
        reader.commit()
        reader.close()
        assert values == [b"%d" % (start + number) for number in range(10)]


def test_committed_offsets_are_resumed_and_the_rest_is_lag(log: Broker, topic: str) -> None:
    send(log, topic, *(b"%d" % number for number in range(20)))
    group = f"resume-{topic}"
    for start in (0, 10):
        reader = consumer(log, group)
        reader.subscribe([topic])
        values: list[bytes | None] = []

        def step(reader: Consumer = reader, values: list[bytes | None] = values) -> None:
            values.extend(message.value() for message in reader.consume(1, 0.1))

        until(lambda v=values: len(v) >= 10, step)
        assert values[:10] == [b"%d" % (start + number) for number in range(10)]
        reader.commit(offsets=[TopicPartition(topic, 0, start + 10, "a note")], asynchronous=False)
        assert lag(log, group, topic) == 10 - start
        reader.close()


def lag(log: Broker, group: str, topic: str) -> int:
    """What a group has not read of partition 0."""
    place = TopicPartition(topic, 0)
    asked = ConsumerGroupTopicPartitions(group, [place])
    committed = admin(log).list_consumer_group_offsets([asked])[group].result(WAIT_S).topic_partitions[0]
    assert committed.metadata == "a note"
    ends = admin(log).list_offsets({place: OffsetSpec.latest()})
    return int(ends[place].result(WAIT_S).offset - committed.offset)


def test_a_commit_of_a_stranger_is_refused(log: Broker, topic: str) -> None:
    member = consumer(log, f"owned-{topic}")
    member.subscribe([topic])
    until(lambda: bool(member.assignment()), lambda: poll([member]))
    stranger = consumer(log, f"owned-{topic}")
    with pytest.raises(KafkaException) as caught:
        stranger.commit(offsets=[TopicPartition(topic, 0, 5)], asynchronous=False)
    assert caught.value.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID
    member.close()
    stranger.close()


def test_a_session_that_is_too_short_is_refused(log: Broker, topic: str) -> None:
    member = consumer(log, topic, **{"session.timeout.ms": 100, "heartbeat.interval.ms": 50})
    member.subscribe([topic])
    errors: list[KafkaError] = []

    def step() -> None:
        message = member.poll(0.1)
        if message is not None and (error := message.error()) is not None:
            errors.append(error)

    until(lambda: bool(errors), step)
    member.close()
    assert errors[0].code() == KafkaError.INVALID_SESSION_TIMEOUT


@pytest.mark.slow
def test_a_silent_member_loses_its_partitions(log: Broker, topic: str) -> None:
    """It is stopped in the middle: no heartbeat, no leave."""
    group = f"silent-{topic}"
    silent = consumer(log, group, **{"session.timeout.ms": 2_000, "max.poll.interval.ms": 2_000})
    silent.subscribe([topic])
    until(lambda: owned([silent]) == [0, 1, 2, 3], lambda: poll([silent]))
    other = consumer(log, group)
    other.subscribe([topic])
    until(lambda: owned([other]) == [0, 1, 2, 3], lambda: poll([other]))
    other.close()
    silent.close()
