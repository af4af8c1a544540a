"""Events that wait for their item's record.

They are applied, in log order, when the partition first folds with a card of the item; ``card_positions``
says when that was.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from materializers.interner import Interner
from materializers.materializer import RowReader, RowWriter, TableSpec
from materializers.shards.events import Events
from schemas.ids import entity_id
from schemas.keys import row_key
from schemas.model import Schema

PARKED_TABLE: Final = TableSpec("parked", "[item][tag][number u64] -> the event", bloom=False)
PARKED_TAG: Final = 7


class ParkedRow(msgspec.Struct, frozen=True, array_like=True):
    """One waiting event."""

    offset: int
    item: str
    user: str
    signal: int
    weight: int
    ts_ms: int
    record_ts_ms: int


class _Parked(NamedTuple):
    number: int
    offset: int
    user: int
    signal: int
    weight: int
    ts_ms: int
    record_ts_ms: int


_encode = msgspec.msgpack.Encoder().encode
_parked_decoder = msgspec.msgpack.Decoder(ParkedRow)


def decode_parked(row: bytes) -> ParkedRow:
    return _parked_decoder.decode(row)


def parked_key(item: str, number: int) -> bytes:
    return row_key(entity_id(item), PARKED_TAG, number.to_bytes(8, "big"))


class Parking:
    """The waiting events of one user partition, at most ``limits.parked_events_max``."""

    def __init__(self, schema: Schema, items: Interner, users: Interner) -> None:
        self._items = items
        self._users = users
        self._codes = [signal.code for signal in schema.signal_list]
        self._signal_of_code = {code: index for index, code in enumerate(self._codes)}
        self._limit = schema.limits.parked_events_max
        self._waiting: dict[int, list[_Parked]] = {}
        self._size = 0
        self._number = 0
        self._unwritten: list[tuple[int, _Parked]] = []
        self._left: list[bytes] = []
        self.refused = 0

    def __len__(self) -> int:
        return self._size

    @property
    def items(self) -> npt.NDArray[np.uint32]:
        """Wids of the items that are waited for."""
        return np.fromiter(self._waiting, dtype=np.uint32, count=len(self._waiting))

    def park(self, events: Events) -> None:
        """Let events wait, in log order. What exceeds the bound is counted and moves nothing that needs a
        card.
        """
        columns = (
            events.offset,
            events.user,
            events.signal,
            events.weight,
            events.ts_ms,
            events.record_ts_ms,
        )
        room = max(0, self._limit - self._size)
        self.refused += max(0, len(events) - room)
        rows = zip(events.item.tolist(), *(column.tolist() for column in columns), strict=True)
        for item, *fields in list(rows)[:room]:
            parked = _Parked(self._number, *fields)
            self._number += 1
            self._waiting.setdefault(item, []).append(parked)
            self._unwritten.append((item, parked))
            self._size += 1

    def release(self, items: npt.NDArray[np.uint32]) -> Events:
        """The events of ``items``, whose cards have come, in log order."""
        released: list[tuple[int, _Parked]] = []
        for item in items.tolist():
            parked = self._waiting.pop(item)
            released.extend((item, each) for each in parked)
        self._size -= len(released)
        unwritten = {parked.number for _, parked in self._unwritten}
        gone = {parked.number for _, parked in released}
        self._unwritten = [entry for entry in self._unwritten if entry[1].number not in gone]
        self._left.extend(
            parked_key(self._items.string(item), parked.number)
            for item, parked in released
            if parked.number not in unwritten
        )
        released.sort(key=lambda entry: entry[1].number)
        return _events(released)

    def forget(self, users: npt.NDArray[np.uint32]) -> dict[str, int]:
        """Drop the waiting events of users, given as wids u32[k]; rows deleted by table."""
        gone_users = set(users.tolist())
        unwritten = {parked.number for _, parked in self._unwritten}
        rows = 0
        for item, waiting in list(self._waiting.items()):
            gone = [parked for parked in waiting if parked.user in gone_users]
            if not gone:
                continue
            stored = [parked.number for parked in gone if parked.number not in unwritten]
            self._left.extend(parked_key(self._items.string(item), number) for number in stored)
            rows += len(stored)
            self._size -= len(gone)
            self._waiting[item] = [parked for parked in waiting if parked.user not in gone_users]
            if not self._waiting[item]:
                del self._waiting[item]
        self._unwritten = [entry for entry in self._unwritten if entry[1].user not in gone_users]
        return {PARKED_TABLE.name: rows} if rows else {}

    def counters(self) -> dict[str, int]:
        """What has to be restored with the rows."""
        return {"parked_number": self._number, "parked_refused": self.refused}

    def flush(self, writer: RowWriter) -> None:
        """Write what was parked and what has left since the last call."""
        for key in self._left:
            writer.delete(PARKED_TABLE.name, key)
        for item_wid, parked in self._unwritten:
            item = self._items.string(item_wid)
            writer.put(PARKED_TABLE.name, parked_key(item, parked.number), _encode(self._row(item, parked)))
        self._left.clear()
        self._unwritten.clear()

    def restore(self, reader: RowReader, counters: dict[str, int]) -> None:
        self._number = counters.get("parked_number", 0)
        self.refused = counters.get("parked_refused", 0)
        rows = [(int.from_bytes(key[-8:], "big"), row) for key, row in reader.scan(PARKED_TABLE.name)]
        for number, value in sorted(rows):
            row = _parked_decoder.decode(value)
            signal = self._signal_of_code.get(row.signal)
            if signal is None:  # the schema has dropped the signal: nothing is left to move
                continue
            item, user = int(self._items.ids([row.item])[0]), int(self._users.ids([row.user])[0])
            parked = _Parked(number, row.offset, user, signal, row.weight, row.ts_ms, row.record_ts_ms)
            self._waiting.setdefault(item, []).append(parked)
            self._size += 1

    def _row(self, item: str, parked: _Parked) -> ParkedRow:
        return ParkedRow(
            parked.offset,
            item,
            self._users.string(parked.user),
            self._codes[parked.signal],
            parked.weight,
            parked.ts_ms,
            parked.record_ts_ms,
        )


def _events(released: list[tuple[int, _Parked]]) -> Events:
    def column(dtype: type, position: int) -> npt.NDArray[Any]:
        return np.array([parked[position] for _, parked in released], dtype=dtype)

    return Events(
        item=np.array([item for item, _ in released], dtype=np.uint32),
        user=column(np.uint32, 2),
        signal=column(np.uint16, 3),
        weight=column(np.int64, 4),
        ts_ms=column(np.int64, 5),
        record_ts_ms=column(np.int64, 6),
        offset=column(np.int64, 1),
    )
