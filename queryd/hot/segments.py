"""Who is in which behavioural segment, now and as time passes without a word from anybody.

Of each user and atom (at least N events in the last W) one number is kept: the moment until which it holds,
which is the N-th newest time plus W. Bitmaps of members are those of one moment; a later one re-evaluates
those whose row has changed since and those for whom some atom has ended meanwhile. 42 to 66 bytes a user and
8 for each atom; a schema without segments pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from materializers.int_index import IntIndex
from materializers.rows.segments import (
    NEVER_MS,
    SECTION,
    TABLE,
    SegmentRow,
    decode_changes,
)
from queryd.hot.arrays import I64, U64, Mask
from queryd.hot.tables import Tables
from schemas.ids import entity_id
from schemas.keys import split_row_key
from schemas.model import Schema
from schemas.segment_plan import FOREVER, SumAtLeast, segment_plan

_ROWS_AT_ONCE: Final = 512  # about 1.5 ms
_GROWTH_MIN: Final = 1024
_ALWAYS_MS: Final = 1 << 62
_KEY_MASK: Final = np.uint64((1 << 63) - 1)
_CHANGED_MAX: Final = 1 << 16


class Stay(NamedTuple):
    """A segment that a user is in, and the moment from which not any more unless something happens; None:
    as long as nothing does.
    """

    segment: str
    until_ms: int | None


class SegmentMembers:
    """Members of every segment, of all partitions.

    Args:
        clock_ms: wall clock in epoch ms.
    """

    SECTION = SECTION
    """The section of the change feed that ``apply`` takes."""

    def __init__(self, tables: Tables, schema: Schema, clock_ms: Callable[[], int]) -> None:
        self._tables = tables
        self._clock_ms = clock_ms
        self._plan = segment_plan(schema)
        self._row = SegmentRow(self._plan.terms)
        self._index = IntIndex()
        self._size = 0
        self._entity: U64 = np.zeros(_GROWTH_MIN, dtype=np.uint64)
        self._partition = np.zeros(_GROWTH_MIN, dtype=np.uint16)
        self._newest_ms: I64 = np.full(_GROWTH_MIN, NEVER_MS, dtype=np.int64)
        self._until_ms: list[I64] = [self._newest_ms.copy() for _ in self._plan.atoms]
        self._bitmaps = {name: BitMap() for name in self._plan.names}
        self._as_of_ms = NEVER_MS
        self._changed: list[I64] = []
        self._changed_count = 0

    def __len__(self) -> int:
        """Users known."""
        return self._size

    @property
    def nbytes(self) -> int:
        """Bytes of the columns, without the bitmaps."""
        columns: list[npt.NDArray[Any]] = [self._entity, self._partition, self._newest_ms, *self._until_ms]
        return sum(int(column.nbytes) for column in columns) + self._index.nbytes

    def members(self, name: str) -> U64:
        """EntityIds u64[n] of the users who are in a segment now, each once."""
        return self._entity[np.asarray(self.bitmap(name, self._clock_ms()).to_array(), dtype=np.int64)]

    def count(self, name: str) -> int:
        """Users who are in a segment now."""
        return len(self.bitmap(name, self._clock_ms()))

    def bitmap(self, name: str, at_ms: int) -> BitMap:
        """Members by this object's ordinals, at a time when nothing has happened that it does not know.

        A time before the one asked for last is answered by looking at everybody.
        """
        if at_ms < self._as_of_ms:
            everybody = np.arange(self._size, dtype=np.int64)
            held = self._evaluated(everybody, at_ms)[self._plan.names.index(name)]
            return BitMap(np.flatnonzero(held).astype(np.uint32))
        self._move_to(at_ms)
        return self._bitmaps[name]

    def of_user(self, user: str, at_ms: int) -> list[Stay]:
        """The segments that a user is in at a time, in order of declaration."""
        slot = int(self._index.find(_keys(np.array([entity_id(user)], dtype=np.uint64)))[0])
        if slot < 0:
            return []
        ordinal = np.array([slot], dtype=np.int64)
        at_ms = max(at_ms, int(self._newest_ms[slot]))
        ends = sorted({int(until[slot]) for until in self._until_ms if at_ms < until[slot] < _ALWAYS_MS})
        now, *later = [self._evaluated(ordinal, moment) for moment in (at_ms, *ends)]
        stays = []
        for place, name in enumerate(self._plan.names):
            if now[place][0]:
                left = (end for end, then in zip(ends, later, strict=True) if not then[place][0])
                stays.append(Stay(name, next(left, None)))
        return stays

    # -- following the tables -----------------------------------------------------------------------

    def scan(self, partition: int) -> Iterator[str]:
        """Read a partition's rows; yields what it does between bounded steps."""
        if not self._plan:
            return
        users: list[int] = []
        rows: list[bytes] = []
        for key, value in self._tables.scan(TABLE, partition):
            users.append(split_row_key(key)[0])
            rows.append(value)
            if len(rows) == _ROWS_AT_ONCE:
                self._set(partition, np.array(users, dtype=np.uint64), rows)
                users, rows = [], []
                yield f"{TABLE} of partition {partition}"
        self._set(partition, np.array(users, dtype=np.uint64), rows)

    def apply(self, partition: int, payload: bytes) -> None:
        """Follow one section of the change feed."""
        if self._plan:
            self._set(partition, *decode_changes(payload))

    def drop(self, partition: int) -> None:
        """Forget what users of a partition did: its rows are about to be read anew."""
        slots = np.flatnonzero(self._partition[: self._size] == partition)
        self._newest_ms[slots] = NEVER_MS
        for until in self._until_ms:
            until[slots] = NEVER_MS
        self._note(slots)

    def _set(self, partition: int, users: U64, rows: Sequence[bytes]) -> None:
        if not len(users):
            return
        slots = self._slots(users)
        self._partition[slots] = partition
        gone = np.array([not row for row in rows], dtype=bool)
        self._newest_ms[slots[gone]] = NEVER_MS
        stored = self._row.decode([row for row in rows if row])
        kept = slots[~gone]
        self._newest_ms[kept] = stored["newest_ms"]
        for number, until in enumerate(self._until_ms):
            until[slots[gone]] = NEVER_MS
            until[kept] = self._until(number, stored)
        self._note(slots)

    def _until(self, number: int, stored: npt.NDArray[np.void]) -> I64:
        """The moments until which an atom holds, of stored rows [n]."""
        atom = self._plan.atoms[number]
        if isinstance(atom, SumAtLeast):
            holds = stored[f"sum_{atom.term}"] >= atom.micro
        elif atom.window_ms == FOREVER:
            holds = stored[f"count_{atom.term}"] >= atom.events
        else:
            nth: I64 = stored[f"times_{atom.term}"][:, atom.events - 1] + atom.window_ms
            return nth
        return np.where(holds, _ALWAYS_MS, NEVER_MS)

    def _slots(self, users: U64) -> I64:
        slots = self._index.find(_keys(users)).astype(np.int64)
        new = np.flatnonzero(slots < 0)
        if len(new):
            self._reserve(self._size + len(new))
            slots[new] = np.arange(self._size, self._size + len(new))
            self._entity[slots[new]] = users[new]
            self._index.insert(_keys(users[new]), slots[new])
            self._size += len(new)
        return slots

    def _reserve(self, size: int) -> None:
        if size <= len(self._entity):
            return
        more = (1 << (size - 1).bit_length()) - len(self._entity)
        never = np.full(more, NEVER_MS, dtype=np.int64)
        self._entity = np.concatenate([self._entity, np.zeros(more, dtype=np.uint64)])
        self._partition = np.concatenate([self._partition, np.zeros(more, dtype=np.uint16)])
        self._newest_ms = np.concatenate([self._newest_ms, never])
        self._until_ms = [np.concatenate([until, never]) for until in self._until_ms]

    # -- evaluating ---------------------------------------------------------------------------------

    def _note(self, slots: I64) -> None:
        self._changed.append(slots)
        self._changed_count += len(slots)
        if self._changed_count > _CHANGED_MAX:
            self._changed = [np.unique(np.concatenate(self._changed))]
            self._changed_count = len(self._changed[0]) // 2

    def _move_to(self, at_ms: int) -> None:
        """Let the bitmaps be those of ``at_ms``, not before the moment that they are of."""
        parts = self._changed
        for until in self._until_ms if at_ms > self._as_of_ms else ():
            ended = until[: self._size]
            parts.append(np.flatnonzero((ended > self._as_of_ms) & (ended <= at_ms)))
        ordinals = np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
        self._changed, self._changed_count = [], 0
        self._as_of_ms = at_ms
        if not len(ordinals):
            return
        for bitmap, held in zip(self._bitmaps.values(), self._evaluated(ordinals, at_ms), strict=True):
            bitmap -= BitMap(ordinals[~held].astype(np.uint32))
            bitmap |= BitMap(ordinals[held].astype(np.uint32))

    def _evaluated(self, ordinals: I64, at_ms: int) -> list[Mask]:
        """Of each segment whom it holds at a time, bool[n] of ``ordinals`` i64[n]."""
        moment = np.maximum(self._newest_ms[ordinals], at_ms)
        return self._plan.membership([until[ordinals] > moment for until in self._until_ms])


def _keys(users: U64) -> I64:
    """Keys of the index: 63 bits of an EntityId. Two users who differ in the first alone would be one; of
    ten million users that happens once in about 180,000 sites.
    """
    return (users & _KEY_MASK).astype(np.int64)
