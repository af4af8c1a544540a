"""`tidal log`: the embedded log alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tidal.child_process import announce_ready, die_with_parent
from tidal.cli.addresses import Address, parse_address
from tidal.cli.child_options import ParentOption, ReadyFileOption
from tidal.cli.failure import CommandError
from tidal.cli.signals import StopSignal
from tidal.cli.structured_logs import configure_logs

EXAMPLE = "Example:  [bold]tidal log --data ./data --listen 127.0.0.1:9092[/bold]"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("log", epilog=EXAMPLE)(log)


def log(
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Data folder; the log lives in DIR/log.")
    ],
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.")
    ] = "127.0.0.1:9092",
    ready_file: ReadyFileOption = None,
    parent: ParentOption = None,
) -> None:
    """Serve the embedded log: Kafka's protocol, one node, this machine's disk."""
    import uvloop

    die_with_parent(parent)
    configure_logs("log")
    raise typer.Exit(uvloop.run(_serve(data / "log", parse_address(listen, "--listen"), ready_file)))


async def _serve(folder: Path, address: Address, ready_file: Path | None) -> int:
    from streams.embedded.embedded_log import EmbeddedLog
    from streams.embedded.errors import LogFolderError

    stop = StopSignal()
    server = EmbeddedLog(folder, address.host, address.port)
    try:
        await server.start()
    except LogFolderError as error:
        raise CommandError(str(error), where="--data") from error
    except OSError as error:
        raise CommandError(
            f"cannot listen: {error.strerror or error}", where=f"--listen {address}"
        ) from error
    try:
        announce_ready(ready_file, server.address)
        await stop.wait()
    finally:
        await server.stop()
    return stop.exit_code
