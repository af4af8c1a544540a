"""Entity records that stand under another key, or in another partition, than their id's.

A connector writes the key as JSON (``{"id": "x"}``, perhaps in an envelope with its schema), and its bytes
choose the partition. Folded there, two partitions would hold one entity. So such a record is not folded where
it is found: a copy goes under the plain key to the id's home partition, where it takes its place in the log.

A copy carries the position of its original. Copies come in the order of their originals, from one producer
that keeps order and never gives up; so the receiver drops what is at or below the highest offset that it has
applied of that source partition, and a copy sent again after a crash changes nothing.

The original stays in the compacted topic, under a key that no delete under the plain key touches. The home
partition therefore remembers it, and when the entity is deleted sends a delete under that key as well: else
reading the topic from its start would bring the entity back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from materializers.materializer import RowReader, RowWriter, TableSpec
from materializers.shards.forwarding import Forwarder
from schemas.ids import code_of, entity_id
from schemas.keys import entity_range, row_key
from schemas.records.profile_record import (
    MOVED_TYPE,
    REROUTED_TYPE,
    SOURCE_HEADER,
    TYPE_HEADER,
)

ORIGINALS_TABLE: Final = TableSpec("originals", "[plain key][tag][code of the other key] -> where it stands")
ORIGINAL_TAG: Final = 11
_COUNTER: Final = "copied:"


class Original(msgspec.Struct, frozen=True, array_like=True):
    """A record whose copy was folded; in ``SOURCE_HEADER`` of the copy, and a row of ``originals``."""

    topic: str
    partition: int
    offset: int
    key: bytes


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Original)


class Rekeying:
    """Of the entity topics of one partition."""

    def __init__(self, forwarder: Forwarder, rows: RowReader) -> None:
        self._forwarder = forwarder
        self._rows = rows
        self._marks: dict[str, int] = {}
        self._changed: dict[bytes, bytes | None] = {}
        self.copied = 0

    def send_home(self, record: Any, home: int, key: bytes, value: bytes | None) -> None:
        """Send a copy of ``record`` to partition ``home`` of its topic, under ``key``."""
        original = Original(record.topic, record.partition, record.offset, record.key or b"")
        headers = [(TYPE_HEADER, REROUTED_TYPE), (SOURCE_HEADER, _encode(original))]
        self._forwarder.send_record(record.topic, home, key, value, headers, record.timestamp)
        self.copied += 1

    def is_news(self, record: Any) -> bool:
        """Whether a copy has not been applied yet; from now on it has."""
        original = original_of(record.headers)
        if original is None:
            return True
        name = f"{_COUNTER}{original.topic}:{original.partition}"
        if original.offset <= self._marks.get(name, -1):
            return False
        self._marks[name] = original.offset
        return True

    def applied(self, record: Any, key: bytes, *, deletes: bool) -> None:
        """``record`` is folded under its plain key, after those before it in the log: remember its original
        if it is a copy; delete the originals of earlier copies if it deletes.
        """
        original = original_of(record.headers)
        if original is not None:
            self._changed[_row_key(key, original.key)] = None if deletes else _encode(original)
        if deletes:
            self.deleted(key)

    def deleted(self, key: bytes) -> int:
        """What stood under this plain key is deleted: delete the originals of its copies; how many."""
        start, end = entity_range(entity_id(key.decode()))
        found: dict[bytes, bytes | None] = dict(self._rows.scan(ORIGINALS_TABLE.name, start, end))
        found |= {row: value for row, value in self._changed.items() if start <= row < end}
        for row, value in found.items():
            if value is None:
                continue
            original = _decoder.decode(value)
            headers = [(TYPE_HEADER, MOVED_TYPE)]
            self._forwarder.send_record(original.topic, original.partition, original.key, None, headers)
            self._changed[row] = None
        return sum(value is not None for value in found.values())

    def flush(self, writer: RowWriter) -> None:
        for row, value in self._changed.items():
            if value is None:
                writer.delete(ORIGINALS_TABLE.name, row)
            else:
                writer.put(ORIGINALS_TABLE.name, row, value)
        self._changed.clear()

    def counters(self) -> dict[str, int]:
        """What has to be restored with the rows."""
        return dict(self._marks)

    def restore(self, reader: RowReader, counters: dict[str, int]) -> None:
        self._rows = reader
        self._marks = {name: mark for name, mark in counters.items() if name.startswith(_COUNTER)}
        self._changed.clear()


def _row_key(plain: bytes, other: bytes) -> bytes:
    suffix = code_of(other.decode(errors="replace")).to_bytes(4, "big")
    return row_key(entity_id(plain.decode()), ORIGINAL_TAG, suffix)


def original_of(headers: Iterable[tuple[str, bytes]]) -> Original | None:
    """Where a copy comes from, by its headers; None of any other record."""
    return next((_decoder.decode(value) for name, value in headers if name == SOURCE_HEADER), None)
