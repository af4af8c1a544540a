"""Unchanged clients on the embedded log: confluent-kafka, aiokafka, kafka-python."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from kafka import KafkaConsumer, KafkaProducer

from tests.integration.embedded_process import LogProcess

WAIT_S = 20.0


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogProcess]:
    process = LogProcess(tmp_path_factory.mktemp("log"))
    process.start()
    yield process
    assert process.stop() == 0


@pytest.fixture
def topic(log: LogProcess, request: pytest.FixtureRequest) -> str:
    """A topic of four partitions, named after the test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    create(log, name, 4)
    return name


def admin(log: LogProcess) -> AdminClient:
    return _admin(log.address)


@lru_cache(maxsize=4)
def _admin(address: str) -> AdminClient:
    # Kept: its futures fail when the client is collected.
    return AdminClient({"bootstrap.servers": address})


def create(log: LogProcess, name: str, partitions: int, config: dict[str, str] | None = None) -> None:
    futures = admin(log).create_topics([NewTopic(name, partitions, 1, config=config or {})])
    futures[name].result(WAIT_S)


def producer(log: LogProcess, **config: object) -> Producer:
    return Producer({"bootstrap.servers": log.address, "linger.ms": 1, "enable.idempotence": True, **config})


def transactional(log: LogProcess, transactional_id: str, **config: object) -> Producer:
    made = producer(log, **{"transactional.id": transactional_id, **config})
    made.init_transactions(WAIT_S)
    return made


def consumer(log: LogProcess, group: str, **config: object) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": log.address,
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
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        step()


def read(log: LogProcess, topic: str, count: int, **config: object) -> list[Message]:
    """The first `count` records of a topic, over all its partitions."""
    reader = consumer(log, "reader", **config)
    partitions = reader.list_topics(topic, WAIT_S).topics[topic].partitions
    reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    found: list[Message] = []

    def step() -> None:
        for message in reader.consume(1_000, 0.2):
            assert message.error() is None, message.error()
            found.append(message)

    until(lambda: len(found) >= count, step)
    reader.close()
    return found


def read_to_end(log: LogProcess, topic: str, partition: int = 0, **config: object) -> list[bytes | None]:
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


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_confluent_kafka_with_every_codec(log: LogProcess, topic: str, codec: str) -> None:
    errors: list[object] = []
    sender = producer(log, **{"compression.type": codec})
    sent = {b"%d" % i: b"value-%d" % i * 10 for i in range(500)}
    for key, value in sent.items():
        sender.produce(
            topic, key=key, value=value, headers={"h": b"1"}, timestamp=1_700_000_000_123,
            on_delivery=lambda error, _: errors.append(error) if error else None,
        )  # fmt: skip
    assert sender.flush(WAIT_S) == 0
    assert errors == []
    found = read(log, topic, len(sent), **{"check.crcs": True})
    assert {m.key(): m.value() for m in found} == sent
    assert {m.timestamp()[1] for m in found} == {1_700_000_000_123}
    assert found[0].headers() == [("h", b"1")]


def test_tombstones_null_keys_and_empty_values(log: LogProcess, topic: str) -> None:
    sender = producer(log)
    for key, value in ((b"k", None), (None, b"v"), (b"", b"")):
        sender.produce(topic, key=key, value=value, partition=0)
    sender.flush(WAIT_S)
    assert [(m.key(), m.value()) for m in read(log, topic, 3)] == [(b"k", None), (None, b"v"), (b"", b"")]


def test_watermarks_and_lookup_by_time(log: LogProcess, topic: str) -> None:
    sender = producer(log)
    for number in range(10):
        sender.produce(topic, value=b"%d" % number, partition=0, timestamp=1_000 + number)
    sender.flush(WAIT_S)
    reader = consumer(log, "times")
    first = TopicPartition(topic, 0)
    assert reader.get_watermark_offsets(first, WAIT_S) == (0, 10)
    assert reader.offsets_for_times([TopicPartition(topic, 0, 1_004)], WAIT_S)[0].offset == 4
    assert reader.offsets_for_times([TopicPartition(topic, 0, 5_000)], WAIT_S)[0].offset == -1
    reader.close()


def test_a_missing_topic_is_an_error_and_not_made(log: LogProcess) -> None:
    sender = producer(log, **{"message.timeout.ms": 1_000, "enable.idempotence": False})
    errors: list[KafkaError] = []
    sender.produce("no-such-topic", value=b"v", on_delivery=lambda error, _: errors.append(error))
    sender.flush(WAIT_S)
    assert errors[0].code() in (KafkaError._UNKNOWN_TOPIC, KafkaError._MSG_TIMED_OUT)
    assert "no-such-topic" not in admin(log).list_topics(timeout=WAIT_S).topics


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_a_group_shares_partitions_and_takes_over(log: LogProcess, topic: str, strategy: str) -> None:
    members = [
        consumer(log, f"group-{topic}", **{"partition.assignment.strategy": strategy}) for _ in range(3)
    ]
    for member in members:
        member.subscribe([topic])

    def step(alive: list[Consumer]) -> None:
        for member in alive:
            member.poll(0.05)

    def owned(alive: list[Consumer]) -> list[int]:
        return sorted(p.partition for member in alive for p in member.assignment())

    until(
        lambda: owned(members) == [0, 1, 2, 3] and all(member.assignment() for member in members),
        lambda: step(members),
    )
    members[0].close()
    until(lambda: owned(members[1:]) == [0, 1, 2, 3], lambda: step(members[1:]))
    for member in members[1:]:
        member.close()


def test_committed_offsets_are_resumed(log: LogProcess, topic: str) -> None:
    sender = producer(log)
    for number in range(20):
        sender.produce(topic, value=b"%d" % number, partition=0)
    sender.flush(WAIT_S)
    for start in (0, 10):
        reader = consumer(log, f"resume-{topic}")
        reader.subscribe([topic])
        values: list[bytes | None] = []
        until(
            lambda v=values: len(v) >= 10,
            lambda r=reader, v=values: v.extend(m.value() for m in r.consume(1, 0.2)),
        )
        assert values[:10] == [b"%d" % (start + i) for i in range(10)]
        reader.commit(offsets=[TopicPartition(topic, 0, start + 10)], asynchronous=False)
        reader.close()


def test_a_commit_of_a_stranger_is_refused(log: LogProcess, topic: str) -> None:
    member = consumer(log, f"owned-{topic}")
    member.subscribe([topic])
    until(lambda: bool(member.assignment()), lambda: member.poll(0.05))
    stranger = consumer(log, f"owned-{topic}")
    with pytest.raises(KafkaException) as caught:
        stranger.commit(offsets=[TopicPartition(topic, 0, 5)], asynchronous=False)
    assert caught.value.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID
    member.close()
    stranger.close()


def test_administration(log: LogProcess, topic: str) -> None:
    client = admin(log)
    with pytest.raises(KafkaException) as caught:
        create(log, topic, 1)
    assert caught.value.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    with pytest.raises(KafkaException) as caught:
        create(log, "bad-config", 1, {"cleanup.policy": "shred"})
    assert caught.value.args[0].code() == KafkaError.INVALID_CONFIG

    client.create_partitions([NewPartitions(topic, 6)])[topic].result(WAIT_S)
    assert len(client.list_topics(topic, WAIT_S).topics[topic].partitions) == 6

    entry = ConfigEntry("retention.ms", "12345", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    next(iter(client.incremental_alter_configs([resource]).values())).result(WAIT_S)
    described = next(
        iter(client.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values())
    ).result(WAIT_S)
    assert described["retention.ms"].value == "12345"
    assert not described["retention.ms"].is_default
    assert described["cleanup.policy"].value == "delete"
    assert described["cleanup.policy"].is_default

    cluster = client.describe_cluster().result(WAIT_S)
    assert [f"{node.host}:{node.port}" for node in cluster.nodes] == [log.address]
    client.delete_topics([topic])[topic].result(WAIT_S)
    assert topic not in client.list_topics(timeout=WAIT_S).topics


def test_deleted_records_are_gone(log: LogProcess, topic: str) -> None:
    sender = producer(log)
    for number in range(10):
        sender.produce(topic, value=b"%d" % number, partition=0)
    sender.flush(WAIT_S)
    first = TopicPartition(topic, 0, 6)
    deleted = next(iter(admin(log).delete_records([first]).values())).result(WAIT_S)
    assert deleted.low_watermark == 6
    assert read_to_end(log, topic) == [b"6", b"7", b"8", b"9"]
    listed = next(iter(admin(log).list_offsets({TopicPartition(topic, 0): OffsetSpec.earliest()}).values()))
    assert listed.result(WAIT_S).offset == 6


def test_groups_are_described_and_deleted(log: LogProcess, topic: str) -> None:
    name = f"described-{topic}"
    member = consumer(log, name)
    member.subscribe([topic])
    until(lambda: bool(member.assignment()), lambda: member.poll(0.05))
    client = admin(log)
    described = client.describe_consumer_groups([name])[name].result(WAIT_S)
    assert described.state.name == "STABLE"
    assert len(described.members[0].assignment.topic_partitions) == 4
    assert name in {group.group_id for group in client.list_consumer_groups().result(WAIT_S).valid}
    with pytest.raises(KafkaException) as caught:
        client.delete_consumer_groups([name])[name].result(WAIT_S)
    assert caught.value.args[0].code() == KafkaError.NON_EMPTY_GROUP
    member.close()
    client.delete_consumer_groups([name])[name].result(WAIT_S)


# -- transactions ------------------------------------------------------------------------------------


def test_only_committed_records_are_seen_by_read_committed(log: LogProcess, topic: str) -> None:
    sender = transactional(log, topic)
    for number, ends in enumerate([sender.commit_transaction, sender.abort_transaction] * 2):
        sender.begin_transaction()
        for partition in range(2):
            sender.produce(topic, value=b"%d" % number, partition=partition)
        sender.flush(WAIT_S)
        ends(WAIT_S)
    for partition in range(2):
        assert read_to_end(log, topic, partition) == [b"0", b"2"]
        uncommitted = {"isolation.level": "read_uncommitted"}
        assert read_to_end(log, topic, partition, **uncommitted) == [b"0", b"1", b"2", b"3"]


def test_an_open_transaction_hides_what_follows(log: LogProcess, topic: str) -> None:
    sender = transactional(log, topic)
    sender.begin_transaction()
    sender.produce(topic, value=b"mine", partition=0)
    sender.flush(WAIT_S)
    other = producer(log)
    other.produce(topic, value=b"other", partition=0)
    other.flush(WAIT_S)
    assert read_to_end(log, topic) == []
    sender.commit_transaction(WAIT_S)
    assert read_to_end(log, topic) == [b"mine", b"other"]


def test_a_zombie_is_fenced(log: LogProcess, topic: str) -> None:
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


def test_an_idle_zombie_is_fenced_at_its_next_transaction(log: LogProcess, topic: str) -> None:
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


def test_a_transaction_times_out(log: LogProcess, topic: str) -> None:
    sender = transactional(log, topic, **{"transaction.timeout.ms": 1_000})
    sender.begin_transaction()
    sender.produce(topic, value=b"late", partition=0)
    sender.flush(WAIT_S)
    other = producer(log)
    other.produce(topic, value=b"other", partition=0)
    other.flush(WAIT_S)
    seen: list[bytes | None] = []
    until(lambda: bool(seen), lambda: seen.extend(read_to_end(log, topic)))
    assert seen == [b"other"]
    with pytest.raises(KafkaException):
        sender.commit_transaction(WAIT_S)


def test_offsets_are_committed_with_their_transaction(log: LogProcess, topic: str) -> None:
    source = consumer(log, f"exactly-once-{topic}")
    source.subscribe([topic])
    until(lambda: bool(source.assignment()), lambda: source.poll(0.05))
    sender = transactional(log, topic)
    first = [TopicPartition(topic, 0)]
    for offset, ends, committed in ((3, sender.abort_transaction, -1001), (5, sender.commit_transaction, 5)):
        sender.begin_transaction()
        sender.send_offsets_to_transaction(
            [TopicPartition(topic, 0, offset)], source.consumer_group_metadata(), WAIT_S
        )
        ends(WAIT_S)
        assert source.committed(first, WAIT_S)[0].offset == committed
    source.close()


# -- the other clients -------------------------------------------------------------------------------


async def test_aiokafka_produces_and_consumes_in_a_group(log: LogProcess, topic: str) -> None:
    sender = AIOKafkaProducer(bootstrap_servers=log.address, enable_idempotence=True, compression_type="lz4")
    await sender.start()
    await asyncio.gather(
        *(await_send for await_send in [sender.send_and_wait(topic, b"%d" % i) for i in range(50)])
    )
    await sender.stop()
    readers = []
    for _ in range(2):
        reader = AIOKafkaConsumer(
            topic, bootstrap_servers=log.address, group_id=f"aio-{topic}", auto_offset_reset="earliest",
            isolation_level="read_committed", heartbeat_interval_ms=200,
        )  # fmt: skip
        await reader.start()
        readers.append(reader)
    found: set[bytes] = set()
    deadline = time.monotonic() + WAIT_S
    while len(found) < 50 or not all(reader.assignment() for reader in readers):
        assert time.monotonic() < deadline
        for reader in readers:
            for messages in (await reader.getmany(timeout_ms=100)).values():
                found |= {message.value for message in messages}
    assert sorted(p.partition for reader in readers for p in reader.assignment()) == [0, 1, 2, 3]
    for reader in readers:
        await reader.commit()
        await reader.stop()
    assert found == {b"%d" % i for i in range(50)}


async def test_aiokafka_transactions(log: LogProcess, topic: str) -> None:
    sender = AIOKafkaProducer(bootstrap_servers=log.address, transactional_id=topic)
    await sender.start()
    async with sender.transaction():
        await sender.send_and_wait(topic, b"committed", partition=0)
    await sender.begin_transaction()
    await sender.send_and_wait(topic, b"aborted", partition=0)
    await sender.abort_transaction()
    async with sender.transaction():
        await sender.send_and_wait(topic, b"last", partition=0)
    await sender.stop()
    reader = AIOKafkaConsumer(
        topic, bootstrap_servers=log.address, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    await reader.start()
    values = [(await asyncio.wait_for(reader.getone(), WAIT_S)).value for _ in range(2)]
    await reader.stop()
    assert values == [b"committed", b"last"]


@pytest.mark.parametrize("codec", [None, "gzip"])
def test_kafka_python(log: LogProcess, topic: str, codec: str | None) -> None:
    sender = KafkaProducer(bootstrap_servers=log.address, compression_type=codec)
    for number in range(50):
        sender.send(topic, key=b"k", value=b"%d" % number)
    sender.flush(WAIT_S)
    sender.close()
    reader = KafkaConsumer(
        topic, bootstrap_servers=log.address, group_id=f"python-{topic}", auto_offset_reset="earliest"
    )
    values: list[bytes] = []
    until(
        lambda: len(values) >= 50,
        lambda: values.extend(m.value for batch in reader.poll(200).values() for m in batch),
    )
    reader.commit()
    reader.close()
    assert values == [b"%d" % i for i in range(50)]


def test_a_second_log_cannot_open_the_same_folder(log: LogProcess, tmp_path: Path) -> None:
    second = LogProcess(log.data_dir)
    with pytest.raises(RuntimeError, match="is in use by another log"):
        second.start()


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_a_compacted_topic_takes_no_record_without_key(log: LogProcess, codec: str) -> None:
    name = f"keys-{codec}"
    create(log, name, 1, {"cleanup.policy": "compact"})
    outcomes: list[tuple[bytes, int]] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        outcomes.append((message.value() or b"", error.code() if error is not None else 0))

    sender = producer(log, **{"compression.type": codec, "enable.idempotence": False})
    for key, value in ((b"k", b"1"), (None, b"2"), (b"k", b"3")):
        sender.produce(name, key=key, value=value * 200, on_delivery=delivered)
        sender.flush(WAIT_S)
    assert outcomes == [(b"1" * 200, 0), (b"2" * 200, KafkaError.INVALID_RECORD), (b"3" * 200, 0)]
    assert read_to_end(log, name) == [b"1" * 200, b"3" * 200]


def test_the_next_group_protocol_is_a_fatal_error(log: LogProcess, topic: str) -> None:
    member = Consumer({"bootstrap.servers": log.address, "group.id": "next", "group.protocol": "consumer"})
    member.subscribe([topic])
    errors: list[KafkaError] = []

    def poll() -> None:
        message = member.poll(0.1)
        if message is not None and (error := message.error()) is not None:
            errors.append(error)

    until(lambda: bool(errors), poll)
    member.close()
    assert errors[0].code() == KafkaError._FATAL
    assert "API version not supported" in errors[0].str()
