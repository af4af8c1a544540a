"""Tells every partition of ``tidal.signals`` which item conditions of segments an item satisfies.

Only a change is told, and an item that never satisfied any costs nothing: a site with a thousand jazz tracks
among a million sends a thousand records to each partition. When the schema has other conditions than before,
all items are gone through once, a few with each flush.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec

from materializers.materializer import RowReader, RowWriter, TableSpec
from materializers.rows.entities import TABLE_OF_KIND, decode_entity_row
from schemas.errors import RecordError
from schemas.field_match import matches_fields
from schemas.ids import code_of, entity_id
from schemas.keys import row_key
from schemas.model import Schema
from schemas.records.entities import EntityRecord, decode_entity
from schemas.records.item_conditions import ItemConditions
from schemas.segment_plan import segment_plan

TOLD_CONDITIONS_TABLE: Final = TableSpec("told_conditions", "[item][tag] -> conditions last told")
TOLD_TAG: Final = 15

_COUNTER: Final = "item_conditions"
_ITEMS_AT_ONCE: Final = 32
"""About 3 ms with embeddings of 384 numbers."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[str, ...]).decode


class ToldConditions:
    """Rows of ``told_conditions`` of one partition; those changed since the last flush are in memory."""

    def __init__(self, schema: Schema, partition: int, rows: RowReader) -> None:
        self._schema = schema
        self._conditions = segment_plan(schema).conditions
        self._code = code_of("\n".join(self._conditions)) if self._conditions else 0
        self._partition = partition
        self._rows = rows
        self._changed: dict[bytes, tuple[str, ...]] = {}
        self._stored: dict[bytes, tuple[str, ...]] = {}
        self._next_item: bytes | None = None

    @property
    def is_behind(self) -> bool:
        """Whether items are left that the present conditions were not asked of, or rows of what was told."""
        return self._next_item is not None or bool(self._changed)

    def load(self, items: Sequence[str]) -> None:
        """Read the rows of items about to be asked for, all at once."""
        if self._conditions:
            self._load([_key(item) for item in items])

    def changed(self, offset: int, item: str, record: EntityRecord | None) -> ItemConditions | None:
        """What to tell if this record, at ``offset`` of ``tidal.items``, satisfies other conditions than
        those told last; it counts as told. The item was loaded; a deleted one satisfies none.
        """
        if not self._conditions:
            return None
        key = _key(item)
        holds = self._satisfied(record)
        if holds == self._changed.get(key, self._stored[key]):
            return None
        self._changed[key] = holds
        return ItemConditions(item, holds, (self._partition, offset))

    def flush(self, writer: RowWriter) -> Iterator[ItemConditions]:
        """Write what was told; then what is to be told of the next of the items that are left.

        The rows of those follow with the next flush: by then the log has acknowledged what is told here.
        """
        for key in sorted(self._changed):
            holds = self._changed[key]
            if holds:
                writer.put(TOLD_CONDITIONS_TABLE.name, key, _encode(holds))
            else:
                writer.delete(TOLD_CONDITIONS_TABLE.name, key)
        self._changed.clear()
        written, self._stored = set(self._stored), {}
        if self._next_item is not None:
            yield from self._go_on(self._next_item, written)

    def counters(self) -> dict[str, int]:
        """What has to be restored with the rows; call it after ``flush``."""
        return {_COUNTER: self._code} if self._code and not self.is_behind else {}

    def restore(self, reader: RowReader, counters: dict[str, int], *, is_new: bool) -> None:
        """``is_new``: the partition has never applied a record of an item."""
        self._rows = reader
        self._changed.clear()
        self._stored.clear()
        behind = self._code and not is_new and counters.get(_COUNTER) != self._code
        self._next_item = b"" if behind else None

    def _go_on(self, start: bytes, written: set[bytes]) -> Iterator[ItemConditions]:
        """A few more of the items on disk; those ``written`` by this flush were asked when they came."""
        rows = list(islice(self._rows.scan(TABLE_OF_KIND["item"], start), _ITEMS_AT_ONCE))
        self._next_item = rows[-1][0] + b"\x00" if len(rows) == _ITEMS_AT_ONCE else None
        items = [decode_entity_row(value) for _, value in rows]
        items = [item for item in items if _key(item.id) not in written]
        self._load([_key(item.id) for item in items])
        for item in items:
            try:
                record = decode_entity("item", item.id.encode(), item.raw or None, self._schema)
            except RecordError:  # another schema took it
                record = None
            told = self.changed(item.offset, item.id, record if item.status != "deleted" else None)
            if told is not None:
                yield told

    def _load(self, keys: Sequence[bytes]) -> None:
        missing = [key for key in dict.fromkeys(keys) if key not in self._stored]
        rows = self._rows.get_many(TOLD_CONDITIONS_TABLE.name, missing)
        self._stored.update(
            (key, () if row is None else _decode(row)) for key, row in zip(missing, rows, strict=True)
        )

    def _satisfied(self, record: EntityRecord | None) -> tuple[str, ...]:
        if record is None or record.status == "deleted":
            return ()
        own = {"id": record.id, "status": record.status, "creator": record.creator}
        fields = {**record.fields, **own}
        return tuple(text for text, each in self._conditions.items() if matches_fields(each, fields))


def _key(item: str) -> bytes:
    return row_key(entity_id(item), TOLD_TAG)
