"""The producer SDK for threads: publish signals and records, hear from the log where they are.

    with Producer("127.0.0.1:9092") as producer:
        producer.publish("like", "item_1", "user_7")
        position = producer.publish("view", "item_2", "user_7").result()

Every call that publishes returns at once with a future, unless the buffer is full: then it waits for room.
A future resolves when the log has acknowledged the record (on disk, all replicas), or holds the error.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Self

from schemas.model import Schema
from schemas.records.columns import EventColumns
from schemas.settings import ProducerSettings
from streams.acknowledgement import Acknowledgement
from streams.bulk_ack import BulkAck
from streams.errors import StreamError
from streams.log_client import Headers
from streams.positions import Position
from streams.producer_core import ProducerCore, ProducerStats, Publication
from streams.producer_requests import Requests
from streams.settled import settle_all


class Producer:
    """Publishes to the log from any number of threads.

    `brokers` is a list as in "host:port,host:port". With a `schema`, unknown kinds are refused here instead
    of by the log's readers. Close it, or use it as a context manager; what is still buffered is also
    flushed when the interpreter exits. A process killed by a signal that Python does not handle loses what
    was not acknowledged, and no future of it has said otherwise.
    """

    def __init__(
        self, brokers: str, settings: ProducerSettings | None = None, *, schema: Schema | None = None
    ) -> None:
        self._settings = settings or ProducerSettings()
        self._shared = threading.Condition()
        self._requests = Requests(self._settings, schema)
        self._core = ProducerCore(brokers, self._settings, settle_all)
        atexit.register(self.close)

    def publish(
        self,
        kind: str,
        item: str,
        user: str | None = None,
        weight: float = 1.0,
        ts: int | None = None,
        request_id: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Future[Position]:
        """Publish one signal; `ts` in ms since 1970, now by default; without `user` it is anonymous.

        Raises RecordError naming the field that is wrong, QueueFullError when there is no room in time,
        ProducerClosedError after close. The future holds DeliveryError, TopicError or
        BrokerUnavailableError if the log did not take it.
        """
        future: Future[Position] = Acknowledgement(self._shared)
        self._submit(self._requests.event(kind, item, user, weight, ts, request_id, context, future))
        return future

    def publish_columns(self, columns: EventColumns) -> Future[list[Position]]:
        """Publish many signals as columns; they are split by user's partition.

        A batch no larger than a group joins the open groups; a larger one makes records of its own. The
        arrays must not change until the future resolves: to the positions of the records, one for each.
        Raises as `publish` does, before anything is sent; an error after the first piece is in the future.
        """
        future: Future[list[Position]] = Acknowledgement(self._shared)
        self._requests.check_columns(columns)
        if not len(columns):
            future.set_result([])
            return future
        ack = BulkAck(self._requests.part_count(columns), partial(_settle, future))
        self._submit_all(self._requests.parts(columns, ack), ack)
        return future

    def put_entity(self, kind: str, id: str, record: Mapping[str, Any] | None) -> Future[Position]:
        """Write the whole record of an item, user or creator; None deletes it. Raises as `publish` does."""
        future: Future[Position] = Acknowledgement(self._shared)
        self._submit(self._requests.entity(kind, id, record, future))
        return future

    def put_relationship(
        self, type: str, src: str, dst: str, record: Mapping[str, Any] | None
    ) -> Future[Position]:
        """Write an explicit edge such as ("follows", user, creator); None deletes it."""
        future: Future[Position] = Acknowledgement(self._shared)
        self._submit(self._requests.relationship(type, src, dst, record, future))
        return future

    def publish_raw(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> Future[Position]:
        """Write a record as it is; nothing of it is checked, whoever reads the topic judges it.

        For records that were in the log already (a dead letter after a fix) or that must be refused by the
        engine and not here. `partition` is that of the key when it is None. Raises as `publish` does.
        """
        future: Future[Position] = Acknowledgement(self._shared)
        self._submit(self._requests.raw(topic, key, value, headers, partition, future))
        return future

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until everything published before has been acknowledged or has failed.

        Raises DeliveryError when that takes longer than `timeout_s`.
        """
        self._core.flush(self._settings.close_timeout_s if timeout_s is None else timeout_s)

    def close(self, timeout_s: float | None = None) -> None:
        """Flush and stop. What the log has not acknowledged in time fails, in its future and here."""
        atexit.unregister(self.close)
        self._core.close(self._settings.close_timeout_s if timeout_s is None else timeout_s)

    def stats(self) -> ProducerStats:
        """Counts of records and what is buffered."""
        return self._core.stats()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, publication: Publication) -> None:
        self._core.budget.take(publication.cost_bytes, self._settings.block_timeout_s)
        self._core.submit(publication)

    def _submit_all(self, parts: Sequence[Publication], ack: BulkAck) -> None:
        for index, part in enumerate(parts):
            try:
                self._submit(part)
            except StreamError as error:
                if index == 0:
                    raise
                for _ in parts[index:]:
                    ack.set_exception(error)
                return


def _settle(
    future: Future[list[Position]], positions: list[Position] | None, error: Exception | None
) -> None:
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(positions or [])
