"""Reads partitions of the log from one offset to another, as columns, without a group."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import TidalError
from streams.broker_security import broker_options
from streams.records import Records

_CONSUME_MAX: Final = 4_000
# consume() waits its whole timeout for a batch to fill.
_CONSUME_WAIT_S: Final = 0.05
_TIMEOUT_S: Final = 15.0
_SILENT_TURNS_MAX: Final = 1_200
_PASSING: Final = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT)


class LogUnreadableError(TidalError):
    """The log does not answer, or no longer has what a refold needs."""


class Place(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Span(msgspec.Struct, frozen=True):
    """Offsets with ``start <= offset < end``."""

    start: int
    end: int

    def __len__(self) -> int:
        return max(0, self.end - self.start)


class LogReader:
    """One consumer; not thread safe."""

    def __init__(self, brokers: str, *, wait_s: float = _CONSUME_WAIT_S) -> None:
        self._brokers = brokers
        self._wait_s = wait_s
        self._consumer = Consumer(_options(brokers))

    def close(self) -> None:
        """Leave the log."""
        self._consumer.close()

    def bounds(self, place: Place) -> Span:
        """The offsets that the log has.

        Raises:
            LogUnreadableError: no answer.
        """
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=_TIMEOUT_S)
        except KafkaException as error:
            raise self._unreadable(error.args[0].str()) from error
        return Span(int(low), int(high))

    def read(self, spans: Mapping[Place, Span]) -> Iterator[list[Records]]:
        """The records of all spans, each partition's in order, several partitions side by side.

        Offsets may be missing: compaction and transaction markers leave holes.

        Raises:
            LogUnreadableError: the log has been silent for a minute, or refuses.
        """
        open_spans = {place: span for place, span in spans.items() if len(span)}
        starts = [TopicPartition(*place, span.start) for place, span in open_spans.items()]
        self._consumer.assign(starts)
        silent_turns = 0
        while open_spans:
            messages = self._consumer.consume(_CONSUME_MAX, self._wait_s)
            silent_turns = 0 if messages else silent_turns + 1
            if silent_turns > _SILENT_TURNS_MAX:
                raise self._unreadable(f"nothing came of {sorted(open_spans)}")
            found = self._take(messages, open_spans)
            if found:
                yield found
        self._consumer.unassign()

    def _take(self, messages: list[Message], open_spans: dict[Place, Span]) -> list[Records]:
        by_place: dict[Place, list[Message]] = {}
        finished: set[Place] = set()
        for message in messages:
            place = Place(str(message.topic()), int(message.partition() or 0))
            span = open_spans.get(place)
            if message.error() is not None:
                finished.update(self._at_end(message, place))
            elif span is None:
                continue
            elif int(message.offset() or 0) >= span.end:
                finished.add(place)
            else:
                by_place.setdefault(place, []).append(message)
        for place, rows in by_place.items():
            if int(rows[-1].offset() or 0) >= open_spans[place].end - 1:
                finished.add(place)
        for place in finished & open_spans.keys():
            del open_spans[place]
            self._consumer.incremental_unassign([TopicPartition(*place)])
        return [_records(place, rows) for place, rows in by_place.items()]

    def _at_end(self, message: Message, place: Place) -> list[Place]:
        error: KafkaError = message.error()  # type: ignore[assignment]
        if error.code() == KafkaError._PARTITION_EOF:
            return [place]
        if error.code() in _PASSING or error.retriable():
            return []
        raise self._unreadable(f"{place.topic} partition {place.partition}: {error.str()}")

    def _unreadable(self, what: str) -> LogUnreadableError:
        return LogUnreadableError(f"cannot read the log at {self._brokers}: {what}; check that it runs")


def _records(place: Place, messages: list[Message]) -> Records:
    headers: dict[int, Any] = {
        at: tuple(found) for at, message in enumerate(messages) if (found := message.headers())
    }
    return Records(
        place.topic,
        place.partition,
        np.array([message.offset() for message in messages], dtype=np.int64),
        np.array([message.timestamp()[1] for message in messages], dtype=np.int64),
        [message.key() for message in messages],
        [message.value() for message in messages],
        headers,
    )


def _options(brokers: str) -> dict[str, Any]:
    return {
        **broker_options(brokers),
        # librdkafka asks for a group even of a reader that never joins one; this name is never used twice.
        "group.id": f"tidal-refold-{uuid.uuid4().hex}",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        "fetch.wait.max.ms": 20,
        "queued.max.messages.kbytes": 65_536,
        "log_level": 2,
    }
