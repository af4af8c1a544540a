"""How fast one worker folds a backlog: every view, re-keying, changelog; beside a bare consumer of the log.

    python -m benchmarks.ingest [--short] [--events 2000000]

Two forms of the same traffic: columnar batches of the SDK, and one JSON event a record from a plain producer.
For each: 1. publish users, items and the backlog, 2. read the backlog with confluent-kafka and do nothing, 3.
start one worker and watch its tables until the last signal is counted by its item's partition, 4. throw the
worker's folder away and time how fast its tables come back from the changelog.

The rate counts from the worker's first partition to its last signal; CPU is the worker's in between. A second
table says where each microsecond of an event goes: the worker's own count of CPU time, by stage and thread.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from benchmarks.parts import Part, Usage
from benchmarks.results import Result, parser, report
from benchmarks.site import (
    TIMEOUT_S,
    WATCH_EVERY_S,
    Ends,
    Watcher,
    consume_bare,
    ends_of,
    log_with_topics,
    publish_columnar,
    publish_json,
    publish_records,
)
from benchmarks.stages import CpuStatus, read_status, stage_rows
from benchmarks.traffic import Traffic
from schemas.loading import default_document
from streams.topics import ITEMS, SIGNALS, USERS

WORKER: Final = "worker-0"
SCHEMA_FILE: Final = "schema.json"
ACQUIRED: Final = re.compile(r"partition \d+: \w+ \(checkpoint ")
RESTORED: Final = re.compile(r"restored (?P<rows>\d+) rows in (?P<seconds>[\d.]+) s")

Publish = Callable[[str, Traffic, int], None]


class Look(NamedTuple):
    """What was seen at one moment (seconds since 1970): source records left, what the worker had used, and
    what it had last said of that itself.
    """

    at_s: float
    left: int
    used: Usage
    cpu: CpuStatus | None


class Measured(NamedTuple):
    """One row of the table, where its CPU time went, and what the restore of the tables took."""

    row: dict[str, Any]
    stages: list[dict[str, Any]]
    restored: str


class Restored(NamedTuple):
    """One partition's restore: rows, and from when to when in seconds since 1970."""

    rows: int
    started_s: float
    ended_s: float


def main() -> None:
    """Measures and reports."""
    options = parser("ingest", __doc__)
    options.add_argument("--events", type=int, default=2_000_000)
    options.add_argument("--users", type=int, default=50_000)
    options.add_argument("--items", type=int, default=20_000)
    options.add_argument("--dim", type=int, default=64, help="dimensions of the items' vectors")
    options.add_argument("--form", choices=("columnar", "json", "both"), default="both")
    chosen = options.parse_args()
    events = 300_000 if chosen.short else chosen.events
    users, items = (5_000, 2_000) if chosen.short else (chosen.users, chosen.items)
    forms: dict[str, tuple[Publish, int]] = {
        "columnar": (publish_columnar, events),
        "json": (publish_json, events // 2),
    }
    measured = []
    for form, (publish, count) in forms.items():
        if chosen.form in (form, "both"):
            measured.append(measure(form, publish, count, users, items, chosen.dim))
    command = (
        f"python -m benchmarks.ingest --events {events} --users {users} --items {items} --dim {chosen.dim}"
    )
    rows = [each.row for each in measured]
    notes = [f"{each.row['form']}: {each.restored}" for each in measured]
    stages = [{"form": each.row["form"], **stage} for each in measured for stage in each.stages]
    report(Result("ingest", command, rows, notes), chosen.json)
    report(Result("ingest, where an event's CPU time goes", command, stages), _beside(chosen.json))


def _beside(file: Path | None) -> Path | None:
    return file and file.with_name(f"{file.stem}-stages{file.suffix}")


def measure(form: str, publish: Publish, events: int, users: int, items: int, dim: int) -> Measured:
    """One form of the traffic."""
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as scratch:
        folder = Path(scratch)
        traffic = Traffic(users, items)
        with log_with_topics(folder) as log:
            _write_schema(folder, dim)
            publish_records(log.address, traffic, dim)
            before = _apply_records(folder, log.address)
            publish(log.address, traffic, events)
            bare = consume_bare(log.address, SIGNALS)
            ends = ends_of(log.address, SIGNALS)
            looks = _fold(folder, log.address, ends)
            restored = _restore(folder, log.address, len(ends))
    events_a_record = events / (sum(ends.values()) - sum(before.values()))
    rate, cpu_per_million = _rates(looks, events_a_record)
    bare_rate = events / bare.seconds
    row = {
        "form": form,
        "events": events,
        "events/s": rate,
        "CPU-s per million": cpu_per_million,
        "bare consume events/s": bare_rate,
        "share of bare": rate / bare_rate,
        "bare CPU-s per million": bare.cpu_s / events * 1e6,
        "peak MB": looks[-1].used.memory_bytes_max / 1e6,
    }
    first, last = looks[0], looks[-1]
    assert first.cpu is not None, "the worker writes its status before it owns a partition"
    assert last.cpu is not None
    stages = stage_rows(first.cpu, last.cpu, (first.left - last.left) * events_a_record)
    return Measured(row, stages, restored)


def _write_schema(folder: Path, dim: int) -> None:
    """The default schema with vectors of ``dim``."""
    document = default_document()
    for slot in document["entities"]["item"]["embeddings"].values():
        slot["dim"] = dim
    (folder / SCHEMA_FILE).write_bytes(msgspec.json.encode(document))


def _worker(folder: Path, brokers: str) -> Part:
    options = ("--data", str(folder), "--brokers", brokers, "--schema", str(folder / SCHEMA_FILE))
    return Part(folder, "worker", *options, "--name", WORKER)


def _apply_records(folder: Path, brokers: str) -> Ends:
    """Lets a worker apply the entities and the profile records that follow; returns where signals begin."""
    with _worker(folder, brokers) as worker:
        for topic in (USERS, ITEMS):
            ends = ends_of(brokers, topic)
            _watch(folder, worker, partial(Watcher.records_left, topic=topic, ends=ends))
        ends = ends_of(brokers, SIGNALS)
        _watch(folder, worker, partial(Watcher.signals_left, ends=ends))
    return ends


def _fold(folder: Path, brokers: str, ends: Ends) -> list[Look]:
    """Looks from the one before the worker's first partition until the last signal is counted."""
    with _worker(folder, brokers) as worker:
        looks = _watch(folder, worker, partial(Watcher.signals_left, ends=ends))
        looks[-1] = looks[-1]._replace(cpu=_said_after(folder, looks[-1].at_s))
        acquired_s = min(_times(worker, ACQUIRED))
    before = max((index for index, look in enumerate(looks) if look.at_s <= acquired_s), default=0)
    return looks[before:]


def _watch(folder: Path, worker: Part, left: Callable[[Watcher], int]) -> list[Look]:
    """Looks every quarter of a second until nothing is left."""
    looks: list[Look] = []
    deadline = time.perf_counter() + TIMEOUT_S
    with Watcher(folder, "benchmark") as watcher:
        while not looks or looks[-1].left:
            worker.check()
            assert time.perf_counter() < deadline, f"{looks[-1].left} records left after {TIMEOUT_S:.0f} s"
            time.sleep(WATCH_EVERY_S)
            looks.append(Look(time.time(), left(watcher), worker.usage(), _said(folder)))
    return looks


def _said(folder: Path) -> CpuStatus | None:
    """The worker's last status; None while a new one has said nothing."""
    try:
        return read_status(folder, WORKER)
    except FileNotFoundError:
        return None


def _said_after(folder: Path, at_s: float) -> CpuStatus:
    deadline = time.perf_counter() + TIMEOUT_S
    while True:
        said = read_status(folder, WORKER)
        if said.written_ms > at_s * 1000:
            return said
        assert time.perf_counter() < deadline, "the worker no longer writes its status"
        time.sleep(WATCH_EVERY_S)


def _rates(looks: list[Look], events_a_record: float) -> tuple[float, float]:
    """Events a second, and CPU seconds of the worker for a million."""
    first, last = looks[0], looks[-1]
    folded = events_a_record * (first.left - last.left)
    seconds = last.at_s - first.at_s
    return folded / seconds, (last.used.cpu_s - first.used.cpu_s) / folded * 1e6


def _restore(folder: Path, brokers: str, partitions: int) -> str:
    """Throws the worker's tables away and times their return from the changelog."""
    shutil.rmtree(folder / "workers" / WORKER)
    with _worker(folder, brokers) as worker:
        found = _restored_rows(worker, partitions)
    rows = sum(restored.rows for restored in found)
    seconds = max(restored.ended_s for restored in found) - min(restored.started_s for restored in found)
    return f"restored {rows:,} rows in {seconds:.1f} s, {rows / seconds:,.0f} rows/s"


def _restored_rows(worker: Part, partitions: int) -> list[Restored]:
    """What the worker says of each partition's restore, once it has said it of all."""
    deadline = time.perf_counter() + TIMEOUT_S
    while True:
        worker.check()
        found = [restored for line in worker.printed().splitlines() if (restored := _restored(line))]
        if len(found) >= partitions:
            return found
        assert time.perf_counter() < deadline, f"{len(found)} of {partitions} partitions were restored"
        time.sleep(WATCH_EVERY_S)


def _restored(line: str) -> Restored | None:
    if not (match := RESTORED.search(line)):
        return None
    ended_s = _time_of(line)
    return Restored(int(match["rows"]), ended_s - float(match["seconds"]), ended_s)


def _times(worker: Part, message: re.Pattern[str]) -> list[float]:
    """When the worker said something, in seconds since 1970."""
    return [_time_of(line) for line in worker.printed().splitlines() if message.search(line)]


def _time_of(line: str) -> float:
    return datetime.fromisoformat(msgspec.json.decode(line)["time"]).timestamp()


if __name__ == "__main__":
    main()
