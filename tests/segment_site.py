"""A user shard that stamps with segments, over rows that outlive it, and the log that it was given."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from materializers.materializer import Materializer, PartitionContext, Scope, View
from materializers.registry import MaterializerRegistry
from materializers.tables.meta import ShardMeta
from materializers.views import segments
from schemas.loading import load_schema
from schemas.records.forget_record import FORGET_HEADERS, ForgetRecord, encode_forget
from schemas.records.item_conditions import (
    ITEM_CONDITIONS_HEADERS,
    ItemConditions,
    encode_item_conditions,
)
from schemas.records.profile_record import PROFILE_HEADERS, ProfileRecord, encode_profile_record
from streams.partitioner import partition_for
from tests.memory_rows import MemoryRows
from tests.oracle import CleanFold, LogRecord, fold
from tests.shard_harness import NOW_MS, PARTITIONS, Record, RecordingView, ShardSite, flushed

HOME = 1
NAMES = (f"person{number}" for number in range(200))
USERS = [name for name in NAMES if partition_for(name.encode(), PARTITIONS) == HOME][:8]
ITEMS = ["track-a", "track-b", "track-c"]
KINDS = ["glance", "cheer", "pay"]
JAZZ, LONG = "genre = jazz", "length >= 60.0"
SCHEMA = load_schema(
    {
        "name": "segmented",
        "entities": {
            "item": {"fields": {"genre": "keyword", "length": "float"}},
            "user": {"fields": {"locale": "keyword"}, "dimensions": {"locale": {"field": "locale"}}},
        },
        "signals": {kind: {"dedup": "none"} for kind in KINDS},
        "states": [],
        "relationships": {},
        "segments": {
            "keen": "count(cheer, genre = jazz, 20s) >= 3",
            "lapsed": "count(cheer, all_time) >= 1 AND NOT count(cheer, 10s) >= 1",
            "payer": "sum(pay, all_time) > 2.5 OR count(pay, length >= 60, 7s) = 2",
            "watcher": "count(glance, 30s) >= 2, count(glance, 30s) < 5",
            "once": "count(glance, genre = jazz AND length >= 60, all_time) = 1",
        },
        "cohorts": {},
        "profiles": {},
    }
)
JAZZ_AND_LONG = "genre = jazz AND length >= 60.0"


@dataclass(frozen=True)
class Step:
    """``event``, ``told``, ``forget``, ``profile``; ``batch`` folds what gathered; ``flush``, ``crash``."""

    what: str
    user: int = 0
    item: int = 0
    kind: int = 0
    second: int = 0
    weight: float = 1.0
    holds: tuple[str, ...] = ()


@dataclass
class Life:
    """A user shard over rows that outlive it, and the log that it was given."""

    folder: Path
    memory_bytes_max: int
    log: list[Record] = field(default_factory=list)
    rows: MemoryRows = field(default_factory=MemoryRows)
    meta: ShardMeta = field(default_factory=ShardMeta)
    stamped: dict[int, str] = field(default_factory=dict)
    folded: int = 0
    deaths: int = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.deaths += 1
        recording = RecordingView()

        def build(context: PartitionContext) -> Materializer:
            return segments.Segments(context, self.memory_bytes_max)

        stamping = View("segments", Scope.USER, segments.VIEW.tables, build, stamps=True)
        recorded = View("recording", Scope.USER, (), lambda context: recording, carded=False)
        registry = MaterializerRegistry([stamping, recorded])
        self.site = ShardSite(self.folder / str(self.deaths), SCHEMA, registry)
        self.site.users.ids(["a stranger"] * self.deaths)
        self.recording = recording
        self.shard = self.site.user_shard(HOME, self.rows, self.meta)

    def take(self, step: Step) -> None:
        if step.what == "crash":
            self.start()
            self.folded = self.shard.applied("tidal.signals") + 1
        elif step.what in ("batch", "flush"):
            self.fold(flush=step.what == "flush")
        else:
            self.log.append(_record(step, len(self.log)))

    def clean(self) -> CleanFold:
        """What the oracle makes of the log."""
        return fold(map(_of_log, self.log), SCHEMA)

    def fold(self, *, flush: bool) -> None:
        self.shard.fold("tidal.signals", self.log[self.folded :])
        self.folded = len(self.log)
        if flush:
            self.meta = flushed(self.shard, self.rows)
        else:
            self.shard.settle()
        for batch in self.recording.batches:
            if hasattr(batch, "offset"):
                profiles = self.site.profiles.strings(batch.profile)
                self.stamped.update(zip(batch.offset.tolist(), profiles, strict=True))
        self.recording.batches.clear()


def _record(step: Step, offset: int) -> Record:
    at_ms = NOW_MS + offset
    user, item = USERS[step.user], ITEMS[step.item]
    if step.what == "told":
        told = ItemConditions(item, step.holds, (step.item, offset))
        return Record(offset, encode_item_conditions(told), item.encode(), at_ms, ITEM_CONDITIONS_HEADERS)
    if step.what == "forget":
        forget = ForgetRecord(user, (HOME, offset), at_ms)
        return Record(offset, encode_forget(forget), user.encode(), at_ms, FORGET_HEADERS)
    if step.what == "profile":
        values = [{}, {"locale": "US"}, {"locale": "DE"}][step.kind]
        profile = ProfileRecord(user, values, (HOME, offset))
        return Record(offset, encode_profile_record(profile), user.encode(), at_ms, PROFILE_HEADERS)
    body: dict[str, Any] = {"kind": KINDS[step.kind], "item": item, "user": user, "weight": step.weight}
    body["ts"] = NOW_MS - 60_000 + 1000 * step.second
    return Record(offset, json.dumps(body).encode(), user.encode(), at_ms)


def _of_log(record: Record) -> LogRecord:
    headers = dict(record.headers)
    return LogRecord(
        "tidal.signals", HOME, record.offset, record.timestamp, record.key, record.value, headers
    )
