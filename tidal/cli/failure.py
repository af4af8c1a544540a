"""How a command fails: on stderr as *what, where, what to do*, with the exit code of its kind."""

from __future__ import annotations

import sys

from schemas.errors import TidalError

DONE = 0
FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130


class CommandError(TidalError):
    """A command cannot go on. `where` and `do` may be empty when there is nothing to say."""

    exit_code = FAILED

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.do = do


class UsageError(CommandError):
    """The command was called with arguments that cannot be used."""

    exit_code = WRONG_USAGE


def report_failure(what: str, where: str = "", do: str = "") -> None:
    """Writes the three lines to stderr; a part that is empty is left out."""
    lines = [f"error: {what}"]
    lines += [f"where: {where}"] if where else []
    lines += [f"what to do: {do}"] if do else []
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()
