"""`tidal status`: how the engine is doing, once or continuously."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.live import Live

from tidal.cli.connection import DataOption, HttpOption, KeyOption, connect
from tidal.cli.failure import FAILED
from tidal.cli.output import console, print_json
from tidal.cli.status_view import render
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
