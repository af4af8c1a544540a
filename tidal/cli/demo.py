"""`tidal demo`: the whole path on a generated site, with its answers recounted from the raw log."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tidal.cli.failure import FAILED, CommandError
from tidal.cli.output import console, print_json

EXAMPLE = "Example:  [bold]tidal demo --seed 7[/bold]"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("demo", epilog=EXAMPLE)(demo)


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Keep the data here; without it, it goes when the demo ends."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same site.")] = 7,
    users: Annotated[int, typer.Option("--users", min=100)] = 2_000,
    items: Annotated[int, typer.Option("--items", min=100)] = 3_000,
    events: Annotated[int, typer.Option("--events", min=1_000)] = 200_000,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Keep everything running afterwards, until Ctrl-C."),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="The outcome as JSON; progress goes to stderr.")
    ] = False,
) -> None:
    """Generate a small site, run the whole path, ask the reference queries and recount their answers."""
    from tidal.demo.run import run_demo
    from tidal.demo.site import SiteSize

    if data is not None and data.exists() and any(data.iterdir()):
        raise CommandError(
            "the demo needs an empty folder", where=str(data), do="name another one, or leave --data out"
        )
    size = SiteSize(users=users, items=items, events=events)
    with tempfile.TemporaryDirectory(prefix="tidal-demo-") as scratch:
        shown_on = Console(stderr=True) if json else console()
        outcome = run_demo(data or Path(scratch), seed, size, shown_on, serve=serve)
    if json:
        print_json(outcome.summary())
    if not outcome.is_equal:
        raise typer.Exit(FAILED)
