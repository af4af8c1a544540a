"""`tidal bench`: the benchmarks of the README, each run by its own module under benchmarks/."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from enum import StrEnum
from typing import Annotated

import typer

from tidal.cli.failure import CommandError

EXAMPLE = "Example:  [bold]tidal bench ingest -- --events 1000000[/bold]"


class Benchmark(StrEnum):
    """What can be measured."""

    INGEST = "ingest"
    QUERY = "query"
    FRESHNESS = "freshness"
    LOG = "log"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command("bench", epilog=EXAMPLE, context_settings=settings)(bench)


def bench(
    context: typer.Context, name: Annotated[Benchmark, typer.Argument(help="Which benchmark.")]
) -> None:
    """Run a benchmark; further options go to it."""
    module = f"benchmarks.{name.value}"
    if not _exists(module):
        raise CommandError(
            f"the benchmark {name.value!r} is not part of this installation",
            where=module,
            do="run it from a checkout of the repository, where benchmarks/ is",
        )
    code = subprocess.run([sys.executable, "-m", module, *context.args], check=False).returncode  # noqa: S603
    raise typer.Exit(code)


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
