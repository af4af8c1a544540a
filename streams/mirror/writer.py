"""Writes steps into the target, many partitions at a time, and checks every offset that comes back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.errors import MirrorError
from streams.mirror.runs import Copied, Step

Place = tuple[str, int]
Ends = Mapping[Place, tuple[int, int]]

_TIMEOUT_S = 120.0
_MARKER_PAUSE_S = 0.005
_FILLER = b""
# One transaction spans many partitions: this is what makes copying a log full of markers bearable.
_LIMITS = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 5,
    "compression.type": "lz4",
    "message.max.bytes": 64 << 20,
    "queue.buffering.max.kbytes": 256 << 10,
    "log_level": 2,
}


class StepWriter:
    """Two producers: one for plain records, one whose transactions fill the holes."""

    def __init__(self, options: Mapping[str, Any], ends_of: Callable[[Iterable[Place]], Ends]) -> None:
        """`ends_of` asks the target for (first, next) offset of partitions, as readers see them."""
        self._ends_of = ends_of
        self._plain = Producer({**options, **_LIMITS})
        self._holes = Producer(
            {**options, **_LIMITS, "transactional.id": "tidal-mirror", "transaction.timeout.ms": 120_000}
        )
        self._next: dict[Place, int] = {}
        self._problem: MirrorError | None = None
        try:
            self._holes.init_transactions(_TIMEOUT_S)
        except KafkaException as error:
            raise MirrorError(f"the target takes no transactions: {error.args[0].str()}") from error

    def begin_at(self, place: Place, offset: int) -> None:
        """The target's next offset of a partition."""
        self._next[place] = offset

    def write(self, steps: Mapping[Place, list[Step]]) -> None:
        """Write all steps, in order in each partition, until they are acknowledged. Raises MirrorError."""
        queues = {place: deque(found) for place, found in steps.items() if found}
        try:
            while queues:
                round_ = {place: queue.popleft() for place, queue in queues.items()}
                self._write_round(round_)
                queues = {place: queue for place, queue in queues.items() if queue}
        except KafkaException as error:
            raise MirrorError(f"the target refuses: {error.args[0].str()}; run again") from error

    def fill_start(self, place: Place, offset: int, time_ms: int) -> None:
        """Plain fillers in front of the first record; the caller deletes them."""
        while self._next[place] < offset:
            count = min(offset - self._next[place], 100_000)
            for _ in range(count):
                self._produce(self._plain, place, _filler(self._next[place], time_ms))
            self._settle(self._plain)

    def _write_round(self, steps: Mapping[Place, Step]) -> None:
        for place, step in steps.items():
            for record in step.records:
                self._produce(self._plain, place, record)
        self._settle(self._plain)
        carried = {place: step for place, step in steps.items() if step.carrier is not None}
        if carried:
            self._holes.begin_transaction()
            for place, step in carried.items():
                assert step.carrier is not None
                self._produce(self._holes, place, step.carrier)
            self._settle(self._holes)
            self._holes.commit_transaction(_TIMEOUT_S)
        filled = {place: step for place, step in steps.items() if step.fillers}
        if filled:
            self._holes.begin_transaction()
            for place, step in filled.items():
                for _ in range(step.fillers):
                    self._produce(self._holes, place, _filler(self._next[place], step.time_ms))
            # An abort drops what is still in the client, and those fillers are wanted.
            self._settle(self._holes)
            self._holes.abort_transaction(_TIMEOUT_S)
        for place in (*carried, *filled):
            self._next[place] += 1
        self._await_markers((*carried, *filled))

    def _await_markers(self, places: Sequence[Place]) -> None:
        """A cluster tells of the end of a transaction before its markers are written."""
        deadline_s = time.monotonic() + _TIMEOUT_S
        waiting = list(places)
        while waiting:
            ends = self._ends_of(waiting)
            waiting = [place for place in waiting if ends[place][1] < self._next[place]]
            if time.monotonic() > deadline_s:
                raise MirrorError(f"{waiting[0]}: no marker within {_TIMEOUT_S:g} s; run again")
            if waiting:
                time.sleep(_MARKER_PAUSE_S)

    def _produce(self, producer: Producer, place: Place, record: Copied) -> None:
        while True:
            try:
                producer.produce(
                    place[0],
                    record.value,
                    record.key,
                    place[1],
                    on_delivery=partial(self._delivered, self._next[place]),
                    timestamp=record.timestamp_ms,
                    headers=list(record.headers) or None,
                )
            except BufferError:
                producer.poll(0.1)
            else:
                self._next[place] += 1
                return

    def _delivered(self, expected: int, error: KafkaError | None, message: Message) -> None:
        where = f"{message.topic()} partition {message.partition()}"
        if error is not None:
            self._problem = self._problem or MirrorError(f"{where}: {error.str()}")
        elif message.offset() != expected:
            self._problem = self._problem or MirrorError(
                f"{where}: the target gave offset {message.offset()} where {expected} was due; "
                "somebody else writes to it: stop that, delete the topic there and start again"
            )

    def _settle(self, producer: Producer) -> None:
        if producer.flush(_TIMEOUT_S):
            raise MirrorError(f"the target has not acknowledged within {_TIMEOUT_S:g} s; run again")
        if self._problem is not None:
            raise self._problem


def _filler(offset: int, time_ms: int) -> Copied:
    return Copied(offset, time_ms, _FILLER, _FILLER, ())
