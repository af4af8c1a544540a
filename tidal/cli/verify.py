"""`tidal verify`: are the tables what the log says?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from tidal.cli.connection import BrokersOption, DataOption, brokers_of
from tidal.cli.failure import FAILED, UsageError
from tidal.cli.output import print_json, print_table, say
from tidal.cli.refold_progress import ProgressLine
from tidal.cli.schema import read_schema
from tidal.cli.settings import effective_settings

if TYPE_CHECKING:
    from materializers.refold.compare import Difference
    from materializers.refold.verify import Verification
    from materializers.registry import MaterializerRegistry

EXAMPLE = "Example:  [bold]tidal verify --data ./data[/bold]"
SHOWN_MAX = 20

SchemaOption = Annotated[
    str | None, typer.Option("--schema", metavar="FILE", help="The schema that the workers use.")
]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("verify", epilog=EXAMPLE)(verify)


def verify(
    data: DataOption = None,
    brokers: BrokersOption = None,
    schema: SchemaOption = None,
    view: Annotated[
        list[str] | None, typer.Option("--view", help="Only this view; may be given several times.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False,
) -> None:
    """Fold the log again up to where the tables are, compare, and name every difference.

    Workers and queryd may run meanwhile. Exits with 0 when everything was compared and is equal, with 1 when
    something differs or could not be compared.
    """
    from materializers.refold.verify import verify as compare
    from materializers.registry import default_registry

    settings = effective_settings({"site": {"schema": schema}})
    registry = default_registry()
    check_views(registry, view or [])
    line = ProgressLine()
    try:
        found = compare(
            data or Path(settings.site.data_dir),
            brokers_of(brokers, data),
            read_schema(Path(settings.site.schema) if settings.site.schema else None),
            registry,
            settings.topics.partitions,
            only=view or [],
            watch=line,
        )
    finally:
        line.end()
    if json:
        outcome = {"equal": found.is_equal, "complete": found.is_complete}
        print_json(outcome | msgspec.to_builtins(found))
    else:
        _print(found)
    if not (found.is_equal and found.is_complete):
        raise typer.Exit(FAILED)


def check_views(registry: MaterializerRegistry, names: list[str]) -> None:
    """Raises UsageError for a name that no view has."""
    from materializers.materializer import Scope

    known = [each.name for scope in Scope for each in registry.of(scope)]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"no view is called {', '.join(unknown)}", do=f"one of {', '.join(known)}")


def _print(found: Verification) -> None:
    rows = [
        [result.view, result.facts, result.differing, result.not_compared or "compared"]
        for result in found.views
    ]
    print_table("", ["view", "facts in the tables", "differ", "state"], rows)
    for result in found.views:
        _print_differences(result.view, result.differences, result.differing)
    for note in found.notes:
        say(f"note: {note}")
    if not found.is_equal:
        verdict = "the tables differ from the log"
    elif found.is_complete:
        verdict = f"equal: the tables are what the log says ({found.events:,} events folded)"
    else:
        verdict = "what could be compared is equal"
    sys.stdout.write(verdict + "\n")


def _print_differences(view: str, differences: list[Difference], count: int) -> None:
    for each in differences[:SHOWN_MAX]:
        stored, expected = each.stored or "nothing", each.expected or "nothing"
        sys.stdout.write(
            f"{view}: {each.table}, partition {each.partition}: {each.key}\n"
            f"  table: {stored}\n  log:   {expected}\n"
        )
    if count > SHOWN_MAX:
        sys.stdout.write(f"{view}: {count - SHOWN_MAX:,} more differences; --json lists them\n")
