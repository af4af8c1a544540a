"""The producer's connection to the log: topics' partition counts, sending records, hearing of their fate.

Delivery is librdkafka's: idempotent and acks=all, so a record that it retries is in the log once, in order.
Every report comes on one thread of ours, the poller, which does nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.broker_security import broker_options
from streams.errors import BrokerUnavailableError, DeliveryError, TopicError
from streams.first_records import FirstRecords, Place
from streams.positions import Position

logger = logging.getLogger(__name__)

# The poller sleeps inside librdkafka and wakes for each report; this bounds how long close() waits for it.
POLL_S = 0.2
# How long to wait before trying again when librdkafka's own queue is full; our budget makes that rare.
FULL_QUEUE_S = 0.01
# A fatal error fails what is in flight at once; this bounds the wait for those reports.
REPLACE_S = 5.0

# Key, headers and the batch around a record; and librdkafka takes no limit below 1,000 bytes.
FRAMING_BYTES = 16_384

PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)

Headers = Sequence[tuple[str, bytes]]
OnDelivery = Callable[[Position | None, Exception | None], None]


@dataclass(slots=True, frozen=True)
class OutgoingRecord:
    """One record for the log, and who is told of its fate."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    on_delivery: OnDelivery

    @property
    def place(self) -> Place:
        """The partition it goes to."""
        return self.topic, self.partition


class LogClient:
    """A producing client that is replaced by itself when librdkafka gives it up (a fatal error)."""

    def __init__(self, brokers: str, options: dict[str, Any], delivery_timeout_ms: int) -> None:
        self._brokers = brokers
        self._delivery_timeout_ms = delivery_timeout_ms
        self._options = options
        self._partitions: dict[str, int] = {}
        # The connection's last fault, until a record gets through again.
        self._fault: KafkaError | None = None
        # The fatal error after which nothing more can be sent with the present producer.
        self._gave_up: KafkaError | None = None
        self._first_records: FirstRecords[OutgoingRecord] = FirstRecords()
        self._stopping = threading.Event()
        self._producer = self._open()
        self._poller = threading.Thread(target=self._poll, name="tidal-producer-reports", daemon=True)
        self._poller.start()

    def partitions(self, topic: str, timeout_s: float) -> int:
        """How many partitions `topic` has; asked once, since the count never changes in a running site.

        Raises BrokerUnavailableError, or TopicError for a topic that does not exist.
        """
        known = self._partitions.get(topic)
        if known is not None:
            return known
        try:
            # Of the whole cluster: asking for one topic by name would create it where auto-create is on.
            topics = self._producer.list_topics(timeout=timeout_s).topics
        except KafkaException as error:
            raise BrokerUnavailableError(
                f"no answer from the log at {self._brokers}: {self._reason(error.args[0])}; "
                "check that it runs and that the address is right"
            ) from error
        self._partitions.update({name: len(found.partitions) for name, found in topics.items()})
        if not self._partitions.get(topic):
            self._partitions.pop(topic, None)
            raise TopicError(f"topic {topic} does not exist at {self._brokers}; run `tidal topics init`")
        return self._partitions[topic]

    def send(self, record: OutgoingRecord) -> None:
        """Hand one record over; its `on_delivery` is called once, later or (when it is refused) at once.

        For one thread. Blocks while librdkafka's queue is full. Records of a partition keep their order.
        """
        if self._gave_up is not None:
            self._replace(self._gave_up)
        if self._first_records.may_go(record.place, record) and not self._hand_over(record):
            self._send_next_first(record.place)

    def stop(self) -> None:
        """Give up whatever is unacknowledged (each is reported as failed) and stop the poller."""
        self._producer.purge()
        self._producer.flush(REPLACE_S)
        self._stopping.set()
        self._poller.join()

    def why_away(self) -> str:
        """What is wrong with the connection, as librdkafka says it; empty if nothing is."""
        return "" if self._fault is None else self._fault.str()

    def _open(self) -> Producer:
        return Producer({**self._options, "error_cb": self._on_error})

    def _replace(self, error: KafkaError) -> None:
        logger.error("the log's client gave up (%s); it is replaced, what was in flight has failed", error)
        self._producer.purge()
        self._producer.flush(REPLACE_S)
        self._gave_up = None
        self._producer = self._open()
        self._first_records.forget()

    def _hand_over(self, record: OutgoingRecord) -> bool:
        """False if the record has been refused, and reported so."""
        while True:
            try:
                self._producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    on_delivery=partial(self._report, record),
                    headers=list(record.headers) or None,
                )
            except BufferError:
                time.sleep(FULL_QUEUE_S)
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                if error.fatal():
                    self._gave_up = error
                record.on_delivery(None, self._delivery_error(error, record.topic, record.partition))
                return False
            else:
                return True

    def _report(self, record: OutgoingRecord, error: KafkaError | None, message: Message) -> None:
        """librdkafka's report on one record, on the poller's thread."""
        if error is not None:
            if error.fatal():
                self._gave_up = error
            record.on_delivery(None, self._delivery_error(error, record.topic, record.partition))
            if error.code() in PURGED:
                self._fail_waiting(record.place, error)
            else:
                self._send_next_first(record.place)
            return
        self._fault = None
        offset = message.offset()
        if offset is None or offset < 0:
            record.on_delivery(None, self._unconfirmed(record))
        else:
            record.on_delivery(Position(record.topic, record.partition, offset), None)
        while (waiting := self._first_records.next_after_success(record.place)) is not None:
            self._hand_over(waiting)

    def _send_next_first(self, place: Place) -> None:
        """The first record of a partition has failed: another one takes its part."""
        while (waiting := self._first_records.next_after_failure(place)) is not None:
            if self._hand_over(waiting):
                return

    def _fail_waiting(self, place: Place, error: KafkaError) -> None:
        while (waiting := self._first_records.next_after_failure(place)) is not None:
            waiting.on_delivery(None, self._delivery_error(error, *place))

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._producer.poll(POLL_S)

    def _on_error(self, error: KafkaError) -> None:
        # librdkafka repeats itself at each attempt to connect; the operator needs to hear it once.
        if self._fault is None:
            logger.warning("log at %s: %s", self._brokers, error.str())
        # "All brokers are down" follows the reason why, and would hide it.
        if self._fault is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._fault = error

    def _reason(self, error: KafkaError) -> str:
        return f"{error.str()} ({self.why_away()})" if self._fault is not None else error.str()

    def _unconfirmed(self, record: OutgoingRecord) -> DeliveryError:
        """librdkafka takes a record for stored when a later one is: likely, but not known, nor where."""
        return DeliveryError(
            f"{record.topic} partition {record.partition}: the log has acknowledged later records but "
            "never this one; it may or may not be stored: publish again, dedup drops a second copy",
            retriable=True,
        )

    def _delivery_error(self, error: KafkaError, topic: str, partition: int) -> DeliveryError:
        where = f"{topic} partition {partition}"
        if error.code() == KafkaError._MSG_TIMED_OUT:
            why = self.why_away() or "the log does not answer"
            return DeliveryError(
                f"{where}: not acknowledged within {self._delivery_timeout_ms} ms: {why}; the log at "
                f"{self._brokers} is away or overloaded. The record may or may not be stored: publish again, "
                "dedup drops a second copy",
                retriable=True,
            )
        if error.code() in PURGED:
            return DeliveryError(
                f"{where}: the producer was closed before the log at {self._brokers} acknowledged the record",
                retriable=True,
            )
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return DeliveryError(
                f"{where}: the record is larger than the topic takes; publish less in one batch or raise the "
                "topic's max.message.bytes",
                retriable=False,
            )
        return DeliveryError(f"{where}: the log refused the record: {error}", retriable=error.retriable())


def client_options(
    brokers: str,
    *,
    delivery_timeout_ms: int,
    linger_ms: float,
    compression: str,
    record_bytes_max: int,
    buffer_bytes_max: int,
) -> dict[str, Any]:
    """librdkafka's settings for a producer that loses nothing and repeats nothing."""
    return {
        **broker_options(brokers),
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": delivery_timeout_ms,
        # Groups have lingered already; a little more lets the groups of a tick share a request.
        "linger.ms": linger_ms,
        "compression.type": compression,
        "message.max.bytes": record_bytes_max + FRAMING_BYTES,
        # Ours is the bound that callers feel; librdkafka's must never be reached first.
        "queue.buffering.max.kbytes": max(1024, 4 * buffer_bytes_max // 1024),
        "queue.buffering.max.messages": 1_000_000,
        # A log that restarts on the same machine is back within a second or two: do not sleep through it.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
        "retry.backoff.ms": 50,
        "retry.backoff.max.ms": 500,
        "socket.keepalive.enable": True,
        # Faults reach us by error_cb; librdkafka's own lines on stderr would repeat them at each attempt.
        "log_level": 2,
        "log.connection.close": False,
    }
