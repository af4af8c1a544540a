"""Records in and out: three Python clients and kcat, with each codec, each reading what the others wrote."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from typing import NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as AioPartition
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as PythonPartition

from tests.brokers import Broker
from tests.conformance.clients import (
    CODECS,
    WAIT_S,
    admin,
    consumer,
    create,
    producer,
    read,
    read_to_end,
    send,
    until,
)

TIME_MS = 1_700_000_000_123


class Sent(NamedTuple):
    """One record as a stranger sees it."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


# A key and a value, a tombstone, a null key, and what is empty but not null; enough to be worth packing.
RECORDS = [
    Sent(b"key", b"value " * 100, (("trace", b"1"), ("trace", b"2"))),
    Sent(b"key", None),
    Sent(None, b"no key"),
    Sent(b"", b""),
    *(Sent(b"%d" % number, b"value %d " % number * 20) for number in range(60)),
]


def codec_name(codec: str) -> str | None:
    """As aiokafka and kafka-python name it."""
    return None if codec == "none" else codec


def produce_confluent(log: Broker, topic: str, codec: str) -> None:
    sender = producer(log, **{"compression.type": codec, "linger.ms": 20})
    for key, value, headers in RECORDS:
        sender.produce(topic, value, key, 0, timestamp=TIME_MS, headers=list(headers))
    assert sender.flush(WAIT_S) == 0


async def produce_aiokafka(log: Broker, topic: str, codec: str) -> None:
    sender = AIOKafkaProducer(
        bootstrap_servers=log.bootstrap, enable_idempotence=True, compression_type=codec_name(codec)
    )
    await sender.start()
    sending = [
        await sender.send(topic, value, key, 1, timestamp_ms=TIME_MS, headers=list(headers))
        for key, value, headers in RECORDS
    ]
    await asyncio.gather(*sending)
    await sender.stop()


def produce_kafka_python(log: Broker, topic: str, codec: str) -> None:
    sender = KafkaProducer(bootstrap_servers=log.bootstrap, compression_type=codec_name(codec), linger_ms=20)
    sending = [sender.send(topic, value, key, list(headers), 2, TIME_MS) for key, value, headers in RECORDS]
    for future in sending:
        future.get(WAIT_S)
    sender.close()


def consume_confluent(log: Broker, topic: str, partition: int) -> list[Sent]:
    reader = consumer(log, "confluent", **{"check.crcs": True})
    reader.assign([TopicPartition(topic, partition, 0)])
    found: list[Message] = []
    until(lambda: len(found) >= len(RECORDS), lambda: found.extend(reader.consume(len(RECORDS), 0.1)))
    reader.close()
    assert [message.offset() for message in found] == list(range(len(RECORDS)))
    assert {message.timestamp()[1] for message in found} == {TIME_MS}
    return [Sent(m.key(), m.value(), tuple(m.headers() or ())) for m in found]


async def consume_aiokafka(log: Broker, topic: str, partition: int) -> list[Sent]:
    reader = AIOKafkaConsumer(bootstrap_servers=log.bootstrap, check_crcs=True)
    await reader.start()
    place = AioPartition(topic, partition)
    reader.assign([place])
    await reader.seek_to_beginning(place)
    found: list[Sent] = []
    deadline = time.monotonic() + WAIT_S
    while len(found) < len(RECORDS):
        assert time.monotonic() < deadline
        for message in (await reader.getmany(timeout_ms=100)).get(place, []):
            assert message.timestamp == TIME_MS
            found.append(Sent(message.key, message.value, tuple(message.headers)))
    await reader.stop()
    return found


def consume_kafka_python(log: Broker, topic: str, partition: int) -> list[Sent]:
    reader = KafkaConsumer(bootstrap_servers=log.bootstrap, check_crcs=True)
    place = PythonPartition(topic, partition)
    reader.assign([place])
    reader.seek_to_beginning(place)
    found: list[Sent] = []

    def step() -> None:
        for message in reader.poll(100).get(place, []):
            found.append(Sent(message.key, message.value, tuple(message.headers)))

    until(lambda: len(found) >= len(RECORDS), step)
    reader.close()
    return found


@pytest.mark.parametrize("codec", CODECS)
async def test_each_python_client_reads_what_each_wrote(log: Broker, topic: str, codec: str) -> None:
    await asyncio.gather(
        asyncio.to_thread(produce_confluent, log, topic, codec),
        produce_aiokafka(log, topic, codec),
        asyncio.to_thread(produce_kafka_python, log, topic, codec),
    )
    found = await asyncio.gather(
        *(asyncio.to_thread(consume_confluent, log, topic, partition) for partition in range(3)),
        *(asyncio.to_thread(consume_kafka_python, log, topic, partition) for partition in range(3)),
        *(consume_aiokafka(log, topic, partition) for partition in range(3)),
    )
    for records in found:
        assert records == RECORDS


# -- kcat --------------------------------------------------------------------------------------------


def kcat(log: Broker, *arguments: str, given: bytes = b"") -> bytes:
    """What kcat says."""
    binary = shutil.which("kcat") or shutil.which("kafkacat")
    if binary is None:
        pytest.skip("no kcat on the PATH (a package of its own: apt-get install kcat)")
    command = [binary, "-b", log.bootstrap, *arguments]
    ended = subprocess.run(command, input=given, capture_output=True, timeout=WAIT_S, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout


def length(field: bytes | None) -> int:
    """As kcat tells it."""
    return -1 if field is None else len(field)


@pytest.mark.parametrize(
    "codec", [codec if codec == "zstd" else pytest.param(codec, marks=pytest.mark.slow) for codec in CODECS]
)
def test_kcat_and_a_python_client_read_each_other(log: Broker, topic: str, codec: str) -> None:
    lines = [b"k%d=%s" % (number, b"value " * 30) for number in range(40)]
    kcat(
        log, "-X", "enable.idempotence=true", "-P", "-t", topic, "-p", "3",
        "-K=", "-z", codec, "-H", "trace=1",
        given=b"\n".join([*lines, b"gone="]),
    )  # fmt: skip
    found = read(log, topic, 41)
    assert [(m.key() or b"") + b"=" + (m.value() or b"") for m in found] == [*lines, b"gone="]
    assert {tuple(m.headers()) for m in found} == {(("trace", b"1"),)}
    produce_confluent(log, topic, codec)
    told = kcat(log, "-C", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q", "-f", r"%o %K %S %T\n")
    expected = [
        f"{offset} {length(record.key)} {length(record.value)} {TIME_MS}"
        for offset, record in enumerate(RECORDS)
    ]
    assert told.decode().splitlines() == expected


def test_kcat_looks_up_times_lists_topics_and_joins_a_group(log: Broker, topic: str) -> None:
    produce_confluent(log, topic, "none")
    assert kcat(log, "-Q", "-t", f"{topic}:0:{TIME_MS}").decode().split() == [topic, "[0]", "offset", "0"]
    assert f'topic "{topic}" with 4 partitions'.encode() in kcat(log, "-L", "-t", topic)
    told = kcat(log, "-G", f"kcat-{topic}", "-o", "beginning", "-e", "-q", "-f", r"%o\n", topic)
    assert told.decode().split() == [str(offset) for offset in range(len(RECORDS))]


# -- places in a topic -------------------------------------------------------------------------------


def test_an_empty_topic_has_an_end_and_no_record(log: Broker, topic: str) -> None:
    assert read_to_end(log, topic, 3) == []
    reader = consumer(log, "empty")
    assert reader.get_watermark_offsets(TopicPartition(topic, 3), WAIT_S) == (0, 0)
    assert reader.offsets_for_times([TopicPartition(topic, 3, 1)], WAIT_S)[0].offset == -1
    reader.close()


def test_watermarks_and_a_start_by_time(log: Broker, topic: str) -> None:
    sender = producer(log)
    for number in range(10):
        sender.produce(topic, value=b"%d" % number, partition=0, timestamp=TIME_MS + number)
    sender.flush(WAIT_S)
    reader = consumer(log, "times")
    assert reader.get_watermark_offsets(TopicPartition(topic, 0), WAIT_S) == (0, 10)

    def offset_at(time_ms: int) -> TopicPartition:
        return reader.offsets_for_times([TopicPartition(topic, 0, time_ms)], WAIT_S)[0]

    assert offset_at(0).offset == 0
    assert offset_at(TIME_MS + 10).offset == -1
    start = offset_at(TIME_MS + 4)
    assert start.offset == 4
    reader.assign([start])
    found: list[Message] = []
    until(lambda: len(found) >= 6, lambda: found.extend(reader.consume(6, 0.1)))
    reader.close()
    assert [message.value() for message in found] == [b"%d" % number for number in range(4, 10)]


def test_an_offset_out_of_range_is_reset_or_told(log: Broker, topic: str) -> None:
    send(log, topic, b"0", b"1")

    def first(reset: str) -> Message:
        reader: Consumer = consumer(log, "range", **{"auto.offset.reset": reset})
        reader.assign([TopicPartition(topic, 0, 99)])
        found: list[Message] = []
        until(lambda: bool(found), lambda: found.extend(reader.consume(1, 0.1)))
        reader.close()
        return found[0]

    assert first("earliest").value() == b"0"
    error = first("error").error()
    assert error is not None
    assert error.code() == KafkaError._AUTO_OFFSET_RESET


def test_a_missing_topic_is_an_error_and_not_made(log: Broker) -> None:
    sender = producer(log, **{"message.timeout.ms": 1_000, "enable.idempotence": False})
    errors: list[KafkaError] = []
    sender.produce("no-such-topic", value=b"v", on_delivery=lambda error, _: errors.append(error))
    sender.flush(WAIT_S)
    assert errors[0].code() in (KafkaError._UNKNOWN_TOPIC, KafkaError._MSG_TIMED_OUT)
    assert "no-such-topic" not in admin(log).list_topics(timeout=WAIT_S).topics


@pytest.mark.parametrize("codec", CODECS)
def test_a_compacted_topic_takes_no_record_without_key(log: Broker, codec: str) -> None:
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
