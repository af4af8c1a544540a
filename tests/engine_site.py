"""A site in memory for the engine's tests: the real views over rows in dicts, and an engine over them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from materializers.batches import EdgeWrite, EntityBatch, EntityWrite
from materializers.cards import ItemCards
from materializers.interner import Interner
from materializers.materializer import Materializer, PartitionContext, Scope
from materializers.registry import default_registry
from materializers.rows import user_ids
from materializers.tables.feed import (
    OWNERSHIP_SECTION,
    Change,
    OwnershipChange,
    Section,
    encode_ownership_change,
)
from queryd.engine import Engine
from schemas.ids import entity_id
from schemas.loading import load_schema
from schemas.model import Schema
from schemas.records.entities import EdgeRecord, decode_entity
from schemas.settings import QuerydSettings, Settings, SiteSettings, TopicSettings
from streams.partitioner import partition_for
from tests.memory_rows import MemoryRows, MemoryWriter
from tests.oracle import Event
from tests.view_harness import Partition

PARTITIONS = 3
NOW_MS = 1_763_600_000_000
HOUR_MS = 3_600_000


@dataclass
class MemoryTables:
    """The read side over dicts. Rows are visible at once; changes wait for ``changes``."""

    partitions_of: dict[int, MemoryRows]
    pending: list[Change] = field(default_factory=list)
    offsets: dict[tuple[Scope, int], dict[str, int]] = field(default_factory=dict)
    sources: dict[int, dict[int, int]] = field(default_factory=dict)
    catch_ups: int = 0

    def catch_up(self) -> None:
        self.catch_ups += 1

    def partitions(self, scope: Scope) -> Sequence[int]:
        return sorted(self.partitions_of)

    def get_many(self, table: str, keys: Sequence[tuple[int, bytes]]) -> list[bytes | None]:
        return [self.partitions_of[partition].get_many(table, [key])[0] for partition, key in keys]

    def scan(
        self, table: str, partition: int, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        return self.partitions_of[partition].scan(table, start, end)

    def changes(self) -> Sequence[Change]:
        drained, self.pending = self.pending, []
        return drained

    def applied(self, scope: Scope, partition: int) -> Mapping[str, int]:
        return self.offsets.get((scope, partition), {})

    def forwarded(self, partition: int) -> Mapping[int, int]:
        return self.sources.get(partition, {})

    def sent_away(self, partition: int) -> Mapping[int, int]:
        return {}

    def rerouted(self, partition: int) -> Mapping[int, int]:
        return {}

    def status(self) -> Mapping[str, Any]:
        return {}


def small_schema(**parts: Any) -> Schema:
    """The default schema with vectors that a person can write."""
    item = {
        "fields": {
            "title": "text",
            "description": "text",
            "tags": "tags",
            "category": "keyword",
            "duration_s": "float",
            "explicit": "bool",
            "created_at": "time",
        },
        "embeddings": {"content": {"dim": 4, "metric": "cosine"}},
    }
    return load_schema({"name": "test_site", "entities": {"item": item}, **parts})


class Site:
    """Everything that would be in the log, folded by the real views into ``tables``."""

    def __init__(self, folder: Path, schema: Schema | None = None) -> None:
        self.schema = schema or small_schema()
        self.folder = folder
        self.rows = {number: MemoryRows() for number in range(PARTITIONS)}
        self.tables = MemoryTables(self.rows)
        self.events: list[Event] = []
        self.profiles: dict[str, str] = {}
        self.now_ms = NOW_MS
        self._items, self._creators = Interner(), Interner()
        self._cards = ItemCards(folder / "cards", self.schema, self._items, self._creators)
        self._partitions = {
            number: Partition(self.schema, rows, self._items, creators=self._creators, cards=self._cards)
            for number, rows in self.rows.items()
        }
        self._views = {number: self._built(part) for number, part in self._partitions.items()}
        self._unfolded: dict[tuple[Scope, int], list[Event]] = {}
        self._sequence = 0
        self._offset = 0

    def item(self, id_: str, **record: Any) -> None:
        self._entity("item", id_, record)

    def user(self, id_: str, **record: Any) -> None:
        self._entity("user", id_, record)
        self.profiles[id_] = self.schema.profile_string(record)

    def delete_item(self, id_: str) -> None:
        self._entity("item", id_, None)

    def edge(self, kind: str, source: str, target: str, record: EdgeRecord | None) -> None:
        number = partition_for(source.encode(), PARTITIONS)
        write = EdgeWrite(self._next(), self.now_ms, kind, source, target, record)
        self._fold(number, Scope.ENTITY, EntityBatch("edge", [write]))

    def follow(self, source: str, target: str) -> None:
        self.edge("follows", source, target, EdgeRecord("follows", source, target))

    def unfollow(self, source: str, target: str) -> None:
        self.edge("follows", source, target, None)

    def block(self, source: str, target: str) -> None:
        self.edge("blocks", source, target, EdgeRecord("blocks", source, target))

    def signal(self, kind: str, item: str, user: str = "", *, ago_ms: int = 0, weight: float = 1.0) -> None:
        ts_ms = self.now_ms - ago_ms
        profile = self.profiles.get(user, "{}")
        event = Event(
            partition=0,
            offset=self._next(),
            kind=kind,
            item=item,
            user=user,
            weight=round(weight * 1_000_000),
            ts_ms=ts_ms,
            record_ms=self.now_ms,
            profile=profile,
        )
        self.events.append(event)
        number = partition_for((user or item).encode(), PARTITIONS)
        if user:  # the shard's own row
            ids = self.rows[number].tables.setdefault(user_ids.TABLE, {})
            ids[user_ids.user_id_key(entity_id(user))] = user.encode()
        self._unfolded.setdefault((Scope.USER, number), []).append(event)
        number = partition_for(item.encode(), PARTITIONS)
        self._unfolded.setdefault((Scope.ITEM, number), []).append(event)

    def flush(self, at: int | None = None) -> None:
        """Fold what was signalled, and write rows and feed of every partition (or of one)."""
        for (scope, number), events in self._unfolded.items():
            partition = self._partitions[number]
            of_user = scope is Scope.USER
            self._fold(
                number, scope, partition.user_batch(events) if of_user else partition.item_batch(events)
            )
        self._unfolded.clear()
        for number in self.rows if at is None else [at]:
            rows = self.rows[number]
            rows.fed.clear()
            writer = MemoryWriter(rows)
            for _, view in self._views[number]:
                view.checkpoint(writer)
            writer.commit()
            self._sequence += 1
            sections = [Section(name, number, payload) for name, payload in rows.fed]
            if sections:
                self.tables.pending.append(Change(self._sequence, self.now_ms, sections))

    def take_over(self, number: int) -> None:
        """Announce that another worker has the partition now, with the same rows."""
        self._sequence += 1
        payload = encode_ownership_change(OwnershipChange(owned=True, generation=2))
        section = Section(OWNERSHIP_SECTION, number, payload)
        self.tables.pending.append(Change(self._sequence, self.now_ms, [section]))

    def engine(self, name: str = "queryd-0", **queryd: Any) -> Engine:
        """An engine over the tables; ``queryd``: settings of its section."""
        settings = Settings(
            site=SiteSettings(data_dir=str(self.folder)),
            topics=TopicSettings(partitions=PARTITIONS),
            queryd=QuerydSettings(**queryd),
        )
        return Engine(settings, self.schema, self.tables, name=name, clock_ms=lambda: self.now_ms)

    def counts(self, kind: str, since_ms: int, profiles: set[str] | None = None) -> dict[str, int]:
        """A plain recount of events at or after ``since_ms``, of users with one of the profiles."""
        found: dict[str, int] = {}
        for event in self.events:
            wanted = profiles is None or event.profile in profiles
            if event.kind == kind and event.ts_ms >= since_ms and wanted:
                found[event.item] = found.get(event.item, 0) + 1
        return found

    def _entity(self, kind: str, id_: str, record: dict[str, Any] | None) -> None:
        raw = None if record is None else json.dumps({"id": id_, **record}).encode()
        decoded = decode_entity(kind, id_.encode(), raw, self.schema)
        write = EntityWrite(self._next(), self.now_ms, id_, decoded)
        if kind == "item":
            self._cards.apply(0, [write])
        self._fold(partition_for(id_.encode(), PARTITIONS), Scope.ENTITY, EntityBatch(kind, [write]))

    def _fold(self, number: int, scope: Scope, batch: Any) -> None:
        for held, view in self._views[number]:
            if held is scope:
                view.on_batch(batch)

    def _built(self, partition: Partition) -> list[tuple[Scope, Materializer]]:
        context: PartitionContext = partition.context()
        registry = default_registry()
        views = [(scope, view.build(context)) for scope in Scope for view in registry.of(scope)]
        for _, view in views:
            view.restore(partition.rows)
        return views

    def _next(self) -> int:
        self._offset += 1
        return self._offset


@asynccontextmanager
async def running(
    site: Site, *, follow: bool = False, name: str = "queryd-0", **queryd: Any
) -> AsyncIterator[Engine]:
    """An engine that has read and indexed what was flushed; unless it is to ``follow``, it does nothing more
    by itself and waits for ``feeder.step``.
    """
    engine = site.engine(name, **queryd)
    await engine.start(follow=follow)
    try:
        await (indexed(engine) if follow else engine.index_everything())
        yield engine
    finally:
        await engine.stop()


async def indexed(engine: Engine) -> None:
    """Wait until both indexes of an engine that follows hold every record."""
    while not (engine._text.current and engine._vectors.current):  # noqa: ASYNC110 - they work in steps
        await asyncio.sleep(0.005)


def ids(reply: Any) -> list[str]:
    """The ids of a reply's results, in order."""
    return [result.id for result in reply.results]


def scores(reply: Any) -> dict[str, float]:
    """Scores by id."""
    return {result.id: result.score for result in reply.results}


def as_json(reply: Any) -> Any:
    """A reply as a client sees it."""
    return msgspec.json.decode(msgspec.json.encode(reply))
