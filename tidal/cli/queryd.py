"""`tidal queryd`: the query daemon alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from schemas.settings import PROCESS_NAME, Settings
from tidal.child_process import announce_ready, die_with_parent
from tidal.cli.addresses import parse_address
from tidal.cli.child_options import ParentOption, ReadyFileOption
from tidal.cli.failure import CommandError, UsageError
from tidal.cli.keys import keys_of
from tidal.cli.schema import read_schema
from tidal.cli.settings import effective_settings
from tidal.cli.signals import StopSignal
from tidal.cli.structured_logs import configure_logs

EXAMPLE = "Example:  [bold]tidal queryd --data ./data --brokers 127.0.0.1:9092 --http 127.0.0.1:8080[/bold]"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("queryd", epilog=EXAMPLE)(queryd)


def queryd(
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR", help="Where the workers of this machine keep their tables."),
    ] = None,
    brokers: Annotated[
        str | None, typer.Option("--brokers", metavar="HOST:PORT,…", help="The log that writes go to.")
    ] = None,
    http: Annotated[
        str | None,
        typer.Option("--http", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one."),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", help="Unique among the queryds on one folder; names its own.")
    ] = "queryd-0",
    schema: Annotated[
        str | None,
        typer.Option("--schema", metavar="FILE", help="The site's schema; the default one without it."),
    ] = None,
    keys: Annotated[
        str | None, typer.Option("--keys", metavar="FILE", help="Keys for HTTP; needed beyond this machine.")
    ] = None,
    share_port: Annotated[
        bool, typer.Option("--share-port", help="Let several queryds listen on this address (SO_REUSEPORT).")
    ] = False,
    ready_file: ReadyFileOption = None,
    parent: ParentOption = None,
) -> None:
    """Serve queries, writes and status over HTTP."""
    die_with_parent(parent)
    if not re.fullmatch(PROCESS_NAME, name):
        raise UsageError(
            f"{name!r} cannot be a folder's name",
            where="--name",
            do="use letters, digits, - and _, at most 63",
        )
    configure_logs(name)
    settings = effective_settings(
        {
            "site": {"data_dir": data, "brokers": brokers, "schema": schema},
            "queryd": {"http": http, "keys_file": keys},
        }
    )
    raise typer.Exit(serve(settings, name, ready_file, share_port=share_port))


def serve(settings: Settings, name: str, ready_file: Path | None, *, share_port: bool) -> int:
    """Serves until a signal; returns the exit code."""
    import uvloop

    from queryd.daemon import DaemonConfig
    from queryd.daemon import serve as serve_daemon

    address = parse_address(settings.queryd.http, "--http")
    schema = read_schema(Path(settings.site.schema) if settings.site.schema else None)
    config = DaemonConfig(
        name=name,
        host=address.host,
        port=address.port,
        share_port=share_port,
        keys=keys_of(settings),
        settings=settings,
    )

    async def until_signal() -> int:
        stop = StopSignal()
        await serve_daemon(config, schema, lambda bound: announce_ready(ready_file, bound), stop.wait)
        return stop.exit_code

    try:
        return uvloop.run(until_signal())
    except OSError as error:
        if error.filename is not None:
            raise
        raise CommandError(f"cannot listen: {error.strerror or error}", where=f"--http {address}") from error
