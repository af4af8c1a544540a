"""The newest record of every entity and edge."""

from __future__ import annotations

from typing import NamedTuple

from schemas.errors import RecordError
from schemas.model import Schema
from schemas.records.edge_key import parse_edge_key
from schemas.records.entities import EdgeRecord, EntityRecord, decode_edge, decode_entity, parse_entity_key
from tests.oracle.records import KIND_OF_TOPIC, RELATIONSHIPS, LogRecord, Reject, in_log_order

EdgeName = tuple[str, str, str]


class Entities(NamedTuple):
    """``records`` by kind and id, ``edges`` by (type, source, target)."""

    records: dict[str, dict[str, EntityRecord]]
    edges: dict[EdgeName, EdgeRecord]
    rejects: list[Reject]


def fold_entities(log: list[LogRecord], schema: Schema) -> Entities:
    """The last valid write of each key wins; a null value deletes."""
    entities = Entities({kind: {} for kind in KIND_OF_TOPIC.values()}, {}, [])
    for topic, kind in KIND_OF_TOPIC.items():
        for record in in_log_order(log, topic):
            try:
                written = decode_entity(kind, record.key or b"", record.value, schema, record.timestamp_ms)
            except RecordError as error:
                entities.rejects.append(_reject(record, error))
                continue
            if written is None:
                entities.records[kind].pop(parse_entity_key(record.key or b""), None)
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
