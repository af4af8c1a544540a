"""Checkpoints: a partition's changed rows go to its changelog topics in one transaction.

The order of a checkpoint, each step only after the one before:

1. **flush**: rows, applied offsets and names of pending rows are in the worker's database, in one write
batch;
2. **attempt**: the new checkpoint's id is on the disk, so that a crash after step 4 can be told from one
before;
3. **begin**: dead letters and rows are produced, the ownership record (with the id as lineage) last;
4. **commit**: the transaction is committed; a former owner cannot get here, its producer is fenced;
5. **acknowledge**: the source offsets that the rows contain are released to Faust, if the partition is still
   the same object: after a rebalance it may have a successor;
6. **lineage**: id on the disk as confirmed, pending rows deleted.

This module does 3 and 4, in a thread; ``owner`` does the rest on the event loop. One producer writes all
three changelog topics of a partition and the dead-letter topic: one fence, one commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from threading import Event, Lock
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from materializers.materializer import Scope
from materializers.tables.database import Rows
from materializers.tables.errors import CheckpointAbortedError, PartitionLostError
from materializers.tables.layout import CODE_BYTES, table_code
from materializers.tables.meta import META_TABLE, OWNERSHIP_KEY, Ownership, encode
from materializers.tables.pending import Letter
from streams.broker_security import broker_options
from streams.topics import INTERNAL_MESSAGE_BYTES_MAX

OWNERSHIP_SCOPE: Final = Scope.USER
"""The changelog topic that carries the ownership record."""
# A retriable call is repeated in steps, so that a worker that has to stop is not held by a dead broker.
_STEP_S: Final = 1.0
_PRODUCE_CHUNK: Final = 1_000
# One round of rows is acknowledged before the next: ADR 0154. Rows on their way exist twice, in each
# partition's own producer: 3 MiB, and its own 200 bytes for each, 6 MB.
_ROUND_ROWS_MAX: Final = 30_000
_ROUND_BYTES_MAX: Final = 3 << 20
_REQUEST_BYTES_MAX: Final = 4 << 20  # of a partition's rows: a round and the largest part of the next
_KEY_BYTES: Final = 48  # of a key and its framing, rather too many
_QUEUE_ROWS_MAX: Final = 1 << 16
_QUEUE_KB_MAX: Final = 16 << 10
# Nothing is sent before a round is whole, unless it takes longer than this to hand over.
_LINGER_MS: Final = 1_000
# The broker aborts the transaction of a worker that has died and was never replaced.
_TRANSACTION_TIMEOUT_MS: Final = 60_000


class ChangelogTopics(msgspec.Struct, frozen=True, kw_only=True):
    """Where a worker's checkpoints go.

    Attributes:
        application: prefix of the transactional ids.
        by_scope: changelog topic of each shard.
        tables: shard of each table; every table that is not local must be in it.
        dead_letters: topic of refused records.
    """

    brokers: str
    application: str
    by_scope: Mapping[Scope, str]
    tables: Mapping[str, Scope]
    dead_letters: str

    def topic_of(self, table: str, key: bytes) -> str:
        if table == META_TABLE:
            return self.by_scope[OWNERSHIP_SCOPE if key == OWNERSHIP_KEY else Scope(key.decode())]
        return self.by_scope[self.tables[table]]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction carries. ``ownership.lineage`` is its id."""

    partition: int
    rows: Rows
    letters: Sequence[Letter]
    ownership: Ownership

    def row_count(self) -> int:
        return sum(map(len, self.rows.values())) + 1


def changelog_key(table: str, key: bytes) -> bytes:
    """``[code of the table u32 BE][row key]``; the partition is the topic's own."""
    return table_code(table) + key


def split_changelog_key(key: bytes) -> tuple[bytes, bytes]:
    """``(code of the table, row key)``."""
    return key[:CODE_BYTES], key[CODE_BYTES:]


OWNERSHIP_RECORD_KEY: Final = changelog_key(META_TABLE, OWNERSHIP_KEY)


class ChangelogWriter:
    """The one writer of a partition's changelog, until another worker makes its own."""

    def __init__(self, topics: ChangelogTopics, partition: int, stopping: Event) -> None:
        """Connects nothing yet; ``stopping`` ends retries."""
        self._topics = topics
        self._partition = partition
        self._stopping = stopping
        self._busy = Lock()  # a partition may be let go while a commit of it is on its way
        self._round_rows = self._round_bytes = 0
        self._prefixes = {table: table_code(table) for table in (*topics.tables, META_TABLE)}
        self._producer = Producer(
            {
                **broker_options(topics.brokers),
                "transactional.id": f"{topics.application}-{partition}",
                "transaction.timeout.ms": _TRANSACTION_TIMEOUT_MS,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": _LINGER_MS,
                "batch.num.messages": _ROUND_ROWS_MAX + _PRODUCE_CHUNK,
                "batch.size": _REQUEST_BYTES_MAX,
                "message.max.bytes": INTERNAL_MESSAGE_BYTES_MAX,
                "queue.buffering.max.messages": _QUEUE_ROWS_MAX,
                "queue.buffering.max.kbytes": _QUEUE_KB_MAX,
                "log_level": 2,
            }
        )

    def init(self) -> None:
        """Fence the former owner and abort what it left open. Blocks until the log answers.

        Raises:
            PartitionLostError: a newer owner came first.
        """
        with self._busy:
            self._repeat(self._producer.init_transactions)

    def commit(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint atomically. Blocks.

        Raises:
            CheckpointAbortedError: nothing was written; try again later with the same rows.
            PartitionLostError: this writer is fenced or its producer is broken for good.
        """
        with self._busy:
            try:
                self._repeat(self._producer.begin_transaction, timed=False)
                self._round_rows = self._round_bytes = 0
                self._produce(checkpoint)
                self._repeat(self._producer.commit_transaction)
            except KafkaException as error:
                self._abort(error)

    def close(self) -> None:
        """Drop the connection, once nothing is under way. An open transaction is aborted by the next owner
        or by its timeout. Blocks.
        """
        with self._busy:
            self._producer.purge()
            self._producer.close()

    def _produce(self, checkpoint: Checkpoint) -> None:
        for letter in checkpoint.letters:
            self._retry_full(
                lambda letter=letter: self._producer.produce(  # type: ignore[misc]
                    self._topics.dead_letters, key=letter.key, value=letter.value, headers=letter.headers
                )
            )
        for table, rows in checkpoint.rows.items():
            self._produce_table(table, rows)
        self._produce_rows(
            self._topics.by_scope[OWNERSHIP_SCOPE],
            [{"key": OWNERSHIP_RECORD_KEY, "value": encode(checkpoint.ownership)}],
        )

    def _produce_table(self, table: str, rows: Mapping[bytes, bytes | None]) -> None:
        prefix = self._prefixes[table]
        if table == META_TABLE:
            for key, value in rows.items():
                topic = self._topics.topic_of(table, key)
                self._produce_rows(topic, [{"key": prefix + key, "value": value}])
            return
        topic = self._topics.by_scope[self._topics.tables[table]]
        left = iter(rows.items())
        while part := list(islice(left, _PRODUCE_CHUNK)):
            self._count_in(len(part), sum([len(value) for _, value in part if value is not None]))
            self._produce_rows(topic, [{"key": prefix + key, "value": value} for key, value in part])

    def _produce_rows(self, topic: str, chunk: list[dict[str, Any]]) -> None:
        while self._producer.produce_batch(topic, chunk, partition=self._partition) < len(chunk):
            chunk = [row for row in chunk if self._refused(row.pop("_error", None))]
            self._wait_for_room()

    def _count_in(self, rows: int, value_bytes: int) -> None:
        """Begin another round where these rows would make this one too large.

        A silent log is not waited for here: the transaction's own steps know whether it failed.
        """
        size = value_bytes + rows * _KEY_BYTES
        if self._round_rows + rows > _ROUND_ROWS_MAX or self._round_bytes + size > _ROUND_BYTES_MAX:
            self._producer.flush(_STEP_S)
            self._round_rows = self._round_bytes = 0
        self._round_rows += rows
        self._round_bytes += size

    def _refused(self, error: KafkaError | None) -> bool:
        """Whether a row has to be produced again: the local queue was full."""
        if error is not None and error.code() != KafkaError._QUEUE_FULL:
            raise KafkaException(error)
        return error is not None

    def _retry_full(self, produce: Callable[[], None]) -> None:
        while True:
            try:
                return produce()
            except BufferError:
                self._wait_for_room()

    def _wait_for_room(self) -> None:
        self._producer.poll(0.05)
        if self._stopping.is_set():
            raise PartitionLostError(
                f"partition {self._partition}: the worker stopped while its checkpoint waited for the log"
            )

    def _abort(self, cause: KafkaException) -> None:
        error = cause.args[0]
        if not error.txn_requires_abort() and error.fatal():
            raise self._lost(cause) from cause
        try:
            self._repeat(self._producer.abort_transaction)
        except KafkaException as failure:
            raise self._lost(failure) from failure
        raise CheckpointAbortedError(
            f"partition {self._partition}: the log refused a checkpoint ({cause}); it is tried again"
        ) from cause

    def _repeat(self, call: Callable[..., None], *, timed: bool = True) -> None:
        """Call until it succeeds or fails for good; librdkafka resumes where a timed-out call stopped."""
        while True:
            try:
                return call(_STEP_S) if timed else call()
            except KafkaException as error:
                problem = error.args[0]
                if problem.fatal() and not problem.txn_requires_abort():
                    raise self._lost(error) from error
                if not problem.retriable():
                    raise
            if self._stopping.is_set():
                raise PartitionLostError(
                    f"partition {self._partition}: the worker stopped while the log was silent"
                )

    def _lost(self, cause: KafkaException) -> PartitionLostError:
        return PartitionLostError(
            f"partition {self._partition}: the changelog's writer was fenced or broken ("
            f"{cause.args[0].name()}: {cause.args[0].str()}); another worker owns the partition, or this one "
            "must acquire it again"
        )
