"""The producer's engine room, the same under the blocking and the asyncio face.

    publish ──► inbox ──► writer thread: partition, group, encode ──► LogClient ──► the log
                                                       futures ◄── poller thread ◄──┘

1. A caller takes room in the budget (and waits for it when there is none), then leaves its request in the
   inbox. Everything behind this point is bounded by that budget.
2. One writer thread empties the inbox in order, so records of a partition keep the order of the calls. It
   also asks for the partition count; while the log is away the inbox simply holds what has come.
3. A report of librdkafka settles the futures of a record and gives its room back.

A request fails with a clear error when it is older than the delivery timeout; none is ever dropped without.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from schemas.records.columnar import encode_columnar
from schemas.records.columns import EventColumns
from schemas.settings import ProducerSettings
from streams.budget import Budget
from streams.column_split import encode_within, split
from streams.errors import BrokerUnavailableError, DeliveryError, ProducerClosedError, TopicError
from streams.grouping import Group, OpenGroups
from streams.log_client import Headers, LogClient, OutgoingRecord, client_options
from streams.partitioner import partition_for, partitions_for
from streams.pending_event import PendingEvent, columns_of
from streams.positions import Position
from streams.settled import Settled
from streams.topics import SIGNALS

logger = logging.getLogger(__name__)

# Events taken from the inbox at once: enough to hash their keys as columns, few enough that a full group
# does not wait long for the rest.
EVENTS_AT_ONCE = 2000
# One question for the partition count; a close() waits at most this long for its answer.
METADATA_TIMEOUT_S = 1.0
# Pause before asking again. librdkafka keeps trying to connect meanwhile.
METADATA_PAUSE_S = 0.25


Settle = Callable[[Sequence[Settled], Position | None, Exception | None], None]


@dataclass(slots=True, frozen=True)
class RecordRequest:
    """One record, of a compacted topic or as it is. Without `partition` it is that of `partition_key`."""

    topic: str
    partition_key: bytes
    key: bytes | None
    value: bytes | None
    headers: Headers
    cost_bytes: int
    accepted_s: float
    future: Settled
    partition: int | None = None


@dataclass(slots=True, frozen=True)
class ColumnsRequest:
    """A piece of a large batch. `future` is told of each record, `split_done` when no more will come."""

    columns: EventColumns
    cost_bytes: int
    accepted_s: float
    future: Settled
    expect_record: Callable[[], None]
    split_done: Callable[[], None]


@dataclass(slots=True)
class Barrier:
    """Everything published before it must be handed over; `serial` is then the first record behind it."""

    accepted_s: float
    reached: threading.Event = field(default_factory=threading.Event)
    serial: int = 0


Publication: TypeAlias = PendingEvent | RecordRequest | ColumnsRequest
Request: TypeAlias = Publication | Barrier


@dataclass(slots=True, frozen=True)
class ProducerStats:
    """Counts since the producer was made, and what it holds now."""

    records_acknowledged: int
    records_failed: int
    records_in_flight: int
    buffered_bytes: int


class ProducerCore:
    """Bounded, ordered, grouping writer to the log. `settle` reports to the futures of one face."""

    def __init__(self, brokers: str, settings: ProducerSettings, settle: Settle) -> None:
        self.brokers = brokers
        self.settings = settings
        self.budget = Budget(settings.buffer_bytes_max)
        self._settle = settle
        self._client = LogClient(brokers, _options(brokers, settings), settings.delivery_timeout_ms)
        self._inbox: deque[Request] = deque()
        self._groups: OpenGroups[PendingEvent] = OpenGroups(
            settings.group_events_max, settings.record_bytes_max // 2, settings.group_linger_ms / 1000
        )
        self._gate = threading.Lock()
        self._closed = False
        self._abandoned = False
        self._wake = threading.Event()
        self._idle = False
        self._landed = threading.Condition()
        # Records handed over and not reported, in that order: the first key is the oldest.
        self._in_flight: dict[int, None] = {}
        self._next_serial = 0
        self._acknowledged = 0
        self._failed = 0
        self._writer = threading.Thread(target=self._run, name="tidal-producer-writer", daemon=True)
        self._writer.start()

    def submit(self, request: Request) -> None:
        """Leave a request whose room has been taken. Raises ProducerClosedError after close."""
        with self._gate:
            if self._closed:
                raise ProducerClosedError("the producer has been closed; create a new one to publish more")
            self._inbox.append(request)
        urgent = self._idle or not isinstance(request, PendingEvent)
        if (urgent or len(self._inbox) >= self.settings.group_events_max) and not self._wake.is_set():
            self._wake.set()

    def flush(self, timeout_s: float) -> None:
        """Wait until all that was published before this call is acknowledged or has failed.

        Raises DeliveryError when that takes longer; what is buffered stays buffered.
        """
        deadline_s = time.monotonic() + timeout_s
        barrier = Barrier(time.monotonic())
        self.submit(barrier)
        self._await(barrier, deadline_s, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Flush, then stop. What is not acknowledged in time fails in its future.

        Raises DeliveryError when there is any such. Idempotent; a second call returns at once.
        """
        deadline_s = time.monotonic() + timeout_s
        barrier = Barrier(time.monotonic())
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._inbox.append(barrier)
        self._wake.set()
        self.budget.close()
        try:
            self._await(barrier, deadline_s, timeout_s)
        finally:
            self._abandoned = True
            self._wake.set()
            self._writer.join()
            self._client.stop()

    def stats(self) -> ProducerStats:
        """Counts for metrics."""
        with self._landed:
            return ProducerStats(
                self._acknowledged, self._failed, len(self._in_flight), self.budget.used_bytes
            )

    def _await(self, barrier: Barrier, deadline_s: float, timeout_s: float) -> None:
        reached = barrier.reached.wait(max(0.0, deadline_s - time.monotonic()))
        with self._landed:
            if reached and self._landed.wait_for(
                lambda: self._oldest_in_flight() >= barrier.serial, max(0.0, deadline_s - time.monotonic())
            ):
                return
            unsent = 0 if reached else len(self._inbox)
            count = len(self._in_flight)
        why = self._client.why_away()
        raise DeliveryError(
            f"{count} records are unacknowledged and {unsent} requests unsent after {timeout_s:g} s"
            f"{': ' + why if why else ''}; the log at {self.brokers} is away or slow",
            retriable=True,
        )

    def _oldest_in_flight(self) -> int:
        return next(iter(self._in_flight), self._next_serial)

    # The writer thread.

    def _run(self) -> None:
        while not self._abandoned:
            if self._inbox:
                self._take()
            for group in self._groups.take_due(time.monotonic()):
                self._write_group(group)
            if not self._inbox:
                self._sleep()
        self._abandon()

    def _sleep(self) -> None:
        """Until a group is due, or until submit() says that there is something to do."""
        self._wake.clear()
        deadline_s = self._groups.next_deadline_s()
        # submit() reads `_idle` after it has appended, so either it sees the flag or we see its request.
        self._idle = deadline_s is None
        if not self._inbox and not self._abandoned:
            self._wake.wait(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))
        self._idle = False

    def _take(self) -> None:
        """Carry out what stands at the head of the inbox: one request, or a run of events."""
        head = self._inbox[0]
        if isinstance(head, Barrier):
            self._inbox.popleft()
            self._write_all_groups()
            with self._landed:
                head.serial = self._next_serial
            head.reached.set()
            return
        topic = head.topic if isinstance(head, RecordRequest) else SIGNALS
        try:
            partitions = self._client.partitions(topic, METADATA_TIMEOUT_S)
        except BrokerUnavailableError as error:
            self._fail_expired(error)
            self._wake.wait(METADATA_PAUSE_S)
            return
        except TopicError as error:
            self._fail_run(error)
            return
        if isinstance(head, PendingEvent):
            self._group(self._pop_events(), partitions)
        elif isinstance(head, ColumnsRequest):
            self._inbox.popleft()
            self._write_columns(head, partitions)
        else:
            self._inbox.popleft()
            self._write_record(head, partitions)

    def _pop_events(self) -> list[PendingEvent]:
        events: list[PendingEvent] = []
        while self._inbox and len(events) < EVENTS_AT_ONCE:
            head = self._inbox[0]
            if not isinstance(head, PendingEvent):
                break
            events.append(head)
            self._inbox.popleft()
        return events

    def _group(self, events: list[PendingEvent], partitions: int) -> None:
        numbers = partitions_for([event.key for event in events], partitions)
        for event, partition in zip(events, numbers.tolist(), strict=True):
            full = self._groups.add(partition, event, event.accepted_s)
            if full is not None:
                self._write_group(full)

    def _write_all_groups(self) -> None:
        for group in self._groups.take_all():
            self._write_group(group)

    def _write_group(self, group: Group[PendingEvent]) -> None:
        """One record, or several when the group's texts are larger than a record may be."""
        try:
            records = list(self._encode(columns_of(group.events)))
        except Exception as error:  # noqa: BLE001 - every caller gets it in its future
            for event in group.events:
                self._fail(event.future, event.cost_bytes, error)
            return
        first = 0
        for count, value in records:
            events = group.events[first : first + count]
            first += count
            cost_bytes = sum(event.cost_bytes for event in events)
            self._send(SIGNALS, group.partition, None, value, (), cost_bytes, [e.future for e in events])

    def _write_columns(self, request: ColumnsRequest, partitions: int) -> None:
        self._write_all_groups()
        left_bytes, total = request.cost_bytes, len(request.columns)
        try:
            for partition, columns in split(request.columns, partitions, self.settings.bulk_events_max):
                for count, value in self._encode(columns):
                    cost_bytes = request.cost_bytes * count // total
                    left_bytes -= cost_bytes
                    request.expect_record()
                    self._send(SIGNALS, partition, None, value, (), cost_bytes, [request.future])
        except Exception as error:  # noqa: BLE001 - the caller gets it in its future
            request.expect_record()
            self._fail(request.future, left_bytes, error)
        else:
            self.budget.give_back(left_bytes)
        request.split_done()

    def _encode(self, columns: EventColumns) -> Iterator[tuple[int, bytes]]:
        return encode_within(columns, encode_columnar, self.settings.record_bytes_max)

    def _write_record(self, request: RecordRequest, partitions: int) -> None:
        partition = request.partition
        if partition is None:
            partition = partition_for(request.partition_key, partitions)
        self._send(
            request.topic,
            partition,
            request.key,
            request.value,
            request.headers,
            request.cost_bytes,
            [request.future],
        )

    def _send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        cost_bytes: int,
        futures: Sequence[Settled],
    ) -> None:
        with self._landed:
            serial = self._next_serial
            self._next_serial += 1
            self._in_flight[serial] = None
        on_delivery = partial(self._on_delivery, serial, cost_bytes, futures)
        self._client.send(OutgoingRecord(topic, partition, key, value, headers, on_delivery))

    def _on_delivery(
        self,
        serial: int,
        cost_bytes: int,
        futures: Sequence[Settled],
        position: Position | None,
        error: Exception | None,
    ) -> None:
        """On the poller thread, or on the writer's when a record is refused at once."""
        self.budget.give_back(cost_bytes)
        self._settle(futures, position, error)
        # Last, so that the futures are settled when flush() returns.
        with self._landed:
            del self._in_flight[serial]
            if error is None:
                self._acknowledged += 1
            else:
                self._failed += 1
            self._landed.notify_all()

    # Requests that never reach the client.

    def _fail_expired(self, error: BrokerUnavailableError) -> None:
        """The head is the oldest: fail from there on what has waited for longer than a delivery may take."""
        oldest_s = time.monotonic() - self.settings.delivery_timeout_ms / 1000
        while (
            self._inbox and self._inbox[0].accepted_s < oldest_s and not isinstance(self._inbox[0], Barrier)
        ):
            self._fail_head(error)

    def _fail_run(self, error: TopicError) -> None:
        """Fail the head, and the events behind it if it is one: their topic is the same."""
        was_event = isinstance(self._inbox[0], PendingEvent)
        self._fail_head(error)
        while was_event and self._inbox and isinstance(self._inbox[0], PendingEvent):
            self._fail_head(error)

    def _fail_head(self, error: Exception) -> None:
        request = self._inbox.popleft()
        if isinstance(request, Barrier):
            return
        if isinstance(request, ColumnsRequest):
            request.expect_record()
            self._fail(request.future, request.cost_bytes, error)
            request.split_done()
        else:
            self._fail(request.future, request.cost_bytes, error)

    def _fail(self, future: Settled, cost_bytes: int, error: Exception) -> None:
        self.budget.give_back(cost_bytes)
        self._settle([future], None, error)
        with self._landed:
            self._failed += 1

    def _abandon(self) -> None:
        """After close: whatever has not been handed over fails by name."""
        error = DeliveryError(
            f"the producer was closed before the log at {self.brokers} could take the event", retriable=True
        )
        for group in self._groups.take_all():
            for event in group.events:
                self._fail(event.future, event.cost_bytes, error)
        while self._inbox:
            self._fail_head(error)


def _options(brokers: str, settings: ProducerSettings) -> dict[str, object]:
    return client_options(
        brokers,
        delivery_timeout_ms=settings.delivery_timeout_ms,
        linger_ms=settings.request_linger_ms,
        compression=settings.compression,
        record_bytes_max=settings.record_bytes_max,
        buffer_bytes_max=settings.buffer_bytes_max,
    )
