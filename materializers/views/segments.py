"""Behavioural segments: of each user what their segments count, and which of them hold at each event.

An event is stamped with the segments that its user is in *before* it is counted, at the time t = the largest
of the event's own time and all times counted of the user so far: a user's time never goes back. ``At least N
in the last W`` holds while the N-th newest time is later than t - W. An event that comes late counts from
where it stands in the log, for what is left of its window; one that is older than the N newest changes
nothing any more, and need not. So the N newest times say everything, exactly, and nobody has to look at users
as time passes.

Item conditions are those that the partition's log has told of (``ItemMove``), not the items' records, which
have no place among the events. An event on an item whose record came after it is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from materializers.batches import StampBatch, UserBatch
from materializers.column_table import ColumnTable
from materializers.erasing import erase_rows
from materializers.facts import DAMAGE, EntityRef, Fact, unreadable
from materializers.grouping import distinct
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
    NEVER_MS,
    SECTION,
    TABLE,
    SegmentRow,
    decode_segment_counts,
    decode_segment_item,
    encode_changes,
    segment_keys,
)
from materializers.segment_items import SegmentItems
from materializers.sliding import newest_after, running_max, sum_before
from schemas.cohort_profile import encode_profile, parse_profile
from schemas.keys import split_row_key
from schemas.model import Schema
from schemas.segment_plan import FOREVER, AtLeast, SegmentPlan, SumAtLeast, segment_plan

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

MEMORY_BYTES_MAX: Final = 32 << 20
"""Rows of one partition in memory; others are read when needed."""
_STAMPS_MAX: Final = 1 << 16
_HOLDS: Final = "true"


class Segments:
    """``Stamper`` of one user partition."""

    def __init__(self, context: PartitionContext, memory_bytes_max: int = MEMORY_BYTES_MAX) -> None:
        self._plan = segment_plan(context.schema)
        self._rows = context.rows
        self._users = context.users
        self._stamps = _Stamps(self._plan.names, context.profiles)
        self._items = SegmentItems(tuple(self._plan.conditions), context.items)
        self._counts = _Counts(self._plan, context, memory_bytes_max)

    def stamp(self, batch: StampBatch) -> U32:
        """Fold, and the profile wid of each event, u32[n]."""
        satisfied = self._items.of(batch.item, batch.offset, batch.moves)
        known = np.flatnonzero(batch.user != Interner.NONE)
        if not self._plan or not len(known):
            return batch.profile
        matches = self._matches(batch.signal[known], satisfied[known])
        member = self._counts.fold(
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
        self._counts.table.flush(told)
        if told.rows:
            users = np.array([split_row_key(key)[0] for key in told.keys], dtype=np.uint64)
            writer.feed(SECTION, encode_changes(users, told.rows))

    def restore(self, reader: RowReader) -> None:
        """Items at once; users are read when an event touches them."""
        self._rows = reader
        self._items.restore(reader)
        self._counts.table.restore(reader)

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        """Rows of the users."""
        self._counts.table.drop(lambda keys: np.isin(keys, users.wids))
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


class _Counts:
    """What is kept of users, by slots of a table."""

    def __init__(self, plan: SegmentPlan, context: PartitionContext, memory_bytes_max: int) -> None:
        self._plan = plan
        windowed = [atom for atom in plan.atoms if isinstance(atom, AtLeast) and atom.window_ms != FOREVER]
        self._wanted = [
            sorted({atom.events for atom in windowed if atom.term == place})
            for place in range(len(plan.terms))
        ]
        row = SegmentRow(plan.terms)
        users = context.users
        self.table = ColumnTable(
            TABLE,
            row,
            context.rows,
            lambda keys: segment_keys(users.entity_ids[keys]),
            order_of=lambda keys: (users.entity_ids[keys],),
            defaults=row.defaults,
            slots_max=max(1, memory_bytes_max // row.width),
        )

    def fold(self, user: I64, ts_ms: I64, weight: I64, matches: Sequence[Flags]) -> list[Flags]:
        """Count n events in log order; of each segment which events' users it held before them, bool[n]."""
        users = distinct(user)
        slots = self.table.slots(users)
        group = np.searchsorted(users, user)
        at_ms = np.maximum(self.table["newest_ms"][slots[group]], ts_ms)
        truths = [self._stored(atom, slots[group], at_ms) for atom in self._plan.atoms]
        counted = np.logical_or.reduce(matches)
        if counted.any():
            busy = np.zeros(len(users), dtype=bool)
            busy[group[counted]] = True
            rows = np.flatnonzero(busy[group])
            rows = rows[np.argsort(group[rows], kind="stable")]
            part = _Part.of(group[rows], slots, ts_ms[rows], weight[rows], [match[rows] for match in matches])
            for truth, live in zip(truths, self._fold_busy(part), strict=True):
                truth[rows] = live
        return self._plan.membership(truths)

    def _fold_busy(self, part: _Part) -> list[Flags]:
        """Count events of users of whom something is counted; the truth of each atom before each event."""
        newest_ms = self.table["newest_ms"]
        stored_ms = newest_ms[part.slots]
        counted = np.logical_or.reduce(part.matches)
        seen_ms = running_max(part.group, np.where(counted, part.ts_ms, NEVER_MS))
        at_ms = np.maximum(np.maximum(stored_ms[part.group], seen_ms), part.ts_ms)
        slots = part.slots[part.group]
        truths = [self._stored(atom, slots, at_ms) for atom in self._plan.atoms]
        for place, match in enumerate(part.matches):
            if match.any():
                self._fold_term(place, part, at_ms, truths)
        last = np.append(np.flatnonzero(np.diff(part.group)), len(part.group) - 1)
        newest_ms[part.slots] = np.maximum(stored_ms, seen_ms[last])
        self.table.touch(part.slots)
        return truths

    def _fold_term(self, place: int, part: _Part, at_ms: I64, truths: Sequence[Flags]) -> None:
        """Count what matches one term, and correct the truth of its atoms for the users of whom it does."""
        table, match = self.table, part.matches[place]
        touched = np.zeros(len(part.slots), dtype=bool)
        touched[part.group[match]] = True
        rows = np.flatnonzero(touched[part.group])
        part = _Part.of(part.group[rows], part.slots, part.ts_ms[rows], part.weight[rows], [match[rows]])
        [match] = part.matches
        weight = np.where(match, part.weight, 0)
        before = sum_before(part.group, match.astype(np.int64))
        nth = self._slide(place, part, before)
        for atom, truth in zip(self._plan.atoms, truths, strict=True):
            if atom.term != place:
                continue
            if isinstance(atom, SumAtLeast):
                earlier = table[f"sum_{place}"][part.slots][part.group]
                truth[rows] = earlier + sum_before(part.group, weight) >= atom.micro
            elif atom.window_ms == FOREVER:
                truth[rows] = table[f"count_{place}"][part.slots][part.group] + before >= atom.events
            else:
                truth[rows] = nth[atom.events] > at_ms[rows] - atom.window_ms
        np.add.at(table[f"count_{place}"], part.slots[part.group], match)
        np.add.at(table[f"sum_{place}"], part.slots[part.group], weight)

    def _slide(self, place: int, part: _Part, before: I64) -> dict[int, I64]:
        """The n-th newest time of a term before each event, i64[n], for each n that atoms ask for; keeps the
        newest times after the batch.
        """
        if not self._plan.terms[place].kept:
            return {}
        times = self.table[f"times_{place}"]
        wanted = self._wanted[place]
        [match] = part.matches
        found = newest_after(times[part.slots], part.group[match], part.ts_ms[match], wanted)
        times[part.slots] = found.kept
        row = found.starts[part.group] + before
        return {nth: found.values[row, column] for column, nth in enumerate(wanted)}

    def _stored(self, atom: AtLeast | SumAtLeast, slots: I64, at_ms: I64) -> Flags:
        """The truth by rows alone."""
        if isinstance(atom, SumAtLeast):
            return np.asarray(self.table[f"sum_{atom.term}"][slots] >= atom.micro)
        if atom.window_ms == FOREVER:
            return np.asarray(self.table[f"count_{atom.term}"][slots] >= atom.events)
        nth = self.table[f"times_{atom.term}"][slots, atom.events - 1]
        return np.asarray(nth > at_ms - atom.window_ms)


class _Part(NamedTuple):
    """Events by group, each group in log order; ``slots`` by group; of each term which events it counts."""

    group: I64
    slots: I64
    ts_ms: I64
    weight: I64
    matches: list[Flags]

    @staticmethod
    def of(group: I64, slots: I64, ts_ms: I64, weight: I64, matches: list[Flags]) -> _Part:
        """Of events whose ``group`` i64[n], ascending, has gaps."""
        named, dense = np.unique(group, return_inverse=True)
        return _Part(dense.astype(np.int64), slots[named], ts_ms, weight, matches)


class _Stamps:
    """Profiles with the segments that hold added, each made once."""

    def __init__(self, names: Sequence[str], profiles: Interner) -> None:
        self._names = tuple(names)
        self._profiles = profiles
        self._stamped: dict[tuple[int, int], int] = {}

    def of(self, profile: U32, member: Sequence[Flags]) -> U32:
        """Profile wids u32[n] with segments added, of each segment bool[n]."""
        word = np.zeros(len(profile), dtype=np.uint64)
        for place, holds in enumerate(member):
            word |= holds.astype(np.uint64) << np.uint64(place)
        rows = np.flatnonzero(word)
        if not len(rows):
            return profile
        words, of_word = np.unique(word[rows], return_inverse=True)
        pairs, of_pair = np.unique((of_word << 32) | profile[rows].astype(np.int64), return_inverse=True)
        wids = [self._wid(int(pair & 0xFFFFFFFF), int(words[pair >> 32])) for pair in pairs.tolist()]
        stamped = profile.copy()
        stamped[rows] = np.array(wids, dtype=np.uint32)[of_pair]
        return stamped

    def _wid(self, profile: int, word: int) -> int:
        known = self._stamped.get((profile, word))
        if known is None:
            values = parse_profile(self._profiles.string(profile))
            held = {name: _HOLDS for place, name in enumerate(self._names) if word >> place & 1}
            known = int(self._profiles.ids([encode_profile({**values, **held})])[0])
            if len(self._stamped) >= _STAMPS_MAX:
                self._stamped.clear()
            self._stamped[profile, word] = known
        return known


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
