"""Options that `tidal up` gives to its children; people have no use for them, so --help hides them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ReadyFileOption = Annotated[Path | None, typer.Option("--ready-file", hidden=True)]
ParentOption = Annotated[int | None, typer.Option("--parent", hidden=True)]
