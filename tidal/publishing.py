"""Sends many records and events to the log, with progress, and remembers how far it came."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, Protocol

from rich.console import Console

from schemas.errors import RecordError
from schemas.records.columns import EventColumns
from streams.positions import Position, Positions
from streams.topics import SIGNALS
from tidal.progress import progress

RECORDS_PER_STEP: Final = 500
ROWS_PER_STEP: Final = 5_000

# Enough to keep the log busy while the next step is prepared; each holds at most some 20,000 events.
STEPS_IN_FLIGHT_MAX: Final = 4


class LogWriter(Protocol):
    """What is needed of the producer."""

    def put_entity(self, kind: str, id: str, record: Mapping[str, Any] | None) -> Future[Position]: ...

    def publish_columns(self, columns: EventColumns) -> Future[list[Position]]: ...

    def publish_raw(self, topic: str, key: bytes | None, value: bytes) -> Future[Position]: ...


class Entry(NamedTuple):
    """One entity record to be published, and the line of the file that it comes from."""

    line: int
    record: dict[str, Any]


class Memory(Protocol):
    """Remembers how many rows of each phase the log has acknowledged."""

    def done(self, phase: str) -> int: ...

    def record(self, phase: str, rows: int) -> None: ...


class NoMemory:
    """For what is published from the start every time."""

    def done(self, phase: str) -> int:
        """Nothing is done yet."""
        return 0

    def record(self, phase: str, rows: int) -> None:
        """Forgets it."""


class RawEvent(NamedTuple):
    """An event that is published as it is: nothing is checked, the engine judges it."""

    key: bytes
    value: bytes


class Step(NamedTuple):
    """The events of the rows up to `stop`, counted from the start of the data."""

    stop: int
    events: EventColumns
    raw: Sequence[RawEvent] = ()


class _InFlight(NamedTuple):
    stop: int
    events: Future[list[Position]]
    raw: list[Future[Position]]


class Publisher:
    """Publishes one phase after the other; `positions` is where its newest records are in the log."""

    def __init__(self, writer: LogWriter, memory: Memory, console: Console) -> None:
        self._writer = writer
        self._memory = memory
        self._console = console
        self._positions = Positions(())

    @property
    def positions(self) -> Positions:
        """The newest acknowledged position of each partition written to."""
        return self._positions

    def publish_records(
        self, kind: str, entries: Sequence[Entry], refuse: Callable[[int, str], None]
    ) -> None:
        """Puts entity records (`kind` item, user or creator), each a mapping with its `id`.

        `refuse(line, reason)` is told of each record that the producer does not take.
        """
        phase, total = f"{kind}s", len(entries)
        done = min(self._memory.done(phase), total)
        with progress(self._console, phase, total, done) as advance:
            for start in range(done, total, RECORDS_PER_STEP):
                step = entries[start : start + RECORDS_PER_STEP]
                self._advance([future.result() for future in self._put_all(kind, step, refuse)])
                self._memory.record(phase, start + len(step))
                advance(len(step))

    def _put_all(
        self, kind: str, entries: Sequence[Entry], refuse: Callable[[int, str], None]
    ) -> list[Future[Position]]:
        futures = []
        for line, record in entries:
            try:
                futures.append(self._writer.put_entity(kind, record["id"], record))
            except RecordError as error:
                refuse(line, str(error))
        return futures

    def publish_events(self, phase: str, total: int, steps_from: Callable[[int], Iterable[Step]]) -> None:
        """Publishes the events of `total` rows; `steps_from(row)` gives the steps that begin at a row."""
        done = min(self._memory.done(phase), total)
        in_flight: deque[_InFlight] = deque()
        with progress(self._console, phase, total, done) as advance:

            def settle() -> None:
                nonlocal done
                step = in_flight.popleft()
                self._advance([*step.events.result(), *(future.result() for future in step.raw)])
                self._memory.record(phase, step.stop)
                advance(step.stop - done)
                done = step.stop

            for step in steps_from(done):
                in_flight.append(self._send(step))
                if len(in_flight) == STEPS_IN_FLIGHT_MAX:
                    settle()
            while in_flight:
                settle()

    def _send(self, step: Step) -> _InFlight:
        events = self._writer.publish_columns(step.events)
        raw = [self._writer.publish_raw(SIGNALS, event.key, event.value) for event in step.raw]
        return _InFlight(step.stop, events, raw)

    def _advance(self, positions: Sequence[Position]) -> None:
        self._positions = Positions.of([*self._positions, *positions])
