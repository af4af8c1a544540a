"""The dead-letter topic: refused records with their origin and reason, written by the shards, read by people.

A dead letter keeps the refused bytes as its value and the original key; where it came from and why it was
refused are its headers (schemas/records/dead_letter.py). The shards write them in their checkpoint's
transaction, so a read_committed reader sees each exactly once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple, cast

import msgspec
from confluent_kafka import Message

from schemas.errors import RecordError
from schemas.records.dead_letter import DeadLetter, letter_from_headers, letter_headers
from streams.errors import BrokerUnavailableError
from streams.partitioner import partition_for
from streams.topics import DEAD_LETTER
from streams.whole_topic import START_TIMEOUT_S, WholeTopicReader

FOREIGN = "not_a_dead_letter"
"""Counted for records of the topic that lack our headers: somebody else wrote them."""

READ_TIMEOUT_S = 60.0
POLL_S = 0.1


class DeadLetterMessage(NamedTuple):
    """What to produce for one refused record."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


class StoredDeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the dead-letter topic. `letter` is None when it lacks our headers."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    letter: DeadLetter | None

    @property
    def code(self) -> str:
        """The reason's code, to count by."""
        return FOREIGN if self.letter is None else self.letter.code


class DeadLetterCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many dead letters there are, by the reason's code and by the topic they came from."""

    total: int
    by_code: dict[str, int]
    by_topic: dict[str, int]


def dead_letter_message(
    letter: DeadLetter, key: bytes | None, raw: bytes, partitions: int
) -> DeadLetterMessage:
    """The message for refused bytes `raw` of a record with `key`, among `partitions` of the topic."""
    partition = letter.partition % partitions if key is None else partition_for(key, partitions)
    return DeadLetterMessage(DEAD_LETTER, partition, key, raw, letter_headers(letter))


def read_dead_letters(
    brokers: str, start_offsets: Mapping[int, int] | None = None, timeout_s: float = READ_TIMEOUT_S
) -> Iterator[StoredDeadLetter]:
    """Every dead letter up to the present end, partition by partition in order.

    Raises TopicError, OffsetError, BrokerUnavailableError (also when it takes longer than `timeout_s`).
    """
    deadline_s = time.monotonic() + timeout_s
    with WholeTopicReader(brokers, DEAD_LETTER, start_offsets, min(START_TIMEOUT_S, timeout_s)) as reader:
        while not reader.caught_up:
            for message in reader.poll_messages(POLL_S):
                yield StoredDeadLetter(
                    partition=message.partition() or 0,
                    offset=message.offset() or 0,
                    timestamp_ms=message.timestamp()[1],
                    key=message.key(),
                    value=message.value() or b"",
                    letter=_letter(message),
                )
            if time.monotonic() > deadline_s:
                raise BrokerUnavailableError(
                    f"{DEAD_LETTER} at {brokers} not read to its end within {timeout_s:g} s; "
                    "check the log, or read from later offsets"
                )


def count_dead_letters(brokers: str, timeout_s: float = READ_TIMEOUT_S) -> DeadLetterCounts:
    """All dead letters that the topic still holds, counted by reason and by origin."""
    by_code: Counter[str] = Counter()
    by_topic: Counter[str] = Counter()
    for stored in read_dead_letters(brokers, timeout_s=timeout_s):
        by_code[stored.code] += 1
        if stored.letter is not None:
            by_topic[stored.letter.topic] += 1
    return DeadLetterCounts(total=by_code.total(), by_code=dict(by_code), by_topic=dict(by_topic))


def _letter(message: Message) -> DeadLetter | None:
    # A consumed message has a list of pairs; the dict of the type is for produced ones.
    headers = cast("list[tuple[str, bytes | None]] | None", message.headers())
    try:
        return letter_from_headers(headers)
    except RecordError:
        return None
