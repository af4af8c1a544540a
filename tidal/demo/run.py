"""`tidal demo`: a small site, end to end, held against a recount of its raw log.

generate → start everything → users, creators, items → signals → wait until visible
         → ask the reference queries → recount them from the log → compare
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from rich.console import Console

from schemas.default import default_schema
from schemas.errors import TidalError
from streams.producer import Producer
from streams.topics import CREATORS, ITEMS, SIGNALS, USERS
from tidal.client import Client
from tidal.demo.history import HOUR_MS, History
from tidal.demo.raw_log import read_entities, read_events
from tidal.demo.recount import Page, Recount, differences
from tidal.demo.reference import COHORT_TRENDING, REFERENCE_QUERIES, TRENDING, ReferenceQuery, cohort_of
from tidal.demo.report import show_answer, show_verdict
from tidal.demo.site import Site, SiteSize, anchor_now, make_site
from tidal.endpoints import Endpoints
from tidal.publishing import ROWS_PER_STEP, Entry, NoMemory, Publisher, Step
from tidal.site_process import SiteProcess
from tidal.visibility import wait_visible

VISIBLE_TIMEOUT_S: Final = 120.0
# An answer and its recount must fall into the same hour, the length of the buckets; twice unlucky is a fault.
ASKED_AGAIN_MAX: Final = 3


class Answer(NamedTuple):
    """What queryd said to a query. asked_ms: the middle of the time that it was asked in."""

    query: ReferenceQuery
    page: Page
    took_us: int
    asked_ms: int


class Outcome(NamedTuple):
    """What the demo found. differences: by query, those between the answer and its recount."""

    answers: tuple[Answer, ...]
    differences: dict[str, list[str]]
    trend_problems: tuple[str, ...]
    events: int
    repeated: int

    @property
    def is_equal(self) -> bool:
        """Every answer equals its recount, and the planted trend is where it was planted."""
        return not any(self.differences.values()) and not self.trend_problems

    def summary(self) -> dict[str, Any]:
        """The outcome for machines; pages as lists of id and score."""
        return {
            "equal": self.is_equal,
            "answers": [
                {"name": answer.query.name, "query": answer.query.text, "page": answer.page}
                for answer in self.answers
            ],
            "differences": self.differences,
            "trend_problems": self.trend_problems,
            "events": self.events,
            "repeated": self.repeated,
        }


def run_demo(data: Path, seed: int, size: SiteSize, console: Console, *, serve: bool = False) -> Outcome:
    """Runs the whole demo on an empty data folder; everything that it starts is stopped when it returns.

    With `serve` that is not before it is interrupted.
    """
    started = time.monotonic()
    site = make_site(seed, anchor_now(), size)
    console.print(
        f"site of seed {seed}: {len(site.users.records):,} users, {len(site.creators):,} creators, "
        f"{len(site.catalog.records):,} items, {len(site.activity.events):,} signals of two days"
    )
    with SiteProcess(data) as endpoints:
        console.print(f"everything runs: HTTP {endpoints.http}, log {endpoints.brokers}")
        with Client(endpoints.http) as client:
            publish_site(site, endpoints, client, console)
            answers = tuple(ask(client, query) for query in REFERENCE_QUERIES)
        console.print("recounting from the raw log …")
        history = read_history(endpoints.brokers)
        outcome = compare(site, history, answers)
        show(site, history, outcome, console)
        console.print(f"\nthe whole took {time.monotonic() - started:.1f} s")
        if serve:
            _serve_until_interrupted(data, console)
    return outcome


def publish_site(site: Site, endpoints: Endpoints, client: Client, console: Console) -> None:
    """Users, creators and items; when queries see them, the signals; returns when queries see those too."""
    with Producer(endpoints.brokers, schema=default_schema()) as producer:
        until_visible = partial(wait_visible, client, timeout_s=VISIBLE_TIMEOUT_S)
        publisher = Publisher(producer, NoMemory(), console, until_visible)
        for kind, records in (
            ("user", site.users.records),
            ("creator", site.creators),
            ("item", site.catalog.records),
        ):
            entries = [Entry(number, record) for number, record in enumerate(records, start=1)]
            publisher.publish_records(kind, entries, _refuse)
        publisher.publish_events("signals", len(site.activity.events), lambda first: _steps(site, first))
        acknowledged = time.monotonic()
        until_visible(publisher.positions)
        console.print(f"visible to queries {time.monotonic() - acknowledged:.1f} s after the acknowledgement")


def ask(client: Client, query: ReferenceQuery) -> Answer:
    """Asks a query as it is written."""
    for _ in range(ASKED_AGAIN_MAX):
        before_ms = time.time_ns() // 1_000_000
        reply = client.query(query.text)
        after_ms = time.time_ns() // 1_000_000
        if before_ms // HOUR_MS == after_ms // HOUR_MS:
            page = [(result.id, result.score) for result in reply.results]
            if reply.degraded:
                cut = "; ".join(f"{each.stage}: {each.why}" for each in reply.degraded)
                raise TidalError(f"the answer to {query.text!r} is degraded: {cut}")
            return Answer(query, page, reply.took_us, (before_ms + after_ms) // 2)
    raise TidalError(f"{query.text!r} was answered across a full hour {ASKED_AGAIN_MAX} times")


def read_history(brokers: str) -> History:
    """Everything in the log, decoded and without repetitions."""
    return History(
        default_schema(),
        read_events(brokers, SIGNALS),
        items=read_entities(brokers, ITEMS),
        users=read_entities(brokers, USERS),
        creators=read_entities(brokers, CREATORS),
    )


def compare(site: Site, history: History, answers: tuple[Answer, ...]) -> Outcome:
    """Recounts each answer at its own instant."""
    cohort = cohort_of(history)
    found = {}
    for answer in answers:
        recounted = answer.query.recount(Recount(history, answer.asked_ms), cohort)
        found[answer.query.name] = differences(answer.page, recounted, answer.query.tolerance)
    return Outcome(answers, found, tuple(_trend_problems(site, answers)), history.published, history.repeated)


def show(site: Site, history: History, outcome: Outcome, console: Console) -> None:
    """Prints every answer with its verdict, the trend, and the sum of it."""
    for answer in outcome.answers:
        show_answer(console, answer.query, answer.page, history.items, answer.took_us)
        show_verdict(console, answer.query, outcome.differences[answer.query.name], len(answer.page))
    console.print(
        f"\n{outcome.events:,} signals in the log, {outcome.repeated:,} of them sent twice and counted once"
    )
    trend = f"planted trend {site.trend_item['id']} ({site.trend_item['title']!r})"
    if outcome.trend_problems:
        console.print(f"[red]{trend}: {'; '.join(outcome.trend_problems)}[/red]")
    else:
        console.print(f"{trend}: on top for locale:US, age:18-24, and not globally")
    verdict = "[green]all answers equal[/green]" if outcome.is_equal else "[red]not equal[/red]"
    console.print(f"{verdict} to the recount of the raw log")


def _serve_until_interrupted(data: Path, console: Console) -> None:
    console.print(f"still serving; ask with: tidal query 'RETRIEVE items LIMIT 10' --data {data}")
    console.print("Ctrl-C stops everything.")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def _trend_problems(site: Site, answers: tuple[Answer, ...]) -> Iterator[str]:
    planted = site.trend_item["id"]
    top = {answer.query.name: answer.page[0][0] if answer.page else None for answer in answers}
    if top[COHORT_TRENDING.name] != planted:
        yield f"not on top for its cohort, {top[COHORT_TRENDING.name]} is"
    if top[TRENDING.name] == planted:
        yield "on top globally too"


def _steps(site: Site, first: int) -> Iterator[Step]:
    events = site.activity.events
    for start in range(first, len(events), ROWS_PER_STEP):
        stop = min(start + ROWS_PER_STEP, len(events))
        yield Step(stop, events.take(np.arange(start, stop)))


def _refuse(line: int, reason: str) -> None:
    raise TidalError(f"record {line} of the demo's own site was refused: {reason}")
