"""Reads a partition's changelogs: the last checkpoint's ownership record, or every row in bulk.

Only after the former owner was fenced: then no transaction is open and the end of the log stands still.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, cast

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from materializers.tables.changelog import (
    OWNERSHIP_RECORD_KEY,
    OWNERSHIP_SCOPE,
    ChangelogTopics,
    split_changelog_key,
)
from materializers.tables.database import Database
from materializers.tables.errors import AcquisitionStoppedError
from materializers.tables.layout import table_code
from materializers.tables.meta import META_TABLE, Ownership, decode_ownership
from streams.broker_security import broker_options

logger = logging.getLogger(__name__)

_CONSUME_MAX: Final = 20_000
# consume() waits its whole timeout for a batch to fill.
_CONSUME_WAIT_S: Final = 0.05
_TIMEOUT_S: Final = 2.0
# The ownership record is the last but the commit marker, unless transactions were aborted behind it.
_TAIL_FIRST: Final = 16
_TAIL_GROWTH: Final = 32
_LOG_EVERY_S: Final = 2.0
_META_CODE: Final = table_code(META_TABLE)

StillWanted = Callable[[], bool]


class RestoreProgress(msgspec.Struct, kw_only=True):
    """How far a bulk restore is; read by ``status`` while it runs.

    ``offsets_total`` counts offsets, of which compaction and markers leave fewer rows.
    """

    partition: int
    offsets_total: int = 0
    offsets_read: int = 0
    rows: int = 0
    started_s: float = 0.0
    ended_s: float | None = None

    def rows_per_s(self) -> float:
        elapsed = (self.ended_s or time.monotonic()) - self.started_s
        return self.rows / elapsed if elapsed > 0 else 0.0

    def remaining_s(self) -> float | None:
        """Estimate, None while nothing is known."""
        elapsed = (self.ended_s or time.monotonic()) - self.started_s
        if not self.offsets_read or not elapsed:
            return None
        return (self.offsets_total - self.offsets_read) * elapsed / self.offsets_read


def read_ownership(topics: ChangelogTopics, partition: int, wanted: StillWanted) -> Ownership | None:
    """The ownership record of the last committed checkpoint, None if there was none. Blocks.

    Raises:
        AcquisitionStoppedError: ``wanted`` said no meanwhile.
    """
    topic = topics.by_scope[OWNERSHIP_SCOPE]
    with _consumer(topics) as consumer:
        low, high = _bounds(consumer, topic, partition, wanted)
        reach = _TAIL_FIRST
        while True:
            start = max(low, high - reach)
            last = None
            for message in _read(consumer, [TopicPartition(topic, partition, start)], wanted):
                if message.key() == OWNERSHIP_RECORD_KEY:
                    last = message.value()
            if last is not None or start <= low:
                return None if last is None else decode_ownership(last)
            reach *= _TAIL_GROWTH


def restore_partition(
    database: Database,
    topics: ChangelogTopics,
    partition: int,
    progress: RestoreProgress,
    wanted: StillWanted,
) -> None:
    """Replace the partition's rows by what its changelogs hold. Blocks; runs in a thread.

    Offsets and ownership are written last, so a restore that was cut short leaves a disk without them: the
    next acquire restores again.

    Raises:
        AcquisitionStoppedError: ``wanted`` said no meanwhile.
    """
    progress.started_s = time.monotonic()
    batch = database.batch()
    if partition in database.held_partitions():
        database.mark_wipe_due(batch)
    database.drop_partition(batch, partition)
    database.write(batch)
    with _consumer(topics) as consumer:
        places = []
        for topic in topics.by_scope.values():
            low, high = _bounds(consumer, topic, partition, wanted)
            progress.offsets_total += high - low
            places.append(TopicPartition(topic, partition, low))
        _write_rows(database, partition, _batches(consumer, places, wanted), progress)
    progress.ended_s = time.monotonic()
    logger.info(
        "partition %d: restored %d rows in %.2f s (%.0f rows/s)",
        partition,
        progress.rows,
        progress.ended_s - progress.started_s,
        progress.rows_per_s(),
    )


def _write_rows(
    database: Database, partition: int, batches: Iterator[list[Message]], progress: RestoreProgress
) -> None:
    logged_s = time.monotonic()
    meta: dict[bytes, bytes] = {}
    for messages in batches:
        batch = database.batch()
        database.put_changelog(batch, partition, _rows(messages, meta))
        database.write(batch)
        progress.rows += len(messages)
        progress.offsets_read += len(messages)
        if time.monotonic() - logged_s > _LOG_EVERY_S:
            logged_s = time.monotonic()
            logger.info(
                "partition %d: restoring, %d of about %d rows, %.0f rows/s",
                partition,
                progress.rows,
                progress.offsets_total,
                progress.rows_per_s(),
            )
    batch = database.batch()
    for key, value in meta.items():
        database.put(batch, META_TABLE, partition, key, value)
    database.write(batch)


def _rows(messages: Sequence[Message], meta: dict[bytes, bytes]) -> dict[bytes, bytes | None]:
    """The last value of each row of the views' tables; rows of ``meta`` are set aside and written at the end,
    all at once.
    """
    rows = {cast(bytes, message.key()): message.value() for message in messages}
    for key in [key for key in rows if key.startswith(_META_CODE)]:
        value = rows.pop(key)
        if value is not None:
            meta[split_changelog_key(key)[1]] = value
    return rows


@contextmanager
def _consumer(topics: ChangelogTopics) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            **broker_options(topics.brokers),
            "group.id": f"{topics.application}-restore",  # never joined: partitions are assigned by hand
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
            "queued.max.messages.kbytes": 32_768,
            "log_level": 2,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def _bounds(consumer: Consumer, topic: str, partition: int, wanted: StillWanted) -> tuple[int, int]:
    while wanted():
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_TIMEOUT_S)
        except KafkaException as error:
            if not error.args[0].retriable() and error.args[0].code() not in _SILENCE:
                raise
        else:
            return low, high
    raise AcquisitionStoppedError(f"partition {partition}: given up while its changelog was looked up")


_SILENCE: Final = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)


def _read(consumer: Consumer, places: Sequence[TopicPartition], wanted: StillWanted) -> Iterator[Message]:
    for messages in _batches(consumer, places, wanted):
        yield from messages


def _batches(
    consumer: Consumer, places: Sequence[TopicPartition], wanted: StillWanted
) -> Iterator[list[Message]]:
    """Records from each place to the present end of its partition."""
    consumer.assign(list(places))
    open_ends = {place.topic for place in places}
    while open_ends:
        if not wanted():
            raise AcquisitionStoppedError(f"partition {places[0].partition}: given up while it was read")
        rows = []
        for message in consumer.consume(_CONSUME_MAX, _CONSUME_WAIT_S):
            error = message.error()
            if error is None:
                rows.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                open_ends.discard(message.topic())
            elif error.fatal() or not (error.retriable() or error.code() in _SILENCE):
                raise KafkaException(error)
        if rows:
            yield rows
