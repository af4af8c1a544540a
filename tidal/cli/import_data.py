"""`tidal import`: brings data sets and plain files into a running site."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer

from schemas.loading import load_schema
from schemas.model import EntityKind, Schema
from streams.producer import Producer
from tidal.cli.connection import BrokersOption, DataOption, HttpOption, KeyOption, brokers_of, connect
from tidal.cli.output import console, print_json, say
from tidal.client import Client
from tidal.importers import movielens_import, plain_files
from tidal.importers.resume import ResumeFile, log_id
from tidal.importers.rows import Refusals
from tidal.publishing import Publisher
from tidal.visibility import wait_visible

# The whole of a million events on a small machine, with a wide margin.
VISIBLE_TIMEOUT_S: Final = 600.0

PathArgument = Annotated[Path, typer.Argument(metavar="PATH", help="The file or folder to read.")]
AgainOption = Annotated[
    bool, typer.Option("--again", help="Import from the start, also what was done before.")
]
ShiftOption = Annotated[
    bool, typer.Option("--shift-to-now", help="Move the newest event to now; else data keeps its own time.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="The outcome as JSON.")]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state", metavar="DIR", help="Where to remember how far it came; default: the data folder."
    ),
]

EXAMPLE: Final = "Example:  [bold]tidal import movielens ml-100k --data ./data[/bold]"


def register(app: typer.Typer) -> None:
    """Adds the command group."""
    group = typer.Typer(
        help="Bring data into a running site: users and items first, then events, in batches, resumable.",
        no_args_is_help=True,
        epilog=EXAMPLE,
    )
    group.command("movielens", epilog=EXAMPLE)(movielens)
    group.command("events", epilog="Example:  [bold]tidal import events clicks.jsonl.gz[/bold]")(events)
    for kind in get_args(EntityKind):
        example = f"Example:  [bold]tidal import {kind}s {kind}s.csv[/bold]"
        group.command(f"{kind}s", help=f"{kind.capitalize()} records, CSV or JSONL.", epilog=example)(
            _records_command(kind)
        )
    app.add_typer(group, name="import")


def movielens(
    path: PathArgument,
    http: HttpOption = None,
    data: DataOption = None,
    brokers: BrokersOption = None,
    key: KeyOption = None,
    state: StateOption = None,
    shift_to_now: ShiftOption = False,
    again: AgainOption = False,
    json: JsonOption = False,
) -> None:
    """MovieLens (100k, 1m, latest, or in atomic files): users, films with genres, ratings as signals."""
    with _opened(_Site(http, data, brokers, key, state), f"movielens {path.resolve()}", again) as run:
        for warning in movielens_import.warnings_about(run.schema):
            say(f"warning: {warning}")
        imported = movielens_import.import_movielens(
            path, run.schema, run.publisher, run.resume, shift_to_now=shift_to_now
        )
        run.finish(imported.counts, imported.refusals, json)


def events(
    path: PathArgument,
    http: HttpOption = None,
    data: DataOption = None,
    brokers: BrokersOption = None,
    key: KeyOption = None,
    state: StateOption = None,
    shift_to_now: ShiftOption = False,
    again: AgainOption = False,
    json: JsonOption = False,
) -> None:
    """Events, CSV or JSONL: kind, item, and if known user, weight and ts."""
    with _opened(_Site(http, data, brokers, key, state), f"events {path.resolve()}", again) as run:
        refusals = Refusals()
        shift_ms = 0
        newest_ms = plain_files.newest_ms(path, run.schema) if shift_to_now else None
        if newest_ms is not None:
            shift_ms = run.resume.newest_ms(time.time_ns() // 1_000_000) - newest_ms
        total = plain_files.count_rows(path)
        steps = partial(plain_files.event_steps, path, run.schema, shift_ms, refusals)
        run.publisher.publish_events("events", total, steps)
        run.finish({"events": total}, refusals, json)


def _records_command(kind: EntityKind) -> Any:
    def command(
        path: PathArgument,
        http: HttpOption = None,
        data: DataOption = None,
        brokers: BrokersOption = None,
        key: KeyOption = None,
        state: StateOption = None,
        again: AgainOption = False,
        json: JsonOption = False,
    ) -> None:
        with _opened(_Site(http, data, brokers, key, state), f"{kind}s {path.resolve()}", again) as run:
            refusals = Refusals()
            entries = list(plain_files.read_records(path, kind, run.schema, refusals))
            run.publisher.publish_records(kind, entries, partial(refusals.add, path))
            run.finish({f"{kind}s": len(entries)}, refusals, json)

    return command


@dataclass(frozen=True, slots=True)
class _Site:
    """How the command line names the running site."""

    http: str | None
    data: Path | None
    brokers: str | None
    key: str | None
    state: Path | None

    @property
    def state_folder(self) -> Path:
        """Beside the data that is imported into; where that is not known, in the user's own state folder."""
        own = Path(os.environ.get("XDG_STATE_HOME", "~/.local/state")).expanduser() / "tidal"
        return self.state or self.data or own


@dataclass(slots=True)
class _Run:
    """An import under way."""

    client: Client
    schema: Schema
    publisher: Publisher
    resume: ResumeFile

    def finish(self, counts: dict[str, int], refusals: Refusals, json: bool) -> None:
        """Waits until all of it is visible to queries, and says what was done."""
        say("everything is in the log; waiting until queries see it")
        wait_visible(self.client, self.publisher.positions, VISIBLE_TIMEOUT_S)
        self.resume.finish()
        for line in refusals.lines():
            say(f"refused: {line}")
        if json:
            position = self.publisher.positions.encode()
            print_json({"imported": counts, "refused": refusals.count, "position": position})
        else:
            done = ", ".join(f"{count:,} {name}" for name, count in counts.items())
            say(f"imported {done}; {refusals.count:,} rows refused")


@contextmanager
def _opened(site: _Site, source: str, again: bool) -> Iterator[_Run]:
    with connect(site.http, site.data, site.key) as client:
        schema = load_schema(client.schema())
        log = brokers_of(site.brokers, site.data)
        resume = ResumeFile(site.state_folder, f"{source} into log {log_id(log)}")
        if not again and resume.load():
            say("an earlier run was interrupted; going on from there")
        with Producer(log, schema=schema) as producer:
            yield _Run(client, schema, Publisher(producer, resume, console()), resume)
