"""Rows of ``distinct_users``: who sent a signal about an item, by day, in sorted runs of packed blocks.

Keys:

* ``[0][day u32 BE]``: the runs of a day (``DayRuns``).
* ``[1][day u32 BE][run u32 BE][last item u32 BE][block u16 BE]``: a block. The blocks of a run follow each
  other in the order of (item, signal, user); a seek to an item's number finds the first that can hold it.
* ``[2]``: the first day that is still kept, u32 BE.

A day is a UTC day since 1970. Users stand there as EntityIds, as they are: eight bytes that can be searched
for.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from materializers.grouping import distinct
from materializers.rows.errors import RowFormatError
from materializers.rows.packing import Packer, Unpacker

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.integer] | npt.NDArray[np.bool_] | slice

TABLE: Final = "distinct_users"
VERSION: Final = 1
THRESHOLD_HOUR: Final = 255
"""In ``Entries.hour``: the entry is no visit; ``user`` is its cell's threshold."""
FIRST_DAY_KEY: Final = b"\x02"

_DAY_KEY: Final = struct.Struct(">BI")
_RUN_KEY: Final = struct.Struct(">BII")
_BLOCK_KEY: Final = struct.Struct(">BIIIH")
_RUNS, _BLOCKS = 0, 1


@dataclass(slots=True, frozen=True)
class Entries:
    """n visits: a user sent a signal about an item, under a cohort profile, in an hour.

    ``day`` u32 since 1970 (UTC); ``item`` u32 and ``profile`` u32 the partition's ordinals; ``signal`` u32
    the signal's code; ``user`` u64 EntityId; ``hour`` u8 of the day; ``first`` and ``last`` u8 the first and
    last minute in it. A cell is (day, item, signal). An entry with ``hour`` THRESHOLD_HOUR says that its cell
    holds only users whose EntityId is below ``user``.
    """

    day: U32
    item: U32
    signal: U32
    user: U64
    profile: U32
    hour: U8
    first: U8
    last: U8

    def __len__(self) -> int:
        return len(self.item)

    def at(self, rows: Rows) -> Entries:
        """Some of the entries."""
        return Entries(*(getattr(self, name)[rows] for name in _COLUMNS))


@dataclass(slots=True, frozen=True)
class DayRuns:
    """The runs of a day: their numbers, ascending, and how many entries each was written with.

    ``next_run`` is dealt to the next one: a number never comes twice.
    """

    next_run: int
    runs: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()


_COLUMNS: Final = tuple(field.name for field in fields(Entries))
_U8: Final[U8] = np.zeros(0, dtype=np.uint8)
_U32: Final[U32] = np.zeros(0, dtype=np.uint32)
NOTHING: Final = Entries(_U32, _U32, _U32, np.zeros(0, dtype=np.uint64), _U32, _U8, _U8, _U8)


def joined(parts: Sequence[Entries]) -> Entries:
    """All entries, one part after the other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return NOTHING
    return Entries(*(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS))


def day_key(day: int) -> bytes:
    return _DAY_KEY.pack(_RUNS, day)


def day_of(key: bytes) -> int:
    """The day of a ``day_key``."""
    return int(_DAY_KEY.unpack(key)[1])


def days_range(first: int, last: int) -> tuple[bytes, bytes]:
    """``(start, end)`` of the rows that name the runs of days ``first`` to ``last``."""
    return _DAY_KEY.pack(_RUNS, first), _DAY_KEY.pack(_RUNS, last + 1)


def block_key(day: int, run: int, last_item: int, block: int) -> bytes:
    return _BLOCK_KEY.pack(_BLOCKS, day, run, last_item, block)


def split_block_key(key: bytes) -> tuple[int, int, int]:
    """``(day, run, last item)`` of a block's key.

    Raises:
        RowFormatError: not a block's key.
    """
    if len(key) != _BLOCK_KEY.size or key[0] != _BLOCKS:
        raise RowFormatError(TABLE, f"{key.hex()} is no key of a block")
    _, day, run, last_item, _ = _BLOCK_KEY.unpack(key)
    return day, run, last_item


def run_range(day: int, run: int, first_item: int = 0) -> tuple[bytes, bytes]:
    """``(start, end)`` of a run's blocks, from the first one that can hold ``first_item``."""
    return _BLOCK_KEY.pack(_BLOCKS, day, run, first_item, 0), _RUN_KEY.pack(_BLOCKS, day, run + 1)


def blocks_of_day(day: int) -> tuple[bytes, bytes]:
    """``(start, end)`` of the blocks of all runs of a day."""
    return _RUN_KEY.pack(_BLOCKS, day, 0), _RUN_KEY.pack(_BLOCKS, day + 1, 0)


def blocks_range() -> tuple[bytes, bytes]:
    """``(start, end)`` of every block."""
    return bytes((_BLOCKS,)), bytes((_BLOCKS + 1,))


def encode_runs(runs: DayRuns) -> bytes:
    packer = Packer(VERSION, len(runs.runs)).scalar(runs.next_run)
    return packer.ints(np.array(runs.runs, dtype=np.int64)).ints(np.array(runs.sizes, dtype=np.int64)).done()


def decode_runs(value: bytes) -> DayRuns:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    reader = Unpacker(TABLE, value, VERSION)
    next_run = reader.scalar()
    runs = DayRuns(next_run, tuple(reader.ints().tolist()), tuple(reader.ints().tolist()))
    reader.end()
    return runs


def encode_block(entries: Entries) -> bytes:
    """Entries of one day, which is the key's; at least one, sorted by item."""
    codes = distinct(entries.signal)
    signal = np.searchsorted(codes, entries.signal)
    base = int(entries.item[0])
    packer = Packer(VERSION, len(entries)).scalar(base).list_of_ints(codes)
    packer.ints(entries.item - np.uint32(base)).ints(signal).words(_disguised(entries.user, entries.hour))
    packer.ints(entries.profile)
    return packer.ints(entries.hour).ints(entries.first).ints(entries.last - entries.first).done()


def decode_block(value: bytes, day: int) -> Entries:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    reader, codes, item = _head(value)
    return _rest(reader, codes, item, day)


def decode_items(value: bytes, day: int, items: U32) -> Entries:
    """The entries of some items, ascending u32[m]; of a block with none of them only the head is read.

    Raises:
        RowFormatError: damaged, or of another version.
    """
    reader, codes, item = _head(value)
    starts, ends = np.searchsorted(item, items, "left"), np.searchsorted(item, items, "right")
    held = np.flatnonzero(starts < ends)
    if not len(held):
        return NOTHING
    entries = _rest(reader, codes, item, day)
    if len(held) == 1:
        return entries.at(slice(int(starts[held[0]]), int(ends[held[0]])))
    return entries.at(np.isin(item, items))


def _head(value: bytes) -> tuple[Unpacker, U32, U32]:
    reader = Unpacker(TABLE, value, VERSION)
    base = reader.scalar()
    codes = reader.list_of_ints().astype(np.uint32)
    return reader, codes, (reader.ints() + base).astype(np.uint32)


def _rest(reader: Unpacker, codes: U32, item: U32, day: int) -> Entries:
    signal = codes[reader.ints()]
    stored = reader.words()
    profile = reader.ints().astype(np.uint32)
    hour, first = reader.ints().astype(np.uint8), reader.ints().astype(np.uint8)
    user = _disguised(stored, hour)
    last = first + reader.ints().astype(np.uint8)
    reader.end()
    return Entries(np.full(len(item), day, dtype=np.uint32), item, signal, user, profile, hour, first, last)


def _disguised(users: U64, hour: U8) -> U64:
    """Thresholds turned around: one may be an EntityId, and nobody who is erased may be found in a row."""
    thresholds = hour == THRESHOLD_HOUR
    return np.where(thresholds, ~users, users) if thresholds.any() else users
