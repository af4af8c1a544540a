"""`tidal up`: everything in one terminal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from queryd.http.access import check_exposure
from schemas.settings import Settings
from tidal.child_process import die_with_parent
from tidal.cli.addresses import parse_address
from tidal.cli.child_options import ParentOption
from tidal.cli.failure import CommandError
from tidal.cli.keys import keys_of
from tidal.cli.output import say
from tidal.cli.schema import read_schema
from tidal.cli.settings import effective_settings
from tidal.cli.signals import StopSignal
from tidal.endpoints import Endpoints
from tidal.stack import Stack, StackPlan

EXAMPLE = "Example:  [bold]tidal up --data ./data --http 127.0.0.1:8080 --log 127.0.0.1:9092[/bold]"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("up", epilog=EXAMPLE)(up)


def up(
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Where everything is kept; made if missing.")
    ] = None,
    http: Annotated[
        str | None,
        typer.Option("--http", metavar="HOST:PORT", help="Where queryd listens; port 0 takes a free one."),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            "--log", metavar="HOST:PORT", help="Where the embedded log listens; port 0 takes a free one."
        ),
    ] = None,
    brokers: Annotated[
        str | None,
        typer.Option(
            "--brokers", metavar="HOST:PORT,…", help="Use this Kafka cluster instead of the embedded log."
        ),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option("--schema", metavar="FILE", help="The site's schema; the default one without it."),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", metavar="FILE", help="Keys for HTTP; needed beyond this machine.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Worker processes.")] = 1,
    queryds: Annotated[
        int, typer.Option("--queryds", min=1, max=64, help="queryd processes, on one port.")
    ] = 1,
    parent: ParentOption = None,
) -> None:
    """Run everything: the embedded log, topics, workers and queryd, each a supervised process."""
    die_with_parent(parent)
    settings = effective_settings(
        {
            "site": {"data_dir": _text(data), "brokers": brokers, "schema": _text(schema)},
            "log": {"listen": log},
            "queryd": {"http": http, "keys_file": _text(keys)},
        }
    )
    plan = plan_of(settings, workers, queryds)
    check_exposure(parse_address(plan.http, "--http").host, keys_of(settings))
    read_schema(plan.schema)
    raise typer.Exit(asyncio.run(_run(plan)))


def plan_of(settings: Settings, workers: int, queryds: int) -> StackPlan:
    """What these settings ask to run."""
    return StackPlan(
        data=Path(settings.site.data_dir),
        http=str(parse_address(settings.queryd.http, "--http")),
        log=str(parse_address(settings.log.listen, "--log")),
        brokers=settings.site.brokers or None,
        schema=_path(settings.site.schema),
        keys=_path(settings.queryd.keys_file),
        workers=workers,
        queryds=queryds,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _path(text: str) -> Path | None:
    return Path(text) if text else None


async def _run(plan: StackPlan) -> int:
    started = time.monotonic()
    stop = StopSignal()
    stack = Stack(plan, say)
    try:
        endpoints = await _until_stopped(stack, stop)
        if endpoints is not None:
            _say_ready(plan, endpoints, time.monotonic() - started)
            await _first(stop.wait(), stack.failed.wait())
        failed = stack.failed.is_set() and stop.received is None
    finally:
        say("stopping …")
        await stack.stop()
    if failed:
        raise CommandError(
            "a process could not be kept alive", where=str(plan.data / "logs"), do="read its log there"
        )
    say("stopped")
    return stop.exit_code


async def _until_stopped(stack: Stack, stop: StopSignal) -> Endpoints | None:
    """Starts the stack; None when a signal comes first."""
    starting = asyncio.create_task(stack.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if starting.done():
        return starting.result()
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting
    return None


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Returns when the first of them is done."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _say_ready(plan: StackPlan, endpoints: Endpoints, took_s: float) -> None:
    say(f"Tidal is ready after {took_s:.1f} s")
    say(f"  HTTP  {endpoints.http}  (reference: {endpoints.http}/docs)")
    say(f"  log   {endpoints.brokers}")
    say(f"  data  {plan.data}")
    say("Ctrl-C stops everything.")
