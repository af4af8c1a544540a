"""`tidal rebuild VIEW`: fold a view again beside the running one, then swap it in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidal.cli.connection import BrokersOption, DataOption, brokers_of
from tidal.cli.output import print_json, say
from tidal.cli.refold_progress import ProgressLine
from tidal.cli.schema import read_schema
from tidal.cli.settings import effective_settings
from tidal.cli.verify import SchemaOption, check_views

if TYPE_CHECKING:
    from materializers.refold.rebuild import SwappedPartition

EXAMPLE = "Example:  [bold]tidal rebuild global_signals --data ./data[/bold]"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("rebuild", epilog=EXAMPLE)(rebuild)


def rebuild(
    view: Annotated[str, typer.Argument(metavar="VIEW", help="The view, as `tidal verify` names it.")],
    data: DataOption = None,
    brokers: BrokersOption = None,
    schema: SchemaOption = None,
    json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False,
) -> None:
    """Fold the log again for one view while everything runs, and swap the new rows in.

    Views that share a table are rebuilt together. Each partition stands still for a second or so while it is
    swapped; queries go on. Ending it early, with Ctrl-C too, leaves each partition with its old rows or its
    new ones.
    """
    from materializers.refold.rebuild import rebuild as run
    from materializers.refold.rebuild import views_together
    from materializers.registry import default_registry

    settings = effective_settings({"site": {"schema": schema}})
    registry = default_registry()
    check_views(registry, [view])
    together = [each.name for each in views_together(registry, view) if each.name != view]
    if together:
        say(f"{view} shares tables with {', '.join(together)}: all are rebuilt")
    line = ProgressLine()

    def swapped(partition: SwappedPartition) -> None:
        line.end()
        say(
            f"partition {partition.partition} of {partition.worker}: {partition.rows:,} rows in force, "
            f"{partition.vanished:,} old ones gone, stood still for {partition.held_s:.2f} s"
        )

    try:
        outcome = run(
            data or Path(settings.site.data_dir),
            brokers_of(brokers, data),
            read_schema(Path(settings.site.schema) if settings.site.schema else None),
            registry,
            settings.topics.partitions,
            view,
            application=settings.topics.app,
            watch=line,
            swapped=swapped,
        )
    finally:
        line.end()
    if json:
        print_json(outcome)
        return
    sys.stdout.write(
        f"rebuilt {', '.join(outcome.views)}: {outcome.events:,} events folded, "
        f"{len(outcome.partitions)} partitions swapped in {outcome.seconds:.1f} s\n"
    )
