"""The dead-letter topic: refused records with their origin and reason, written by the shards, read by people.

A dead letter keeps the refused bytes as its value and the original key; where it came from and why it was
refused are its headers (schemas/records/dead_letter.py). The shards write them in their checkpoint's
transaction, so a read_committed reader sees each exactly once.

Beside letters the topic holds *notes*: a record without a value, whose header names a letter that was sent
again (streams/redrive.py). They say what is open, for people; that a letter counts once does not need them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, cast

import msgspec
from confluent_kafka import Message

from schemas.records.dead_letter import DeadLetter, letter_headers, letter_of
from streams.errors import BrokerUnavailableError
from streams.partitioner import partition_for
from streams.topics import DEAD_LETTER
from streams.whole_topic import START_TIMEOUT_S, WholeTopicReader

FOREIGN = "not_a_dead_letter"
"""Counted for records of the topic that lack our headers: somebody else wrote them."""

NOTE_HEADER = "tidal-redriven"
NOTE_SENT_HEADER = "tidal-redriven-as"

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


class RedriveNote(NamedTuple):
    """A letter of the same partition that was sent again, and the record that it became."""

    partition: int
    letter_offset: int
    sent_as: str


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


def note_headers(letter_offset: int, sent_as: str) -> list[tuple[str, bytes]]:
    """The headers of the note that the letter at an offset was sent again."""
    return [(NOTE_HEADER, str(letter_offset).encode()), (NOTE_SENT_HEADER, sent_as.encode())]


def read_dead_letters(
    brokers: str, start_offsets: Mapping[int, int] | None = None, timeout_s: float = READ_TIMEOUT_S
) -> Iterator[StoredDeadLetter]:
    """Every dead letter up to the present end, partition by partition in order.

    Raises as `read_entries` does.
    """
    for entry in read_entries(brokers, start_offsets, timeout_s):
        if isinstance(entry, StoredDeadLetter):
            yield entry


def read_entries(
    brokers: str,
    start_offsets: Mapping[int, int] | None = None,
    timeout_s: float = READ_TIMEOUT_S,
    partitions: Collection[int] | None = None,
) -> Iterator[StoredDeadLetter | RedriveNote]:
    """Every dead letter and note up to the present end, of all `partitions`, each in order.

    Raises TopicError, OffsetError, BrokerUnavailableError (also when the log is silent for `timeout_s`).
    """
    deadline_s = time.monotonic() + timeout_s
    start_timeout_s = min(START_TIMEOUT_S, timeout_s)
    with WholeTopicReader(brokers, DEAD_LETTER, start_offsets, start_timeout_s, partitions) as reader:
        while not reader.caught_up:
            messages = reader.poll_messages(POLL_S)
            if messages:
                deadline_s = time.monotonic() + timeout_s
            elif time.monotonic() > deadline_s:
                raise BrokerUnavailableError(
                    f"{DEAD_LETTER} at {brokers}: nothing came for {timeout_s:g} s; check the log"
                )
            for message in messages:
                yield _entry(message)


def count_dead_letters(brokers: str, timeout_s: float = READ_TIMEOUT_S) -> DeadLetterCounts:
    """All dead letters that the topic still holds, counted by reason and by origin."""
    by_code: Counter[str] = Counter()
    by_topic: Counter[str] = Counter()
    for stored in read_dead_letters(brokers, timeout_s=timeout_s):
        by_code[stored.code] += 1
        if stored.letter is not None:
            by_topic[stored.letter.topic] += 1
    return DeadLetterCounts(total=by_code.total(), by_code=dict(by_code), by_topic=dict(by_topic))


def _entry(message: Message) -> StoredDeadLetter | RedriveNote:
    # A consumed message has a list of pairs; the dict of the type is for produced ones.
    headers = cast("list[tuple[str, bytes | None]] | None", message.headers())
    partition, offset = message.partition() or 0, message.offset() or 0
    texts = {name: (value or b"").decode(errors="replace") for name, value in headers or ()}
    if message.value() is None and texts.get(NOTE_HEADER, "").isdigit():
        return RedriveNote(partition, int(texts[NOTE_HEADER]), texts.get(NOTE_SENT_HEADER, ""))
    return StoredDeadLetter(
        partition=partition,
        offset=offset,
        timestamp_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value() or b"",
        letter=letter_of(headers),
    )
