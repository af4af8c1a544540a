"""The entity shard of one partition: records of the compacted topics, and the profile records that they
cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from materializers.batches import EdgeWrite, EntityBatch, EntityWrite
from materializers.materializer import RowReader, RowWriter, Scope, TableSpec
from materializers.shards.context import WorkerContext
from materializers.shards.rejects import Rejects
from materializers.tables.meta import ShardMeta
from materializers.tables.pending import Letter
from schemas.cohort_profile import EMPTY_PROFILE, parse_profile
from schemas.errors import RecordError
from schemas.ids import entity_ids
from schemas.keys import row_keys
from schemas.records.edge_key import parse_edge_key
from schemas.records.entities import decode_edge, decode_entity, parse_entity_key
from schemas.records.profile_record import ProfileRecord
from streams.records import AnyRecords
from streams.topics import ENTITY_TOPICS, RELATIONSHIPS, USERS

STAMPED_PROFILES_TABLE: Final = TableSpec("stamped_profiles", "[user][tag] -> last profile sent")
STAMPED_TAG: Final = 10
ENTITY_SHARD_TABLES: Final[tuple[TableSpec, ...]] = (STAMPED_PROFILES_TABLE,)

EDGE_KIND: Final = "edge"
_KIND_OF_TOPIC: Final = {topic: kind for kind, topic in ENTITY_TOPICS.items()} | {RELATIONSHIPS: EDGE_KIND}


class EntityShard:
    """``Shard`` of scope entity; each of its four topics has its own applied offset."""

    scope = Scope.ENTITY

    def __init__(self, context: WorkerContext, partition: int, rows: RowReader, rejects: Rejects) -> None:
        self._context = context
        self._rows = rows
        self._rejects = rejects
        self._views = context.build_views(Scope.ENTITY, partition, rows)
        self._applied = dict.fromkeys(_KIND_OF_TOPIC, -1)
        self._stamped: dict[bytes, str] = {}
        self._changed: set[bytes] = set()

    def applied(self, topic: str) -> int:
        return self._applied[topic]

    def fold(self, topic: str, records: AnyRecords) -> int:
        fresh = [record for record in records if record.offset > self._applied[topic]]
        if not fresh:
            return 0
        kind = _KIND_OF_TOPIC[topic]
        if kind == EDGE_KIND:
            batch = EntityBatch(kind, self._edges(fresh))
        else:
            writes = self._entities(kind, fresh)
            batch = EntityBatch(kind, writes)
            if topic == USERS:
                self._send_profiles(fresh[0].partition, writes)
        for view in self._views:
            view.on_batch(batch)
        self._applied[topic] = int(fresh[-1].offset)
        return len(batch.writes)

    def flush(self, writer: RowWriter) -> ShardMeta:
        for view in self._views:
            view.checkpoint(writer)
        for key in sorted(self._changed):
            writer.put(STAMPED_PROFILES_TABLE.name, key, self._stamped[key].encode())
        self._changed.clear()
        self._stamped.clear()
        return ShardMeta(applied=dict(self._applied))

    def take_letters(self) -> list[Letter]:
        return []

    def restore(self, reader: RowReader, meta: ShardMeta) -> None:
        self._applied.update(meta.applied)
        for view in self._views:
            view.restore(reader)

    def _entities(self, kind: str, records: Sequence[Any]) -> list[EntityWrite]:
        writes = []
        for record in records:
            try:
                key = record.key or b""
                name = parse_entity_key(key, self._context.schema.limits.max_id_bytes)
                entity = decode_entity(kind, key, record.value, self._context.schema, record.timestamp)
            except RecordError as error:
                self._rejects.refuse(record, None, error, record.value or b"")
                continue
            writes.append(EntityWrite(record.offset, record.timestamp, name, entity))
        return writes

    def _edges(self, records: Sequence[Any]) -> list[EdgeWrite]:
        writes = []
        for record in records:
            try:
                key = record.key or b""
                names = parse_edge_key(key)
                edge = decode_edge(key, record.value, self._context.schema)
            except RecordError as error:
                self._rejects.refuse(record, None, error, record.value or b"")
                continue
            writes.append(EdgeWrite(record.offset, record.timestamp, *names, edge))
        return writes

    def _send_profiles(self, partition: int, writes: Sequence[EntityWrite]) -> None:
        """A profile record for each write that changes the user's dimensions; a deleted user has none."""
        keys = row_keys(entity_ids([write.id for write in writes]), STAMPED_TAG)
        self._load_stamped(keys)
        for key, write in zip(keys, writes, strict=True):
            profile = self._profile_of(write)
            if profile == self._stamped.get(key, EMPTY_PROFILE):
                continue
            self._stamped[key] = profile
            self._changed.add(key)
            self._context.forwarder.send_profile(
                ProfileRecord(write.id, parse_profile(profile), (partition, write.offset))
            )

    def _profile_of(self, write: EntityWrite) -> str:
        if write.record is None or write.record.status == "deleted":
            return EMPTY_PROFILE
        return self._context.schema.profile_string(write.record.fields)

    def _load_stamped(self, keys: Sequence[bytes]) -> None:
        """Rows of the last flush; what was stamped since is in memory and newer."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._stamped]
        rows = self._rows.get_many(STAMPED_PROFILES_TABLE.name, missing)
        self._stamped.update(
            (key, row.decode()) for key, row in zip(missing, rows, strict=True) if row is not None
        )
