"""What records of ``tidal.items`` say to the item cards: those that the entity shard folds, and no others.

An item's versions have one order because all that count stand in the item's home partition, under its plain
key. What stands elsewhere counts once its copy is there (see ``rekeying``); a copy sent again after a crash
counts once; a delete that only takes an original out of the log says nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from materializers.batches import EntityWrite
from materializers.shards.rekeying import Original, original_of
from schemas.errors import RecordError
from schemas.model import Schema
from schemas.records.entities import decode_entity, parse_entity_key
from schemas.records.profile_record import MOVED_TYPE, REROUTED_TYPE, record_type
from streams.partitioner import partition_for


class ItemRecord(NamedTuple):
    """A write of an item in its home partition; ``original`` is where a copy comes from."""

    write: EntityWrite
    original: Original | None


def read_item_record(partition: int, partitions: int, record: Any, schema: Schema) -> ItemRecord | None:
    """What ``record`` (a ``LogRecord``) says; None if it counts elsewhere, nowhere, or is refused: the
    entity shard of its partition sends it on or to the dead letters.
    """
    kind = record_type(record.headers) if record.headers else b""
    if kind == MOVED_TYPE:
        return None
    key = record.key or b""
    try:
        name = parse_entity_key(key, schema.limits.max_id_bytes)
        if name.encode() != key or partition_for(key, partitions) != partition:
            return None
        entity = decode_entity("item", key, record.value, schema, record.timestamp)
        original = original_of(record.headers) if kind == REROUTED_TYPE else None
    except RecordError:
        return None
    return ItemRecord(EntityWrite(record.offset, record.timestamp, name, entity), original)


class CopyMarks:
    """How far the originals of copies were applied, by the copies' and the originals' partition."""

    def __init__(self, marks: dict[str, int]) -> None:
        """``marks`` is changed in place."""
        self._marks = marks

    def is_news(self, partition: int, record: ItemRecord) -> bool:
        """Whether a record has not been applied; from now on it has. Ask in the order of the log."""
        if record.original is None:
            return True
        name = f"{partition}:{record.original.partition}"
        if record.original.offset <= self._marks.get(name, -1):
            return False
        self._marks[name] = record.original.offset
        return True
