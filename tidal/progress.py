"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_LINE_EVERY_S: Final = 5.0

Advance = Callable[[int], None]


@contextmanager
def progress(console: Console, title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Shows the progress of `total` units of work under `title`; yields the function that advances it.

    `done` units were finished by an earlier run. The last line says how much was done and how long it took.
    """
    started = time.monotonic()
    counter = _Counter(done)
    shown = (
        _bar(console, title, total, counter)
        if console.is_terminal
        else _lines(console, title, total, counter)
    )
    with shown as advance:
        yield advance
    seconds = time.monotonic() - started
    console.print(f"{title}: {counter.value:,} of {total:,} in {seconds:.1f} s", highlight=False)


class _Counter:
    def __init__(self, value: int) -> None:
        self.value = value


@contextmanager
def _bar(console: Console, title: str, total: int, counter: _Counter) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, completed=counter.value)

        def advance(units: int) -> None:
            counter.value += units
            bar.update(task, completed=counter.value)

        yield advance


@contextmanager
def _lines(console: Console, title: str, total: int, counter: _Counter) -> Iterator[Advance]:
    said_at = time.monotonic()

    def advance(units: int) -> None:
        nonlocal said_at
        counter.value += units
        if time.monotonic() - said_at >= PLAIN_LINE_EVERY_S:
            said_at = time.monotonic()
            console.print(f"{title}: {counter.value:,} of {total:,}", highlight=False)

    yield advance
