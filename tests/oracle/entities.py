"""The newest record of every entity and edge."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import NamedTuple

import msgspec

from schemas.errors import RecordError
from schemas.ids import entity_id
from schemas.model import Schema
from schemas.records.edge_key import edge_key, parse_edge_key
from schemas.records.entities import EdgeRecord, EntityRecord, decode_edge, decode_entity, parse_entity_key
from streams.partitioner import partition_for
from tests.oracle.records import KIND_OF_TOPIC, RELATIONSHIPS, LogRecord, Reject, in_log_order

EdgeName = tuple[str, str, str]


class ItemVersion(NamedTuple):
    """One write of an item; ``record`` None deletes it."""

    partition: int
    offset: int
    record: EntityRecord | None


class Entities(NamedTuple):
    """``records`` by kind and id, ``edges`` by (type, source, target); every write of each item in log
    order.
    """

    records: dict[str, dict[str, EntityRecord]]
    edges: dict[EdgeName, EdgeRecord]
    rejects: list[Reject]
    item_versions: dict[str, list[ItemVersion]]


def fold_entities(log: list[LogRecord], schema: Schema, partitions: int | None = None) -> Entities:
    """The last valid write of each key wins; a null value deletes.

    With ``partitions`` a record counts in its owner's partition under its plain key alone: what stands
    elsewhere counts where its copy is, each copy once. A deleted user's edges go where the log says so.
    """
    fold = _EntitiesFold(schema, partitions)
    for topic, kind in KIND_OF_TOPIC.items():
        for record in in_log_order(log, topic):
            fold.entity(kind, record)
    for record in in_log_order(log, RELATIONSHIPS):
        fold.edge(record)
    return fold.entities


class _EntitiesFold:
    def __init__(self, schema: Schema, partitions: int | None) -> None:
        self.entities = Entities({kind: {} for kind in KIND_OF_TOPIC.values()}, {}, [], defaultdict(list))
        self._schema = schema
        self._partitions = partitions
        self._copied: dict[tuple[str, int, int], int] = {}
        self._forgotten: dict[tuple[int, int], int] = {}
        self._edge_partition: dict[EdgeName, int] = {}

    def entity(self, kind: str, record: LogRecord) -> None:
        key = record.key or b""
        try:
            name = parse_entity_key(key, self._schema.limits.max_id_bytes)
            written = decode_entity(kind, key, record.value, self._schema, record.timestamp_ms)
        except RecordError as error:
            self._refuse(record, error)
            return
        if not self._counts(record, name, name.encode()):
            return
        if kind == "item":
            version = ItemVersion(record.partition, record.offset, written)
            self.entities.item_versions[name].append(version)
        if written is None:
            self.entities.records[kind].pop(name, None)
        else:
            self.entities.records[kind][name] = written

    def edge(self, record: LogRecord) -> None:
        if record.type == "forget":
            self._forget(record)
            return
        try:
            name = parse_edge_key(record.key or b"")
            edge = decode_edge(record.key or b"", record.value, self._schema)
        except RecordError as error:
            self._refuse(record, error)
            return
        if not self._counts(record, name[1], edge_key(*name)):
            return
        self._edge_partition[name] = record.partition
        if edge is None:
            self.entities.edges.pop(name, None)
        else:
            self.entities.edges[name] = edge

    def _counts(self, record: LogRecord, owner: str, plain_key: bytes) -> bool:
        if record.type == "moved":
            return False
        if self._partitions is None:
            return True
        if record.type == "rerouted":
            topic, partition, offset, _ = msgspec.msgpack.decode(record.headers["tidal-source"])
            place = (topic, record.partition, partition)
            if offset <= self._copied.get(place, -1):
                return False
            self._copied[place] = offset
            return True
        home = partition_for(owner.encode(), self._partitions)
        return home == record.partition and plain_key == record.key

    def _forget(self, record: LogRecord) -> None:
        """Edges from and to the user, of this partition, as of here."""
        if record.value is None:
            return
        told = json.loads(record.value)
        place = (record.partition, told["source"][0])
        if told["source"][1] <= self._forgotten.get(place, -1):
            return
        self._forgotten[place] = told["source"][1]
        for name in list(self.entities.edges):
            ends = (entity_id(name[1]), entity_id(name[2]))
            if self._edge_partition[name] == record.partition and told["entity_id"] in ends:
                del self.entities.edges[name]

    def _refuse(self, record: LogRecord, error: RecordError) -> None:
        if record.type != "moved":
            reject = Reject(record.topic, record.partition, record.offset, None, error.code)
            self.entities.rejects.append(reject)
