"""`tidal log`: the embedded log alone; its sub-commands look into its folder, make users and move away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.settings import LogSettings, Settings
from streams.topics import BY_ITEM, SIGNALS
from tidal.child_process import announce_ready, die_with_parent
from tidal.cli import log_folder, log_mirror, log_user
from tidal.cli.addresses import parse_address
from tidal.cli.child_options import ParentOption, ReadyFileOption
from tidal.cli.failure import CommandError, UsageError
from tidal.cli.output import say
from tidal.cli.settings import effective_settings
from tidal.cli.signals import StopSignal
from tidal.cli.structured_logs import configure_logs

if TYPE_CHECKING:
    from streams.embedded import EmbeddedLog, Security
    from streams.embedded.metadata import Guard

EXAMPLE = "Example:  [bold]tidal log --data ./data --listen 127.0.0.1:9092[/bold]"
APP = "app"
"""Stands for the workers' own group among the guards."""


def register(app: typer.Typer) -> None:
    """Adds the group; without a sub-command it runs the log."""
    group = typer.Typer(invoke_without_command=True, epilog=EXAMPLE)
    group.callback()(log)
    log_folder.register(group)
    log_user.register(group)
    log_mirror.register(group)
    app.add_typer(group, name="log", epilog=EXAMPLE)


def log(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Data folder; the log lives in DIR/log.")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one."),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option("--advertise", metavar="HOST[:PORT]", help="Where clients are told to connect."),
    ] = None,
    certificate: Annotated[
        str | None,
        typer.Option("--certificate", metavar="FILE", help="PEM with its chain; needed beyond this machine."),
    ] = None,
    private_key: Annotated[
        str | None, typer.Option("--private-key", metavar="FILE", help="PEM, the certificate's key.")
    ] = None,
    users: Annotated[
        str | None,
        typer.Option("--users", metavar="FILE", help="Who may log in; lines of `tidal log user`."),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", metavar="HOST:PORT", help="Serve Prometheus metrics there.")
    ] = None,
    ready_file: ReadyFileOption = None,
    parent: ParentOption = None,
) -> None:
    """Serve the embedded log: Kafka's protocol, one node, this machine's disk; or look into its folder."""
    if context.invoked_subcommand is not None:
        return
    if data is None:
        raise UsageError("Missing option '--data'.", where="tidal log", do="see `tidal log --help`")
    import uvloop

    die_with_parent(parent)
    settings = effective_settings(
        {
            "log": {
                "listen": listen, "advertise": advertise, "certificate_file": certificate,
                "private_key_file": private_key, "users_file": users, "metrics": metrics,
            }
        }
    )  # fmt: skip
    configure_logs("log")
    raise typer.Exit(uvloop.run(_serve(data / "log", settings, ready_file)))


async def _serve(folder: Path, settings: Settings, ready_file: Path | None) -> int:
    from streams.embedded import EmbeddedLogError, LogFolderError

    stop = StopSignal()
    try:
        server = log_of(folder, settings)
        await server.start()
    except LogFolderError as error:
        raise CommandError(str(error), where="--data") from error
    except EmbeddedLogError as error:
        raise CommandError(str(error), where="tidal log") from error
    except OSError as error:
        raise CommandError(
            f"cannot listen: {error.strerror or error}", where=f"--listen {settings.log.listen}"
        ) from error
    try:
        if server.metrics_port:
            say(f"metrics at http://{parse_address(settings.log.metrics, '--metrics').host}:"
                f"{server.metrics_port}/metrics")  # fmt: skip
        announce_ready(ready_file, server.address)
        await stop.wait()
    finally:
        await server.stop()
    return stop.exit_code


def log_of(folder: Path, settings: Settings) -> EmbeddedLog:
    """The log that these settings describe, not started. Raises UsageError, UsersError."""
    from streams.embedded import EmbeddedLog
    from streams.embedded import LogSettings as Numbers

    address = parse_address(settings.log.listen, "--listen")
    metrics = parse_address(settings.log.metrics, "--metrics") if settings.log.metrics else None
    return EmbeddedLog(
        folder,
        address.host,
        address.port,
        Numbers(
            segment_bytes=settings.log.segment_bytes,
            commit_interval_ms=settings.log.commit_interval_ms,
            guard_dead_after_ms=round(settings.log.guard_dead_after_s * 1000),
        ),
        security=_security(settings.log),
        advertise=settings.log.advertise,
        guards=guards_of(settings),
        metrics=metrics,
    )


def guards_of(settings: Settings) -> tuple[Guard, ...]:
    """The groups that retention waits for; the workers' own needs its topics from their first record on."""
    from streams.embedded.metadata import Guard

    names = dict.fromkeys(name.strip() for name in settings.log.guard_groups.split(",") if name.strip())
    return tuple(
        Guard(settings.topics.app, (SIGNALS, BY_ITEM)) if name == APP else Guard(name) for name in names
    )


def _security(settings: LogSettings) -> Security | None:
    from streams.embedded import Security
    from streams.embedded.users import parse_users, read_users

    given = {
        "log.certificate_file": settings.certificate_file,
        "log.private_key_file": settings.private_key_file,
        "log.users_file": settings.users_file or settings.users,
    }
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(given):
        return None
    if missing:
        raise UsageError(
            f"a login needs a certificate, its key and users; {' and '.join(missing)} is not set",
            where="tidal log",
            do="set all three or none, see `tidal log --help`",
        )
    users = (
        read_users(Path(settings.users_file))
        if settings.users_file
        else parse_users(settings.users.split(), "log.users")
    )
    return Security(Path(settings.certificate_file), Path(settings.private_key_file), users)
