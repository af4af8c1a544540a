"""Reads every partition of a topic, outside of any consumer group, from given offsets.

For compacted topics that a process must know whole (items, schema versions) and for changelogs: the reader
commits nothing, so any number of processes read the same records, each from where its own state is.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.broker_security import broker_options
from streams.errors import BrokerUnavailableError, OffsetError, StreamError, TopicError
from streams.records import LogRecord

logger = logging.getLogger(__name__)

Record = tuple[int, int, int, bytes | None, bytes | None]

START_TIMEOUT_S = 15.0
# Enough to amortise a call, few enough that a caller on an event loop's thread pool stays responsive.
RECORDS_AT_ONCE = 5000
LEADER_PAUSE_S = 0.05
_LEADER_COMING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


class WholeTopicReader:
    """All records of `topic`, from `start_offsets` (partition → next offset) or else from the beginning.

    read_committed: records of open or aborted transactions are not seen. One thread at a time may use it.
    Raises TopicError for a topic that does not exist, OffsetError for a start offset beyond the end of its
    partition (the log was replaced or lost its tail), BrokerUnavailableError.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        start_offsets: Mapping[int, int] | None = None,
        timeout_s: float = START_TIMEOUT_S,
        partitions: Collection[int] | None = None,
    ) -> None:
        """`partitions`: read only these; all without it."""
        self._brokers = brokers
        self._topic = topic
        self._chosen = partitions
        self._consumer = Consumer(_options(brokers))
        self._ends: dict[int, int] = {}
        try:
            self._next_offsets = self._starts(start_offsets or {}, timeout_s)
        except StreamError:
            self._consumer.close()
            raise
        # A partition leaves this set when its end, as it was at the start or as it is now, has been reached.
        self._behind = {p for p, offset in self._next_offsets.items() if offset < self._ends[p]}
        self._consumer.assign(
            [TopicPartition(topic, partition, offset) for partition, offset in self._next_offsets.items()]
        )

    @property
    def caught_up(self) -> bool:
        """Whether every partition has been read up to what was its end at that time; stays true."""
        return not self._behind

    @property
    def next_offsets(self) -> dict[int, int]:
        """By partition, the offset to continue at: what `start_offsets` takes."""
        return dict(self._next_offsets)

    def poll(self, timeout_s: float = 0.0, records_max: int = RECORDS_AT_ONCE) -> list[Record]:
        """New records as (partition, offset, timestamp in ms, key, value); waits `timeout_s` for a first one.

        The records of a partition come in order. An empty list says nothing about being caught up.
        Raises OffsetError when the log no longer has the next offset.
        """
        return [_record(message) for message in self.poll_messages(timeout_s, records_max)]

    def poll_messages(self, timeout_s: float = 0.0, records_max: int = RECORDS_AT_ONCE) -> list[Message]:
        """As `poll`, with headers."""
        # consume() would wait for the whole number of messages: wait for one, then take what is there.
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        found = [first, *self._consumer.consume(records_max - 1, 0)] if records_max > 1 else [first]
        messages = [message for message in found if not self._is_event(message)]
        for message in messages:
            partition, offset = _place(message)
            self._advance(partition, offset + 1)
        return messages

    def read_all(self, timeout_s: float) -> list[Record]:
        """Every record up to the end; raises BrokerUnavailableError if that takes longer than `timeout_s`."""
        records: list[Record] = []
        deadline_s = time.monotonic() + timeout_s
        while not self.caught_up:
            records += self.poll(0.1)
            if time.monotonic() > deadline_s:
                raise BrokerUnavailableError(
                    f"{self._topic} at {self._brokers}: partitions {sorted(self._behind)} not read to "
                    f"their end within {timeout_s:g} s"
                )
        return records

    def close(self) -> None:
        """Leave the log."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _starts(self, wanted: Mapping[int, int], timeout_s: float) -> dict[int, int]:
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                return self._ask_starts(wanted, timeout_s)
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                # A partition that has just been made or moved has no leader for a moment.
                if time.monotonic() < deadline_s and error.code() in _LEADER_COMING:
                    time.sleep(LEADER_PAUSE_S)
                    continue
                raise BrokerUnavailableError(
                    f"no answer from the log at {self._brokers}: {error.str()}; check that it runs"
                ) from exception

    def _ask_starts(self, wanted: Mapping[int, int], timeout_s: float) -> dict[int, int]:
        # Of the whole cluster: asking by name would create the topic where auto-create is on.
        topics = self._consumer.list_topics(timeout=timeout_s).topics
        if self._topic not in topics:
            raise TopicError(
                f"topic {self._topic} does not exist at {self._brokers}; run `tidal topics init`"
            )
        return {
            partition: self._start(partition, wanted.get(partition), timeout_s)
            for partition in sorted(topics[self._topic].partitions)
            if self._chosen is None or partition in self._chosen
        }

    def _start(self, partition: int, wanted: int | None, timeout_s: float) -> int:
        place = TopicPartition(self._topic, partition)
        low, high = self._consumer.get_watermark_offsets(place, timeout=timeout_s)
        if wanted is not None and wanted > high:
            raise OffsetError(
                f"{self._topic} partition {partition} ends at offset {high}, the reader is at {wanted}: the "
                "log was replaced or has lost its end; drop the reader's state and start from the beginning"
            )
        self._ends[partition] = high
        return int(low if wanted is None else max(low, wanted))

    def _advance(self, partition: int, next_offset: int) -> None:
        self._next_offsets[partition] = max(next_offset, self._next_offsets[partition])
        if self._next_offsets[partition] >= self._ends[partition]:
            self._behind.discard(partition)

    def _is_event(self, message: Message) -> bool:
        """True for what is no record: the end of a partition, or a passing fault that librdkafka retries."""
        error = message.error()
        if error is None:
            return False
        if error.code() == KafkaError._PARTITION_EOF:
            partition, end = _place(message)
            self._advance(partition, end)
            self._behind.discard(partition)
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise OffsetError(
                f"{self._topic} partition {message.partition()} no longer has offset "
                f"{self._next_offsets.get(message.partition() or 0)}: {error.str()}; start from the beginning"
            )
        elif error.fatal():
            raise StreamError(f"reading {self._topic} at {self._brokers} failed for good: {error.str()}")
        else:
            logger.warning("reading %s at %s: %s", self._topic, self._brokers, error.str())
        return True


def _record(message: Message) -> Record:
    partition, offset = _place(message)
    return partition, offset, message.timestamp()[1], message.key(), message.value()


def log_record(message: Message) -> LogRecord:
    """A message with everything that belongs to it."""
    partition, offset = _place(message)
    headers: Any = message.headers() or ()
    return LogRecord(
        str(message.topic()),
        partition,
        offset,
        message.timestamp()[1],
        message.key(),
        message.value(),
        tuple(headers),
    )


def _place(message: Message) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    assert partition is not None, "a message of the consumer has a partition"
    assert offset is not None, "a message of the consumer has an offset"
    return partition, offset


def _options(brokers: str) -> dict[str, Any]:
    return {
        **broker_options(brokers),
        # librdkafka asks for a group even of a reader that never joins one; this name is never used twice.
        "group.id": f"tidal-reader-{uuid.uuid4().hex}",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        "fetch.wait.max.ms": 100,
        # Faults reach us as messages with an error.
        "log_level": 2,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
        # One reader holds at most this much ahead of its caller, in KiB.
        "queued.max.messages.kbytes": 65_536,
    }
