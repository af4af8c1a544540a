"""`tidal import`: brings data sets and plain files into a running site."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final, NamedTuple, get_args

import typer

from schemas.loading import load_schema
from schemas.model import EntityKind, Schema
from streams.producer import Producer
from tidal.cli.connection import BrokersOption, DataOption, HttpOption, KeyOption, brokers_of, connect
from tidal.cli.output import console, print_json, say
from tidal.client import Client
from tidal.importers import (
    hackernews,
    hackernews_import,
    movielens_import,
    plain_files,
    taobao,
    taobao_import,
)
from tidal.importers.imported import Imported, undeclared
from tidal.importers.resume import ResumeFile, log_id
from tidal.importers.rows import Refusals
from tidal.publishing import Publisher, Step
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


class _Source(NamedTuple):
    """Something that can be imported. `read` publishes it and says what it did."""

    name: str
    help: str
    example: str
    read: Callable[[Path, _Run, bool], Imported]
    has_times: bool = True


def register(app: typer.Typer) -> None:
    """Adds the command group."""
    group = typer.Typer(
        help="Bring data into a running site: users and items first, then events, in batches, resumable.",
        no_args_is_help=True,
        epilog=EXAMPLE,
    )
    for source in _sources():
        epilog = f"Example:  [bold]tidal import {source.name} {source.example}[/bold]"
        make = _command_with_times if source.has_times else _command
        group.command(source.name, help=source.help, epilog=epilog)(make(source))
    app.add_typer(group, name="import")


def _sources() -> Iterator[_Source]:
    yield _Source(
        "movielens",
        "MovieLens (100k, 1m, latest, or in atomic files): users, films with genres, ratings as signals.",
        "ml-100k --data ./data",
        _movielens,
    )
    yield _Source(
        "taobao",
        "Taobao's UserBehavior.csv: items with categories; pv, cart, fav and buy as view, add_to_list, save "
        "and purchase.",
        "UserBehavior.csv.gz --data ./data",
        _taobao,
    )
    yield _Source(
        "hackernews",
        "Hacker News posts as CSV: stories, their authors as creators, points and comments as weights of "
        "like and comment.",
        "hacker_news.csv --data ./data",
        _hackernews,
    )
    yield _Source(
        "events",
        "Events, CSV, JSONL or Parquet: kind, item, and if known user, weight and ts.",
        "clicks.jsonl.gz",
        _events,
    )
    for kind in get_args(EntityKind):
        yield _Source(
            f"{kind}s",
            f"{kind.capitalize()} records, CSV, JSONL or Parquet.",
            f"{kind}s.csv",
            partial(_records, kind),
            has_times=False,
        )


def _movielens(path: Path, run: _Run, shift_to_now: bool) -> Imported:
    for warning in movielens_import.warnings_about(run.schema):
        say(f"warning: {warning}")
    return movielens_import.import_movielens(
        path, run.schema, run.publisher, run.resume, shift_to_now=shift_to_now
    )


def _taobao(path: Path, run: _Run, shift_to_now: bool) -> Imported:
    for warning in undeclared(run.schema, taobao.BEHAVIOURS.values()):
        say(f"warning: {warning}")
    return taobao_import.import_taobao(path, run.schema, run.publisher, run.resume, shift_to_now=shift_to_now)


def _hackernews(path: Path, run: _Run, shift_to_now: bool) -> Imported:
    for warning in undeclared(run.schema, hackernews.SIGNALS.values()):
        say(f"warning: {warning}")
    return hackernews_import.import_hackernews(
        path, run.schema, run.publisher, run.resume, shift_to_now=shift_to_now
    )


def _events(path: Path, run: _Run, shift_to_now: bool) -> Imported:
    refusals, shift_ms = Refusals(), 0
    newest_ms = plain_files.newest_ms(path, run.schema) if shift_to_now else None
    if newest_ms is not None:
        shift_ms = run.resume.newest_ms(time.time_ns() // 1_000_000) - newest_ms
    published = 0

    def steps(first: int) -> Iterator[Step]:
        nonlocal published
        for step in plain_files.event_steps(path, run.schema, shift_ms, refusals, first):
            published += len(step.events)
            yield step

    run.publisher.publish_events("events", plain_files.count_rows(path), steps)
    return Imported({"events": published}, refusals, dead=Refusals())


def _records(kind: EntityKind, path: Path, run: _Run, shift_to_now: bool) -> Imported:
    refusals = Refusals()
    entries = list(plain_files.read_records(path, kind, run.schema, refusals))
    unusable = refusals.count
    run.publisher.publish_records(kind, entries, partial(refusals.add, path))
    taken = len(entries) - (refusals.count - unusable)
    return Imported({f"{kind}s": taken}, refusals, dead=Refusals())


def _command_with_times(source: _Source) -> Callable[..., None]:
    def command(
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
        _run(source, path, _Site(http, data, brokers, key, state), shift_to_now, again, json)

    return command


def _command(source: _Source) -> Callable[..., None]:
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
        _run(source, path, _Site(http, data, brokers, key, state), False, again, json)

    return command


def _run(source: _Source, path: Path, site: _Site, shift_to_now: bool, again: bool, json: bool) -> None:
    with _opened(site, f"{source.name} {path.resolve()}", again) as run:
        run.finish(source.read(path, run, shift_to_now), json)


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
    resumed: bool

    def finish(self, done: Imported, json: bool) -> None:
        """Waits until all of it is visible to queries, and says what was done."""
        say("everything is in the log; waiting until queries see it")
        wait_visible(self.client, self.publisher.positions, VISIBLE_TIMEOUT_S)
        if self.resumed or self.publisher.positions.positions:
            self.resume.finish()
        else:
            self.resume.forget()
        for line in done.refusals.lines():
            say(f"refused: {line}")
        for line in done.dead.lines():
            say(f"to the dead-letter topic: {line}")
        if json:
            print_json(
                {
                    "imported": done.counts,
                    "refused": done.refusals.count,
                    "dead_letters": done.dead.count,
                    "position": self.publisher.positions.encode(),
                }
            )
            return
        counts = ", ".join(f"{count:,} {name}" for name, count in done.counts.items())
        letters = f", {done.dead.count:,} in the dead-letter topic" if done.dead.count else ""
        say(f"imported {counts}; {done.refusals.count:,} rows refused{letters}")


@contextmanager
def _opened(site: _Site, source: str, again: bool) -> Iterator[_Run]:
    with connect(site.http, site.data, site.key) as client:
        schema = load_schema(client.schema())
        log = brokers_of(site.brokers, site.data)
        resume = ResumeFile(site.state_folder, f"{source} into log {log_id(log)}")
        if resumed := not again and resume.load():
            say("an earlier run was interrupted; going on from there")
        with Producer(log, schema=schema) as producer:
            until_visible = partial(wait_visible, client, timeout_s=VISIBLE_TIMEOUT_S)
            publisher = Publisher(producer, resume, console(), until_visible)
            yield _Run(client, schema, publisher, resume, resumed)
