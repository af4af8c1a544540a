"""Tells every partition of ``tidal.signals`` which item conditions of segments an item satisfies.

Only a change is told, and an item that never satisfied any costs nothing: a site with a thousand jazz tracks
among a million sends a thousand records to each partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from materializers.materializer import RowReader, RowWriter, TableSpec
from schemas.field_match import matches_fields
from schemas.ids import entity_id
from schemas.keys import row_key
from schemas.model import Schema
from schemas.records.entities import EntityRecord
from schemas.segment_plan import segment_plan

TOLD_CONDITIONS_TABLE: Final = TableSpec("told_conditions", "[item][tag] -> conditions last told")
TOLD_TAG: Final = 15

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[str, ...]).decode


class ToldConditions:
    """Rows of ``told_conditions``; those changed since the last flush are in memory."""

    def __init__(self, schema: Schema, rows: RowReader) -> None:
        self._conditions = segment_plan(schema).conditions
        self._rows = rows
        self._changed: dict[bytes, tuple[str, ...]] = {}
        self._stored: dict[bytes, tuple[str, ...]] = {}

    def load(self, items: Sequence[str]) -> None:
        """Read the rows of items about to be asked for, all at once."""
        if not self._conditions:
            return
        keys = [key for key in dict.fromkeys(map(_key, items)) if key not in self._stored]
        rows = self._rows.get_many(TOLD_CONDITIONS_TABLE.name, keys)
        self._stored.update(
            (key, () if row is None else _decode(row)) for key, row in zip(keys, rows, strict=True)
        )

    def changed(self, item: str, record: EntityRecord | None) -> tuple[str, ...] | None:
        """The conditions that this record satisfies if they are others than those told last, and count as
        told now. The item was loaded; a deleted one satisfies none.
        """
        if not self._conditions:
            return None
        key = _key(item)
        holds: tuple[str, ...] = ()
        if record is not None and record.status != "deleted":
            own = {"id": record.id, "status": record.status, "creator": record.creator}
            fields = {**record.fields, **own}
            holds = tuple(text for text, each in self._conditions.items() if matches_fields(each, fields))
        if holds == self._changed.get(key, self._stored[key]):
            return None
        self._changed[key] = holds
        return holds

    def flush(self, writer: RowWriter) -> None:
        for key in sorted(self._changed):
            holds = self._changed[key]
            if holds:
                writer.put(TOLD_CONDITIONS_TABLE.name, key, _encode(holds))
            else:
                writer.delete(TOLD_CONDITIONS_TABLE.name, key)
        self._changed.clear()
        self._stored.clear()


def _key(item: str) -> bytes:
    return row_key(entity_id(item), TOLD_TAG)
