"""`tidal import`: brings data sets and plain files into a running site."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from tidal.cli.output import console, say

VISIBLE_TIMEOUT_S: Final = 600.0

DataDir = Annotated[Path, typer.Option("--data", help="Folder of the running `tidal up`.")]
Http = Annotated[str | None, typer.Option(help="HOST:PORT of queryd, instead of what --data says.")]
Brokers = Annotated[str | None, typer.Option(help="HOST:PORT of the log, instead of what --data says.")]
Again = Annotated[bool, typer.Option("--again", help="Import although it was done before, from the start.")]
Shift = Annotated[bool, typer.Option("--shift-to-now", help="Move the newest event to now.")]
