"""What commands print: tables for people, JSON for machines, results on stdout and talk on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

PLAIN_WIDTH = 160
"""Without a terminal there is no width to fit; wide enough that rows are not broken."""


def console() -> Console:
    """A console on stdout: colours on a terminal only."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


def say(text: str) -> None:
    """One line about what is happening, on stderr, so that stdout holds only results."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_json(value: Any) -> None:
    """`value` as indented JSON on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on stdout; numbers are aligned to the right."""
    table = Table(title=title or None, title_justify="left", header_style="bold")
    materialized = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(materialized) and all(_is_number(row[index]) for row in materialized)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in materialized:
        table.add_row(*(shown(value) for value in row))
    console().print(table)


def shown(value: Any) -> str:
    """A cell: thousands separated, floats to six significant digits, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value + 0.0:,.6g}"  # without it, minus zero is "-0"
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
