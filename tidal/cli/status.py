"""`tidal status`: how the engine is doing, once or continuously."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from queryd.http.shapes import Readiness, Status
from tidal.cli.connection import DataOption, HttpOption, KeyOption, connect
from tidal.cli.failure import FAILED
from tidal.cli.output import console, print_json, shown
from tidal.client import Client

EXAMPLE = "Example:  [bold]tidal status --data ./data --watch[/bold]"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("status", epilog=EXAMPLE)(status)


def status(
    http: HttpOption = None,
    data: DataOption = None,
    key: KeyOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again until Ctrl-C.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, help="Seconds between two looks with --watch.")
    ] = 1.0,
    json: Annotated[
        bool, typer.Option("--json", help="As JSON; with --watch, one line for each look.")
    ] = False,
) -> None:
    """Show log ends, applied offsets, lag, tables, freshness, refused records, versions and what degrades.

    Exits with 1 when the engine is not ready.
    """
    with connect(http, data, key) as client:
        if watch:
            _watch(client, every, json)
        state, readiness = client.status(), client.readiness()
    if json:
        print_json(state)
    else:
        console().print(render(state, readiness))
    if not readiness.ready:
        raise typer.Exit(FAILED)


def _watch(client: Client, every_s: float, json: bool) -> None:
    """Runs until Ctrl-C."""
    if json:
        while True:
            print_json(client.status())
            time.sleep(every_s)
    with Live(console=console(), auto_refresh=False) as live:
        while True:
            live.update(render(client.status(), client.readiness()), refresh=True)
            time.sleep(every_s)


def render(state: Status, readiness: Readiness) -> RenderableType:
    """The status as tables: plain values first, then one table for each part that is a list or a tree."""
    head = Text(
        "ready" if readiness.ready else "not ready", style="bold green" if readiness.ready else "bold red"
    )
    if readiness.why:
        head.append(": " + "; ".join(readiness.why), style="default")
    plain = {
        "version": state.version,
        **{k: v for k, v in state.engine.items() if not isinstance(v, dict | list)},
    }
    parts: list[RenderableType] = [head, _pairs("", plain), _pairs("http", state.http)]
    for name, value in state.engine.items():
        if isinstance(value, dict) and value:
            parts.append(_part(name, value))
        elif isinstance(value, list) and value:
            parts.append(_rows(name, [entry if isinstance(entry, dict) else {"": entry} for entry in value]))
    return Group(*parts)


def _part(name: str, value: Mapping[str, Any]) -> RenderableType:
    """A tree whose children are all alike is a table with a row for each child; any other, names and values."""
    if all(isinstance(child, dict) for child in value.values()):
        return _rows(name, [{"": key, **child} for key, child in value.items()])
    return _pairs(name, value)


def _pairs(title: str, values: Mapping[str, Any]) -> Table:
    table = Table(title=title or None, title_justify="left", show_header=False)
    for name, value in values.items():
        table.add_row(name, shown(value))
    return table


def _rows(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(shown(row.get(column)) for column in columns))
    return table
