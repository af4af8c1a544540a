"""The entity shard of one partition: records of the compacted topics, and what they cause elsewhere: profile
records, item conditions of segments, erasures, copies of records that stand in the wrong place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from materializers.batches import EdgeWrite, EntityBatch, EntityWrite
from materializers.materializer import RowReader, RowWriter, Scope, TableSpec
from materializers.rows.entities import EDGES, TABLE_OF_KIND, decode_entity_row, entity_key
from materializers.rows.erasures import ErasurePart
from materializers.shards.context import WorkerContext
from materializers.shards.edge_erasure import EdgeFinder
from materializers.shards.erasures import (
    ERASURES_TABLE,
    OPEN_ERASURES_TABLE,
    ErasureChanges,
    ErasureLog,
)
from materializers.shards.item_conditions import TOLD_CONDITIONS_TABLE, ToldConditions
from materializers.shards.rejects import Rejects
from materializers.shards.rekeying import ORIGINALS_TABLE, Rekeying
from materializers.shards.stamped_profiles import STAMPED_PROFILES_TABLE, StampedProfiles
from materializers.tables.meta import ShardMeta
from materializers.tables.pending import Letter
from schemas.errors import RecordError
from schemas.records.edge_key import edge_key, parse_edge_key
from schemas.records.entities import decode_edge, decode_entity, parse_entity_key
from schemas.records.forget_record import (
    FORGET_HEADERS,
    FORGET_TYPE,
    ForgetRecord,
    ForgottenRecord,
    decode_forgotten,
    encode_forget,
    erasure_name,
)
from schemas.records.item_conditions import (
    ITEM_CONDITIONS_HEADERS,
    ItemConditions,
    encode_item_conditions,
)
from schemas.records.profile_record import (
    MOVED_TYPE,
    REROUTED_TYPE,
    TYPE_HEADER,
    ProfileRecord,
    record_type,
)
from streams.partitioner import partition_for
from streams.records import AnyRecords
from streams.topics import ENTITY_TOPICS, ITEMS, RELATIONSHIPS, SIGNALS, USERS

ENTITY_SHARD_TABLES: Final[tuple[TableSpec, ...]] = (
    STAMPED_PROFILES_TABLE,
    TOLD_CONDITIONS_TABLE,
    ORIGINALS_TABLE,
    ERASURES_TABLE,
    OPEN_ERASURES_TABLE,
)

EDGE_KIND: Final = "edge"
_KIND_OF_TOPIC: Final = {topic: kind for kind, topic in ENTITY_TOPICS.items()} | {RELATIONSHIPS: EDGE_KIND}
_FORGOTTEN: Final = "forgotten:"
_TOUCH_KEY: Final = b"erasure"


_Write = TypeVar("_Write", EntityWrite, EdgeWrite)


class _Found(NamedTuple, Generic[_Write]):
    """A record's write, its plain key, the id whose partition it belongs to, its plain value."""

    write: _Write
    key: bytes
    owner: str
    value: bytes | None


_Decode = Callable[[Any], _Found[_Write]]


class EntityShard:
    """``Shard`` of scope entity; each of its four topics has its own applied offset."""

    scope = Scope.ENTITY

    def __init__(self, context: WorkerContext, partition: int, rows: RowReader, rejects: Rejects) -> None:
        self._context = context
        self._partition = partition
        self._rows = rows
        self._rejects = rejects
        self._views = context.build_views(Scope.ENTITY, partition, rows)
        self._applied = dict.fromkeys(_KIND_OF_TOPIC, -1)
        self._stamped = StampedProfiles(context.schema, rows)
        self._conditions = ToldConditions(context.schema, partition, rows)
        self._copies = Rekeying(context.forwarder, rows)
        self._edges = EdgeFinder(context.schema, rows)
        self._outdated_edges: list[bytes] = []
        self._names: dict[tuple[str, bytes], str | None] = {}
        self._record_erasures = ErasureLog(ErasurePart.RECORD)
        self._edge_erasures = ErasureLog(ErasurePart.EDGES)
        self._forgotten: dict[str, int] = {}
        self.erasures = ErasureChanges()

    @property
    def copied(self) -> int:
        """Records that stood under another key or in another partition, since the partition was acquired."""
        return self._copies.copied

    @property
    def has_more_to_tell(self) -> bool:
        """Whether another flush goes on with items that the schema's conditions were not asked of."""
        return self._conditions.is_behind

    def applied(self, topic: str) -> int:
        return self._applied[topic]

    def fold(self, topic: str, records: AnyRecords) -> int:
        fresh = [record for record in records if record.offset > self._applied[topic]]
        if not fresh:
            return 0
        kind = _KIND_OF_TOPIC[topic]
        writes: Any = self._fold_edges(fresh) if kind == EDGE_KIND else self._fold_entities(kind, fresh)
        batch = EntityBatch(kind, writes)
        for view in self._views:
            view.on_batch(batch)
        self._applied[topic] = int(fresh[-1].offset)
        return len(writes)

    def touch(self) -> None:
        """Write a record that says nothing to the topics that erased users were in (see ``Wiper``)."""
        for topic in (USERS, RELATIONSHIPS):
            headers = [(TYPE_HEADER, MOVED_TYPE)]
            self._context.forwarder.send_record(topic, self._partition, _TOUCH_KEY, None, headers)

    def flush(self, writer: RowWriter) -> ShardMeta:
        for key in self._outdated_edges:
            writer.delete(EDGES, key)
        for view in self._views:
            view.checkpoint(writer)
        self._stamped.flush(writer)
        for told in self._conditions.flush(writer):
            self._tell(told)
        self._copies.flush(writer)
        self._record_erasures.flush(writer)
        self._edge_erasures.flush(writer)
        self.erasures.flush(writer)
        self._outdated_edges.clear()
        self._names.clear()
        self._edges.flushed()
        counters = self._copies.counters() | self._conditions.counters() | self._forgotten
        return ShardMeta(applied=dict(self._applied), counters=counters)

    def take_letters(self) -> list[Letter]:
        return []

    def restore(self, reader: RowReader, meta: ShardMeta) -> None:
        self._rows = reader
        self._applied.update(meta.applied)
        self._copies.restore(reader, meta.counters)
        self._conditions.restore(reader, meta.counters, is_new=self._applied[ITEMS] < 0)
        self._forgotten = {name: at for name, at in meta.counters.items() if name.startswith(_FORGOTTEN)}
        for view in self._views:
            view.restore(reader)

    # -- entities -----------------------------------------------------------------------------------

    def _fold_entities(self, kind: str, records: Sequence[Any]) -> list[EntityWrite]:
        found = list(self._at_home(records, lambda record: self._entity(kind, record)))
        found = self._without_collisions(kind, found)
        if kind == "user":
            self._stamped.load([write.id for _, write in found])
        elif kind == "item":
            self._conditions.load([write.id for _, write in found])
        for record, write in found:
            self._copies.applied(record, write.id.encode(), deletes=write.record is None)
            if kind == "user":
                self._tell_signals(write)
            elif kind == "item":
                self._tell_conditions(write)
        return [write for _, write in found]

    def _entity(self, kind: str, record: Any) -> _Found[EntityWrite]:
        schema, key = self._context.schema, record.key or b""
        name = parse_entity_key(key, schema.limits.max_id_bytes)
        entity = decode_entity(kind, key, record.value, schema, record.timestamp)
        write = EntityWrite(record.offset, record.timestamp, name, entity)
        return _Found(write, name.encode(), name, None if entity is None else entity.raw)

    def _without_collisions(
        self, kind: str, found: Sequence[tuple[Any, EntityWrite]]
    ) -> list[tuple[Any, EntityWrite]]:
        """Refuses a record whose EntityId belongs to another id of its kind."""
        keys = [entity_key(write.id) for _, write in found]
        missing = [key for key in dict.fromkeys(keys) if (kind, key) not in self._names]
        for key, row in zip(missing, self._rows.get_many(TABLE_OF_KIND[kind], missing), strict=True):
            if row is not None:
                self._names[kind, key] = decode_entity_row(row).id
        kept = []
        for key, (record, write) in zip(keys, found, strict=True):
            known = self._names.get((kind, key)) or write.id
            if known == write.id:
                gone = kind == "user" and write.record is None  # who leaves nothing behind holds no name
                self._names[kind, key] = None if gone else write.id
                kept.append((record, write))
                continue
            problem = f"{write.id!r} has the same 64-bit EntityId as {known!r}, which came first"
            self._rejects.refuse(
                record, None, RecordError("id_collision", "id", problem), record.value or b""
            )
        return kept

    def _tell_signals(self, write: EntityWrite) -> None:
        """A profile record if the write changes the user's dimensions; an erasure if it deletes the user."""
        source = (self._partition, write.offset)
        if write.record is None:
            self._erase(write, source)
            return
        profile = self._stamped.changed(write.id, write.record)
        if profile is not None:
            self._context.forwarder.send_profile(ProfileRecord(write.id, profile, source))

    def _tell_conditions(self, write: EntityWrite) -> None:
        """A record in every partition of the signals if the write changes which item conditions hold."""
        told = self._conditions.changed(write.offset, write.id, write.record)
        if told is not None:
            self._tell(told)

    def _tell(self, told: ItemConditions) -> None:
        key, value = told.item.encode(), encode_item_conditions(told)
        for partition in range(self._context.partitions):
            self._context.forwarder.send_record(SIGNALS, partition, key, value, ITEM_CONDITIONS_HEADERS)

    # -- erasure ------------------------------------------------------------------------------------

    def _erase(self, write: EntityWrite, source: tuple[int, int]) -> None:
        """Erase what this shard keeps under the user's key, and tell everybody else in the log."""
        key = entity_key(write.id)
        rows = self._stamped.forget(write.id)
        if self._rows.get_many(TABLE_OF_KIND["user"], [key])[0] is not None:
            rows[TABLE_OF_KIND["user"]] = 1
        self._record_erasures.add(source, write.timestamp_ms, rows)
        forwarder, partitions = self._context.forwarder, self._context.partitions
        record = ForgetRecord(write.id, source, write.timestamp_ms)
        user = write.id.encode()
        forwarder.send_record(
            SIGNALS, partition_for(user, partitions), user, encode_forget(record), FORGET_HEADERS
        )
        eid = int.from_bytes(key[:8], "big")
        value = encode_forget(ForgottenRecord(eid, source, write.timestamp_ms))
        for partition in range(partitions):
            forwarder.send_record(
                RELATIONSHIPS, partition, _marker_key(source), value, FORGET_HEADERS, write.timestamp_ms
            )

    def _erase_edges(self, record: Any) -> list[EdgeWrite]:
        """Deletes of the edges from and to an erased user, as of this place in ``tidal.relationships``."""
        if record.value is None:  # an earlier erasure's record was taken out of the log
            return []
        forgotten = self._rejects.decoded(record, decode_forgotten)
        if forgotten is None:
            return []
        name = f"{_FORGOTTEN}{forgotten.source[0]}"
        if forgotten.source[1] <= self._forgotten.get(name, -1):
            return []
        self._forgotten[name] = forgotten.source[1]
        edges = self._edges.of(forgotten.entity_id)
        outdated = self._edges.outdated(forgotten.entity_id)
        self._outdated_edges.extend(outdated)
        rows = 2 * len(edges) + len(outdated)
        self._edge_erasures.add(forgotten.source, forgotten.at_ms, {EDGES: rows} if rows else {})
        self._take_out_of_log(record, edges)
        return [EdgeWrite(record.offset, record.timestamp, *edge, None) for edge in edges]

    def _take_out_of_log(self, record: Any, edges: Sequence[tuple[str, str, str]]) -> None:
        """Compaction removes the edges' records, and the record that said so, once these deletes follow."""
        forwarder = self._context.forwarder
        for edge in edges:
            key = edge_key(*edge)
            forwarder.send_record(RELATIONSHIPS, self._partition, key, None, ())
            self._copies.deleted(key)
        forwarder.send_record(RELATIONSHIPS, self._partition, record.key, None, FORGET_HEADERS)

    # -- edges --------------------------------------------------------------------------------------

    def _fold_edges(self, records: Sequence[Any]) -> list[EdgeWrite]:
        """Writes in log order; an erasure among them is the deletes of what stands at that place."""
        writes: list[EdgeWrite] = []
        for record in records:
            if record.headers and record_type(record.headers) == FORGET_TYPE:
                new = self._erase_edges(record)
            else:
                new = [write for _, write in self._at_home([record], self._edge)]
                for write in new:
                    key = edge_key(write.type, write.source, write.target)
                    self._copies.applied(record, key, deletes=write.record is None)
            self._edges.wrote(new)
            writes.extend(new)
        return writes

    def _edge(self, record: Any) -> _Found[EdgeWrite]:
        key = record.key or b""
        names = parse_edge_key(key)
        edge = decode_edge(key, record.value, self._context.schema)
        write = EdgeWrite(record.offset, record.timestamp, *names, edge)
        return _Found(write, edge_key(*names), names[1], None if edge is None else edge.raw)

    # -- where a record belongs ---------------------------------------------------------------------

    def _at_home(self, records: Sequence[Any], decode: _Decode[_Write]) -> Iterator[tuple[Any, _Write]]:
        """Records and their writes that are folded here; what stands in the wrong place is sent home."""
        for record in records:
            kind = record_type(record.headers) if record.headers else b""
            if kind == MOVED_TYPE:
                continue
            try:
                found = decode(record)
            except RecordError as error:
                self._rejects.refuse(record, None, error, record.value or b"")
                continue
            home = partition_for(found.owner.encode(), self._context.partitions)
            if kind == REROUTED_TYPE:
                if self._copies.is_news(record):
                    yield record, found.write
            elif home != self._partition or found.key != record.key:
                self._copies.send_home(record, home, found.key, found.value)
            else:
                yield record, found.write


def _marker_key(source: tuple[int, int]) -> bytes:
    """Of the record that carries an erasure through ``tidal.relationships``: nobody's edge."""
    return b"erasure " + erasure_name(source).encode()
