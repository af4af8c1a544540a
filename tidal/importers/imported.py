"""What an import did."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from schemas.model import Schema
from tidal.importers.rows import Refusals


class Imported(NamedTuple):
    """counts: what was read, by its name. refusals: rows that could not be used.

    dead: rows that are in the log and that the engine refuses, each into the dead-letter topic.
    """

    counts: dict[str, int]
    refusals: Refusals
    dead: Refusals


def undeclared(schema: Schema, signals: Iterable[str]) -> list[str]:
    """What to say of signals that the running schema lacks; empty if it has all."""
    return [
        f"the running schema declares no signal {name!r}: what would be one is left out"
        for name in signals
        if name not in schema.signals
    ]
