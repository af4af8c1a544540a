"""`tidal log user`: a user of the embedded log, with the password hashed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tidal.child_process import write_atomically
from tidal.cli.failure import CommandError
from tidal.cli.output import say

EXAMPLE = "Example:  [bold]tidal log user app --users ./users < password.txt[/bold]"
_OWNER_ONLY = 0o600


def register(group: typer.Typer) -> None:
    """Adds the command."""
    group.command("user", epilog=EXAMPLE)(user)


def user(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")],
    users: Annotated[
        Path | None,
        typer.Option("--users", metavar="FILE", help="Put the line there, in place of one for that name."),
    ] = None,
) -> None:
    """Make the line of a user; the password is asked for, or read from standard input."""
    from streams.embedded import UsersError
    from streams.embedded.users import user_line

    try:
        line = user_line(name, _password())
    except UsersError as error:
        raise CommandError(str(error), where="tidal log user") from error
    if users is None:
        sys.stdout.write(line + "\n")
        return
    _replace(users, name, line)
    say(f"user {name} is in {users}; a running log reads it at its next start")


def _password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")


def _replace(path: Path, name: str, line: str) -> None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [old for old in lines if old.partition(":")[0].strip() != name]
        write_atomically(path, "\n".join([*kept, line]) + "\n")
        path.chmod(_OWNER_ONLY)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be written: {error}", where="--users") from error
