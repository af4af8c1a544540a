"""`tidal publish`: JSON events, one a line, from stdin to the log."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Any, Protocol, cast

import numpy as np
import typer

from schemas.model import Schema
from schemas.records.decode import Reject, decode_records
from streams.positions import Position, Positions
from streams.producer import Producer
from tidal.cli.connection import BrokersOption, DataOption, brokers_of
from tidal.cli.failure import FAILED
from tidal.cli.output import print_json, say
from tidal.cli.schema import read_schema

EXAMPLE = (
    """Example:  [bold]echo '{"kind": "like", "item": "item_I", "user": "user_U"}' | """
    """tidal publish --data ./data[/bold]"""
)
READ_BYTES = 1 << 18
"""Read at once; less when less is there, so that `tail -f … | tidal publish` sends each line as it comes."""
LINE_BYTES_MAX = 1 << 20
BATCHES_IN_FLIGHT_MAX = 16
"""Batches sent and not yet acknowledged: with the read size, the bound on memory."""
REFUSED_SHOWN_MAX = 100
"""Refused lines that are printed; beyond that they are only counted."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("publish", epilog=EXAMPLE)(publish)


def publish(
    data: DataOption = None,
    brokers: BrokersOption = None,
    schema: Annotated[
        Path | None,
        typer.Option("--schema", metavar="FILE", help="The site's schema; the default one without it."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False,
) -> None:
    """Publish JSON events from stdin, one a line; leaves when the log has acknowledged the last one."""
    run = _Run(read_schema(schema))
    with Producer(brokers_of(brokers, data), schema=run.schema) as producer:
        for first, lines in read_lines(cast(Readable, sys.stdin.buffer)):
            run.send(producer, first, lines)
        run.settle_all()
    if json:
        print_json(run.summary())
    else:
        say(f"{run.accepted:,} events accepted, {run.refused:,} refused")
    if run.refused:
        raise typer.Exit(FAILED)


class _Run:
    """Sends batches, counts outcomes and keeps the newest position in each partition."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.accepted = 0
        self.refused = 0
        self._newest = Positions(())
        self._in_flight: deque[tuple[int, Future[list[Position]]]] = deque()

    def send(self, producer: Producer, first: int, lines: list[bytes]) -> None:
        """Sends the good events of these lines; `first` is the number of the first line."""
        now_ms = time.time_ns() // 1_000_000
        decoded = decode_records(lines, np.full(len(lines), now_ms, dtype=np.int64), self.schema)
        for reject in decoded.rejects:
            self._refuse(first, reject)
        if len(decoded.columns):
            self._in_flight.append((len(decoded.columns), producer.publish_columns(decoded.columns)))
        while len(self._in_flight) > BATCHES_IN_FLIGHT_MAX:
            self._settle_oldest()

    def settle_all(self) -> None:
        """Waits for the log's acknowledgement of everything that was sent."""
        while self._in_flight:
            self._settle_oldest()

    def summary(self) -> dict[str, Any]:
        """The outcome."""
        position = self._newest.encode() if self._newest.positions else None
        return {"position": position, "accepted": self.accepted, "refused": self.refused}

    def _settle_oldest(self) -> None:
        events, future = self._in_flight.popleft()
        self._newest = Positions.of([*self._newest, *future.result()])
        self.accepted += events

    def _refuse(self, first: int, reject: Reject) -> None:
        self.refused += 1
        if self.refused <= REFUSED_SHOWN_MAX:
            event = f", event {reject.event}" if reject.event is not None else ""
            say(f"line {first + reject.record}{event}: {reject.error}")


class Readable(Protocol):
    """A buffered stream of bytes."""

    def read1(self, size: int, /) -> bytes:
        """At most `size` bytes, as soon as there are any; none at the end."""
        ...


def read_lines(stream: Readable) -> Iterator[tuple[int, list[bytes]]]:
    """Runs of non-empty lines as they become available, each with the number of its first line.

    A line beyond LINE_BYTES_MAX is cut there, so that memory stays bounded; its parts are then refused as
    JSON.
    """
    number, rest = 1, b""
    while chunk := stream.read1(READ_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            lines, rest = [*lines, rest], b""
        yield from _numbered(number, lines)
        number += len(lines)
    yield from _numbered(number, [rest])


def _numbered(number: int, lines: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Runs of non-empty lines, each with the number of its first."""
    run: list[bytes] = []
    for index, line in enumerate(lines):
        if line.strip():
            run.append(line)
        elif run:
            yield number + index - len(run), run
            run = []
    if run:
        yield number + len(lines) - len(run), run
