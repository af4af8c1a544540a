"""The newest record of every entity and edge."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from schemas.errors import RecordError
from schemas.model import Schema
from schemas.records.edge_key import parse_edge_key
from schemas.records.entities import EdgeRecord, EntityRecord, decode_edge, decode_entity, parse_entity_key
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


def fold_entities(log: list[LogRecord], schema: Schema) -> Entities:
    """The last valid write of each key wins; a null value deletes."""
    entities = Entities({kind: {} for kind in KIND_OF_TOPIC.values()}, {}, [], defaultdict(list))
    for topic, kind in KIND_OF_TOPIC.items():
        for record in in_log_order(log, topic):
            try:
                written = decode_entity(kind, record.key or b"", record.value, schema, record.timestamp_ms)
            except RecordError as error:
                entities.rejects.append(_reject(record, error))
                continue
            name = parse_entity_key(record.key or b"")
            if kind == "item":
                version = ItemVersion(record.partition, record.offset, written)
                entities.item_versions[name].append(version)
            if written is None:
                entities.records[kind].pop(name, None)
            else:
                entities.records[kind][written.id] = written
    for record in in_log_order(log, RELATIONSHIPS):
        _fold_edge(record, schema, entities)
    return entities


def _fold_edge(record: LogRecord, schema: Schema, entities: Entities) -> None:
    try:
        name = parse_edge_key(record.key or b"")
        edge = decode_edge(record.key or b"", record.value, schema)
    except RecordError as error:
        entities.rejects.append(_reject(record, error))
        return
    if edge is None:
        entities.edges.pop(name, None)
    else:
        entities.edges[name] = edge


def _reject(record: LogRecord, error: RecordError) -> Reject:
    return Reject(record.topic, record.partition, record.offset, None, error.code)
