"""The whole log as plain records, read without a group."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from tests.oracle import LogRecord

READ_TIMEOUT_S = 60.0


def read_topics(bootstrap: str, topics: list[str], *, committed: bool = True) -> list[LogRecord]:
    """Every record of the topics, up to their ends at the time of the call."""
    return list(_records(bootstrap, topics, committed))


def _records(bootstrap: str, topics: list[str], committed: bool) -> Iterator[LogRecord]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "proof-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "log_level": 2,
        }
    )
    try:
        metadata = consumer.list_topics(timeout=15).topics
        open_ends = {(topic, number) for topic in topics for number in metadata[topic].partitions}
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for topic, number in open_ends])
        deadline_s = time.monotonic() + READ_TIMEOUT_S
        while open_ends:
            assert time.monotonic() < deadline_s, f"the log was not read to its ends; missing {open_ends}"
            for message in consumer.consume(10_000, 0.1):
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    open_ends.discard((message.topic(), message.partition()))
                    continue
                yield LogRecord(
                    message.topic(),
                    message.partition(),
                    message.offset(),
                    message.timestamp()[1],
                    message.key(),
                    message.value(),
                    dict(message.headers() or []),
                )
    finally:
        consumer.close()
