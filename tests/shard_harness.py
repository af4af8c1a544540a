"""Shards of one worker over rows in memory: records in, batches, rows and forwarded records out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from materializers.batches import EntityWrite
from materializers.cards import ItemCards
from materializers.interner import Interner
from materializers.materializer import (
    Forgotten,
    Materializer,
    PartitionContext,
    RowReader,
    RowWriter,
    Scope,
    View,
)
from materializers.registry import MaterializerRegistry
from materializers.shards.context import WorkerContext
from materializers.shards.entity_shard import EntityShard
from materializers.shards.forwarding import Forwarder
from materializers.shards.homes import Homes
from materializers.shards.item_shard import ItemShard
from materializers.shards.rejects import Rejects
from materializers.shards.user_shard import UserShard
from materializers.tables.meta import ShardMeta
from schemas.model import Schema
from schemas.records.entities import EntityRecord
from schemas.records.profile_record import record_type
from tests.memory_rows import MemoryRows, MemoryWriter

PARTITIONS = 4
NOW_MS = 1_763_600_000_000


@dataclass
class Record:
    """What a shard sees of a consumed record."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = NOW_MS
    headers: tuple[tuple[str, bytes], ...] = ()
    topic: str = "tidal.signals"
    partition: int = 0


@dataclass
class Sent:
    """One record that a shard produced."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    type: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = NOW_MS


class RecordingForwarder(Forwarder):
    """Packs as the real one does, and keeps what it would hand to its producer."""

    def __init__(self, schema: Schema, items: Interner, users: Interner, profiles: Interner) -> None:
        nothing: Any = None  # nothing reaches a producer
        super().__init__(nothing, PARTITIONS, schema, items, users, profiles, on_failure=print)
        self.sent: list[Sent] = []

    def _produce(
        self, topic: str, partition: int, key: bytes | None, value: bytes, kind: bytes | None
    ) -> None:
        self.sent.append(Sent(topic, partition, key, value, kind))

    def send_record(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]],
        timestamp_ms: int = 0,
    ) -> None:
        self.send()
        sent = Sent(topic, partition, key, value, record_type(headers), tuple(headers), timestamp_ms)
        self.sent.append(sent)


@dataclass
class RecordingView:
    """Keeps every batch."""

    batches: list[Any] = field(default_factory=list)

    def on_batch(self, batch: Any) -> None:
        self.batches.append(batch)

    def checkpoint(self, writer: RowWriter) -> None:
        """No rows."""

    def restore(self, reader: RowReader) -> None:
        self.batches.clear()

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        self.batches.append(users)
        return {}


class ShardSite:
    """One worker's context with a recording view in each scope, or the views of a registry; shards are built
    over chosen rows.
    """

    def __init__(self, folder: Path, schema: Schema, registry: MaterializerRegistry | None = None) -> None:
        self.schema = schema
        self.views: dict[Scope, list[RecordingView]] = {scope: [] for scope in Scope}
        self.items, self.users, self.profiles, self.creators = (Interner() for _ in range(4))
        self.cards = ItemCards(folder / "cards", schema, self.items, self.creators)
        self.forwarder = RecordingForwarder(schema, self.items, self.users, self.profiles)
        registry = registry or MaterializerRegistry([self._view(scope) for scope in Scope])
        self.context = WorkerContext(
            schema=schema,
            partitions=PARTITIONS,
            registry=registry,
            items=self.items,
            users=self.users,
            profiles=self.profiles,
            creators=self.creators,
            cards=self.cards,
            forwarder=self.forwarder,
            user_homes=Homes(self.users, PARTITIONS),
            item_homes=Homes(self.items, PARTITIONS),
        )

    def user_shard(self, partition: int, rows: MemoryRows, meta: ShardMeta | None = None) -> UserShard:
        return self._restored(UserShard(self.context, partition, rows, Rejects()), rows, meta)

    def item_shard(self, partition: int, rows: MemoryRows, meta: ShardMeta | None = None) -> ItemShard:
        return self._restored(ItemShard(self.context, partition, rows, Rejects()), rows, meta)

    def entity_shard(self, partition: int, rows: MemoryRows, meta: ShardMeta | None = None) -> EntityShard:
        return self._restored(EntityShard(self.context, partition, rows, Rejects()), rows, meta)

    def give_card(self, item: str, offset: int = 0) -> None:
        self.cards.apply(0, [EntityWrite(offset, NOW_MS, item, EntityRecord("item", item, creator="c"))])

    def _restored(self, shard: Any, rows: MemoryRows, meta: ShardMeta | None) -> Any:
        if meta is not None:
            shard.restore(rows, meta)
        return shard

    def _view(self, scope: Scope) -> View:
        def build(context: PartitionContext) -> Materializer:
            self.views[scope].append(RecordingView())
            return self.views[scope][-1]

        return View(f"recording_{scope}", scope, (), build)


def flushed(shard: Any, rows: MemoryRows) -> ShardMeta:
    """Flush into ``rows``; what a restart would be given."""
    writer = MemoryWriter(rows)
    meta: ShardMeta = shard.flush(writer)
    writer.commit()
    return meta
