"""`tidal schema`: show the schema, validate a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schemas.default import default_schema
from schemas.errors import SchemaError
from schemas.loading import load_schema, to_document
from schemas.model import Schema
from tidal.cli.failure import CommandError
from tidal.cli.output import print_json, print_table, say

SHOW_EXAMPLE = "Example:  [bold]tidal schema show --schema my_site.yaml --json[/bold]"
VALIDATE_EXAMPLE = "Example:  [bold]tidal schema validate my_site.yaml[/bold]"


def register(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(help="Show and validate schemas.", no_args_is_help=True)
    group.command("show", epilog=SHOW_EXAMPLE)(show)
    group.command("validate", epilog=VALIDATE_EXAMPLE)(validate)
    app.add_typer(group, name="schema")


def show(
    schema: Annotated[
        Path | None,
        typer.Option("--schema", metavar="FILE", help="A schema file; the default schema without it."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The whole document as JSON.")] = False,
) -> None:
    """Show a schema with everything that it gets from the default."""
    loaded = read_schema(schema)
    if json:
        print_json(to_document(loaded))
        return
    _print_schema(loaded)


def validate(
    file: Annotated[Path, typer.Argument(help="A schema in YAML or JSON.")],
    json: Annotated[bool, typer.Option("--json", help="The problems as JSON.")] = False,
) -> None:
    """Check a schema file and list every problem in it."""
    try:
        loaded = read_schema(file)
    except CommandError as error:
        cause = error.__cause__
        if json and isinstance(cause, SchemaError):
            print_json({"valid": False, "problems": cause.problems})
        raise
    if json:
        print_json({"valid": True, "problems": []})
    else:
        say(f"{file}: valid; schema {loaded.name!r} with {len(loaded.signals)} signals")


def read_schema(file: Path | None) -> Schema:
    """The schema of a file, or the default one. Raises CommandError that lists every problem."""
    if file is None:
        return default_schema()
    if not file.is_file():
        raise CommandError(
            "there is no such schema file", where=str(file), do="check the path given with --schema"
        )
    try:
        return load_schema(file)
    except SchemaError as error:
        raise CommandError(
            str(error), where=str(file), do="correct the lines above and run it again"
        ) from error


def _print_schema(schema: Schema) -> None:
    say(f"schema {schema.name!r}, version {schema.version}")
    for kind, entity in schema.entities.items():
        rows = [[field.name, field.type] for field in entity.fields.values()]
        rows += [
            [slot.name, f"embedding of {slot.dim}, {slot.metric}"] for slot in entity.embeddings.values()
        ]
        print_table(kind, ["field", "type"], rows)
    print_table(
        "signals",
        ["signal", "category", "polarity", "decay", "windows", "state", "preference"],
        [
            [s.name, s.category, s.polarity, " ".join(s.decay.labels) or s.decay.kind, " ".join(s.windows),
             " ".join(s.state), s.preference]
            for s in schema.signal_list
        ],
    )  # fmt: skip
    print_table(
        "profiles",
        ["profile", "version", "signal", "window", "sources", "terms"],
        [
            [p.name, p.version, p.signal, p.window, " ".join(s.source for s in p.sources),
             " ".join(t.term for t in p.terms)]
            for p in schema.profile_versions
        ],
    )  # fmt: skip
    dimensions = [[d.name, d.field, " ".join(d.labels)] for d in schema.dimensions.values()]
    print_table("dimensions", ["dimension", "field", "values"], dimensions)
