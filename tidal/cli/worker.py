"""`tidal worker`: one worker alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tidal.child_process import announce_ready, die_with_parent
from tidal.cli.child_options import ParentOption, ReadyFileOption
from tidal.cli.schema import read_schema
from tidal.cli.settings import effective_settings
from tidal.cli.signals import exit_code_of
from tidal.cli.structured_logs import configure_logs

EXAMPLE = "Example:  [bold]tidal worker --data ./data --brokers 127.0.0.1:9092 --name worker-1[/bold]"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("worker", epilog=EXAMPLE)(worker)


def worker(
    data: Annotated[
        str | None, typer.Option("--data", metavar="DIR", help="Tables are kept in DIR/workers/NAME.")
    ] = None,
    brokers: Annotated[
        str | None, typer.Option("--brokers", metavar="HOST:PORT,…", help="The log to read.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Unique among the workers; names its folder.")
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option("--schema", metavar="FILE", help="The site's schema; the default one without it."),
    ] = None,
    ready_file: ReadyFileOption = None,
    parent: ParentOption = None,
) -> None:
    """Fold the log into tables; several workers share the partitions."""
    die_with_parent(parent)
    settings = effective_settings(
        {"site": {"data_dir": data, "brokers": brokers, "schema": schema}, "worker": {"name": name}}
    )
    configure_logs(settings.worker.name)
    from materializers.worker import run_worker

    loaded = read_schema(Path(settings.site.schema) if settings.site.schema else None)
    ended_by = run_worker(settings, loaded, settings.worker.name, on_ready=lambda: announce_ready(ready_file))
    raise typer.Exit(exit_code_of(ended_by))
