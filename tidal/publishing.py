"""Sends many records and events to the log, with progress, and remembers how far it came."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from rich.console import Console

from schemas.errors import RecordError
from schemas.records.columns import EventColumns
from streams.positions import Position, Positions
from streams.topics import SIGNALS
from tidal.progress import Advance, progress

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


def _at_once(positions: Positions) -> None:
    """For a log that nobody folds."""


class Publisher:
    """Publishes one phase after the other; `positions` is where its newest records are in the log.

    An event is counted for the cohorts that its user is in when the log has it, so events that follow records
    have to wait until the views have these: `until_visible(positions)` returns then.
    """

    def __init__(
        self,
        writer: LogWriter,
        memory: Memory,
        console: Console,
        until_visible: Callable[[Positions], None] = _at_once,
    ) -> None:
        self._writer = writer
        self._memory = memory
        self._console = console
        self._until_visible = until_visible
        self._positions = Positions(())
        self._records_are_new = False

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
        self._records_are_new = True
        with self._pipeline(f"{kind}s", len(entries)) as pipeline:
            for start in range(pipeline.done, len(entries), RECORDS_PER_STEP):
                step = entries[start : start + RECORDS_PER_STEP]
                pipeline.add(start + len(step), self._put_all(kind, step, refuse))

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
        """Publishes the events of `total` rows; `steps_from(row)` gives the steps that begin at a row.

        Waits for the records that were published before, if there are any.
        """
        if self._records_are_new and self._positions.positions:
            self._until_visible(self._positions)
            self._records_are_new = False
        with self._pipeline(phase, total) as pipeline:
            for step in steps_from(pipeline.done):
                pipeline.add(step.stop, self._send(step))

    @contextmanager
    def _pipeline(self, phase: str, total: int) -> Iterator[_Pipeline]:
        """Steps of a phase on their way; those that are left are waited for at the end."""
        done = min(self._memory.done(phase), total)
        with progress(self._console, phase, total, done) as advance:
            pipeline = _Pipeline(done, partial(self._settled, phase, advance))
            yield pipeline
            pipeline.settle_all()

    def _settled(self, phase: str, advance: Advance, rows: int, stop: int, positions: list[Position]) -> None:
        self._positions = Positions.of([*self._positions, *positions])
        self._memory.record(phase, stop)
        advance(rows)

    def _send(self, step: Step) -> list[Future[Any]]:
        raw = [self._writer.publish_raw(SIGNALS, event.key, event.value) for event in step.raw]
        return [self._writer.publish_columns(step.events), *raw]


class _Pipeline:
    """Steps that were sent and are not acknowledged, in order; a full one waits for the oldest."""

    def __init__(self, done: int, settled: Callable[[int, int, list[Position]], None]) -> None:
        self.done = done
        self._settled = settled
        self._in_flight: deque[tuple[int, Sequence[Future[Any]]]] = deque()

    def add(self, stop: int, futures: Sequence[Future[Any]]) -> None:
        """The rows up to `stop` were sent; the futures resolve to their positions, one or several each."""
        self._in_flight.append((stop, futures))
        if len(self._in_flight) == STEPS_IN_FLIGHT_MAX:
            self._settle()

    def settle_all(self) -> None:
        """Waits for the log's acknowledgement of everything that was sent."""
        while self._in_flight:
            self._settle()

    def _settle(self) -> None:
        stop, futures = self._in_flight.popleft()
        positions: list[Position] = []
        for result in (future.result() for future in futures):
            positions += result if isinstance(result, list) else [result]
        self._settled(stop - self.done, stop, positions)
        self.done = stop
