"""What a flush wrote to the disk and no checkpoint holds yet, so that a restart on the same disk can send it.

One row for each flush, in the flush's own write batch: names of the changed rows (their values are in the
tables) and the dead letters whole (they exist nowhere else). A committed checkpoint deletes the rows it
covers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec
from rocksdict import WriteBatch

from materializers.tables.database import Database, Rows
from materializers.tables.layout import PENDING_TABLE


class Letter(msgspec.Struct, frozen=True, array_like=True):
    """A refused record on its way to the dead-letter topic, as it will be produced."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """One flush of one partition. Keys of one length are in ``joined``: that length, and the keys one after
    another; the others in ``keys``.
    """

    keys: dict[str, list[bytes]]
    letters: list[Letter]
    joined: dict[str, list[tuple[int, bytes]]]

    @staticmethod
    def of(keys: Mapping[str, Iterable[Collection[bytes]]], letters: list[Letter]) -> Pending:
        listed: dict[str, list[bytes]] = {}
        joined: dict[str, list[tuple[int, bytes]]] = {}
        for table, parts in keys.items():
            for part in parts:
                widths = set(map(len, part))
                if len(widths) == 1 and 0 not in widths:
                    joined.setdefault(table, []).append((widths.pop(), b"".join(part)))
                else:
                    listed.setdefault(table, []).extend(part)
        return Pending(listed, letters, joined)

    def names(self) -> Iterator[tuple[str, list[bytes]]]:
        """Each table's keys; a table may come several times."""
        yield from self.keys.items()
        for table, parts in self.joined.items():
            for width, names in parts:
                yield table, [names[at : at + width] for at in range(0, len(names), width)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Pending)


def _flush_key(flush: int) -> bytes:
    return flush.to_bytes(8, "big")


def put_pending(
    database: Database,
    batch: WriteBatch,
    partition: int,
    flush: int,
    keys: Mapping[str, Iterable[Collection[bytes]]],
    letters: list[Letter],
) -> None:
    """Add the row of flush number ``flush`` to its write batch, which changes the rows at ``keys``, given
    part by part.
    """
    pending = _encoder.encode(Pending.of(keys, letters))
    database.put(batch, PENDING_TABLE, partition, _flush_key(flush), pending)


def clear_pending(database: Database, batch: WriteBatch, partition: int, through_flush: int) -> None:
    """Add to ``batch`` the deletion of the rows of flushes up to and including ``through_flush``."""
    database.delete_rows(batch, PENDING_TABLE, partition, _flush_key(0), _flush_key(through_flush + 1))


def read_pending(database: Database, partition: int) -> tuple[Rows, list[Letter]]:
    """The rows (with their present values, None = deleted) and letters that no checkpoint holds."""
    keys: dict[str, dict[bytes, None]] = {}
    letters: list[Letter] = []
    for pending in _scan(database, partition):
        letters.extend(pending.letters)
        for table, names in pending.names():
            keys.setdefault(table, {}).update(dict.fromkeys(names))
    known = set(database.tables)
    rows: Rows = {
        table: dict(zip(names, database.get_many(table, partition, list(names)), strict=True))
        for table, names in keys.items()
        if table in known
    }
    return rows, letters


def _scan(database: Database, partition: int) -> Iterator[Pending]:
    for _, row in database.scan(PENDING_TABLE, partition):
        yield _decoder.decode(row)
