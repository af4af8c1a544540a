"""Behavioural segments: of each user what their segments count, and which of them hold at each event.

An event is stamped with the segments that its user is in *before* it is counted, as of its place in the log;
``materializers.segment_counter`` says at which time.

Item conditions are those that the partition's log has told of (``ItemMove``), not the items' records, which
have no place among the events. An event on an item whose record came after it is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from materializers.batches import StampBatch, UserBatch
from materializers.erasing import erase_rows
from materializers.facts import DAMAGE, EntityRef, Fact, unreadable
from materializers.interner import Interner
from materializers.materializer import (
    Forgotten,
    PartitionContext,
    RowReader,
    RowWriter,
    Scope,
    TableSpec,
    View,
)
from materializers.rows.segments import (
    ITEMS_TABLE,
    SECTION,
    TABLE,
    decode_segment_counts,
    decode_segment_item,
    encode_changes,
)
from materializers.segment_counter import SegmentCounter
from materializers.segment_items import SegmentItems
from materializers.segment_stamps import SegmentStamps
from schemas.keys import split_row_key
from schemas.model import Schema
from schemas.segment_plan import segment_plan

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

MEMORY_BYTES_MAX: Final = 32 << 20
"""Rows of one partition in memory; others are read when needed."""


class Segments:
    """``Stamper`` of one user partition."""

    def __init__(self, context: PartitionContext, memory_bytes_max: int = MEMORY_BYTES_MAX) -> None:
        self._plan = segment_plan(context.schema)
        self._rows = context.rows
        self._users = context.users
        self._stamps = SegmentStamps(self._plan.names, context.profiles)
        self._items = SegmentItems(tuple(self._plan.conditions), context.items)
        self._counter = SegmentCounter(self._plan, context, memory_bytes_max)

    def stamp(self, batch: StampBatch) -> U32:
        """Fold, and the profile wid of each event, u32[n]."""
        satisfied = self._items.of(batch.item, batch.offset, batch.moves)
        known = np.flatnonzero(batch.user != Interner.NONE)
        if not self._plan or not len(known):
            return batch.profile
        matches = self._matches(batch.signal[known], satisfied[known])
        member = self._counter.fold(
            batch.user[known].astype(np.int64), batch.ts_ms[known], batch.weight[known], matches
        )
        stamped = batch.profile.copy()
        stamped[known] = self._stamps.of(batch.profile[known], member)
        return stamped

    def on_batch(self, batch: UserBatch) -> None:
        """Nothing: events were folded where they were stamped."""

    def checkpoint(self, writer: RowWriter) -> None:
        """Changed rows of users and of items; readers in memory are told of users."""
        self._items.checkpoint(writer)
        told = _Told(writer)
        self._counter.table.flush(told)
        if told.rows:
            users = np.array([split_row_key(key)[0] for key in told.keys], dtype=np.uint64)
            writer.feed(SECTION, encode_changes(users, told.rows))

    def restore(self, reader: RowReader) -> None:
        """Items at once; users are read when an event touches them."""
        self._rows = reader
        self._items.restore(reader)
        self._counter.table.restore(reader)

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        """Rows of the users."""
        self._counter.table.drop(lambda keys: np.isin(keys, users.wids))
        erased = erase_rows(TABLE, users.entity_ids, self._rows, writer)
        if self._plan:
            writer.feed(SECTION, encode_changes(users.entity_ids, [b""] * len(users.entity_ids)))
        return erased

    def _matches(self, signal: U16, satisfied: U64) -> list[Flags]:
        """Of each term which events it counts, bool[n]."""
        found = []
        for term in self._plan.terms:
            match = signal == term.signal
            if term.condition is not None:
                match &= (satisfied >> np.uint64(term.condition)) & np.uint64(1) == 1
            found.append(match)
        return found


class _Told:
    """``RowWriter`` that also remembers what a table flushes."""

    def __init__(self, writer: RowWriter) -> None:
        self._writer = writer
        self.keys: list[bytes] = []
        self.rows: list[bytes] = []

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.put_many(table, [key], [value])

    def put_many(self, table: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self._writer.put_many(table, keys, values)
        self.keys.extend(keys)
        self.rows.extend(values)

    def delete(self, table: str, key: bytes) -> None:
        self._writer.delete(table, key)

    def feed(self, section: str, payload: bytes) -> None:
        self._writer.feed(section, payload)


def counted_facts(rows: RowReader, schema: Schema) -> Iterator[Fact]:
    """What was counted of each user and term, and which conditions each item satisfies."""
    names = {term.code: term.text for term in segment_plan(schema).terms}
    for key, value in rows.scan(TABLE):
        try:
            user = EntityRef(split_row_key(key)[0])
            counts = decode_segment_counts(value)
        except DAMAGE as error:
            yield unreadable(TABLE, key, error)
            continue
        yield Fact(TABLE, (user, "newest"), counts.newest_ms)
        for code, term in counts.terms.items():
            yield Fact(TABLE, (user, names.get(code, f"code {code}")), tuple(term))
    for key, value in rows.scan(ITEMS_TABLE):
        try:
            item = decode_segment_item(value)
        except DAMAGE as error:
            yield unreadable(ITEMS_TABLE, key, error)
            continue
        yield Fact(ITEMS_TABLE, (item.item,), item)


VIEW = View(
    name="segments",
    scope=Scope.USER,
    tables=(TableSpec(TABLE, "user"), TableSpec(ITEMS_TABLE, "item", bloom=False)),
    build=Segments,
    canonical=counted_facts,
    carded=False,
    stamps=True,
)
