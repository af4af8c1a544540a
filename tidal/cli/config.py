"""`tidal config show`: every setting, its value, and where the value came from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from schemas.settings import Settings
from tidal.cli.output import print_json, print_table
from tidal.cli.settings import settings_with_origins

EXAMPLE = "Example:  [bold]TIDAL_QUERYD_HTTP=127.0.0.1:9000 tidal config show[/bold]"

_SECRETS = ("password", "users")


def register(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(help="Look at the settings.", no_args_is_help=True)
    # A callback keeps a group of one command a group: `tidal config show`, not `tidal config`.
    group.callback()(_group)
    group.command("show", epilog=EXAMPLE)(show)
    app.add_typer(group, name="config")


def _group() -> None:
    """Look at the settings."""


def show(json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show every setting and whether a flag, TIDAL_*, tidal.toml or the default gave it."""
    settings, origins = settings_with_origins()
    rows = [
        [f"{section}.{name}", _shown(settings, section, name), origins[f"{section}.{name}"]]
        for section in settings.__struct_fields__
        for name in getattr(settings, section).__struct_fields__
    ]
    if json:
        print_json({name: {"value": value, "origin": origin} for name, value, origin in rows})
    else:
        print_table("", ["setting", "value", "origin"], rows)


def _shown(settings: Settings, section: str, name: str) -> Any:
    """A password is only said to be there."""
    value = getattr(getattr(settings, section), name)
    return "(hidden)" if name in _SECRETS and value else value
