"""`tidal log mirror`: move to another log, every record at the offset that it had."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from schemas.settings import BrokerSettings
from tidal.cli.connection import BrokersOption, DataOption, brokers_of
from tidal.cli.failure import CommandError, UsageError
from tidal.cli.output import print_json, say

if TYPE_CHECKING:
    from streams.broker_security import BrokerSecurity

EXAMPLE = "Example:  [bold]tidal log mirror --data ./data --to kafka-1:9092,kafka-2:9092[/bold]"


def register(group: typer.Typer) -> None:
    """Adds the command."""
    group.command("mirror", epilog=EXAMPLE)(mirror)


def mirror(
    to: Annotated[str, typer.Option("--to", metavar="HOST:PORT,…", help="The log to copy into.")],
    data: DataOption = None,
    brokers: BrokersOption = None,
    to_security: Annotated[
        Path | None,
        typer.Option("--to-security", metavar="FILE", help="TOML: security, user, password_file, ca_file."),
    ] = None,
    topic: Annotated[
        list[str] | None, typer.Option("--topic", help="Only this one; may be repeated.")
    ] = None,
    replication: Annotated[int, typer.Option("--replication", help="Of new topics; -1: its default.")] = -1,
    verify: Annotated[bool, typer.Option(help="Read both logs again and compare every record.")] = True,
    json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False,
) -> None:
    """Copy topics with offsets, settings and committed offsets; run it again after writers have stopped."""
    from streams.errors import StreamError
    from streams.mirror import Log
    from streams.mirror import mirror as copy

    source = Log(brokers_of(brokers, data))
    target = Log(to, _security(to_security))
    try:
        report = copy(source, target, topic or (), replication=replication, verify=verify, say=say)
    except StreamError as error:
        raise CommandError(str(error), where=f"tidal log mirror --to {to}") from error
    if json:
        print_json(report)
    else:
        say(
            f"{report.copied:,} records of {report.topics} topics copied, {report.compared:,} compared, "
            f"offsets of {report.groups} groups set"
        )


def _security(path: Path | None) -> BrokerSecurity:
    """How the target is reached; plainly without a file. Raises UsageError, BrokerSecurityError."""
    from streams.broker_security import BrokerSecurity, security_of

    if path is None:
        return BrokerSecurity()
    try:
        return security_of(msgspec.convert(tomllib.loads(path.read_text("utf-8")), BrokerSettings))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be used: {error}", where="--to-security") from error
