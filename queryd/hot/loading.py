"""From rows and feed sections to hot columns: the first scan of a partition, and each change after it.

Both go through the same scatter functions, so a column that was scanned and one that was fed are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Protocol

import numpy as np

from materializers.materializer import Scope
from materializers.rows import cells as cell_rows
from materializers.rows.blocks import Resolution, decode_block, decode_deltas, split_block_key
from materializers.rows.entities import (
    ENTITIES_SECTION,
    TABLE_OF_KIND,
    EntityChange,
    decode_entity_changes,
    decode_entity_row,
)
from materializers.rows.ordinals import (
    ITEM_IDS,
    ITEM_PROFILES,
    USER_ITEMS,
    decode_new_ordinals,
    decode_ordinal,
)
from materializers.tables.feed import OWNERSHIP_SECTION, Change, Section, decode_ownership_change
from queryd.hot.arrays import U32, U64
from queryd.hot.cells import Cells, joined
from queryd.hot.cold import COHORT_BLOCKS, GLOBAL_BLOCKS, ColdTier
from queryd.hot.columns import NOT_MAPPED, HotColumns, OrdinalMap
from queryd.hot.cube import CountCube
from queryd.hot.items import ItemWrite
from queryd.hot.segments import SegmentMembers
from queryd.hot.tables import Tables
from queryd.hot.translation import by_signal, runs, translated
from schemas.errors import RecordError
from schemas.keys import split_row_key
from schemas.records.entities import EntityRecord, decode_entity

_ROWS_AT_ONCE = 4096
_MINUTES_IN_HOUR = 60
_MINUTES_IN_DAY = 1440
_BUCKET_BITS = 32
_BUCKET_MASK = (1 << _BUCKET_BITS) - 1
_GATHERED_MAX = 65_536
_ORDERED_MAX = 2_000_000  # profile strings in memory at once, about 300 bytes each
_TIDY_STEPS = 2  # of about 3 ms, for each round of the feed: 2,000,000 cells a second, and room for queries
_DONE = object()

EntitySink = Callable[[list[ItemWrite]], None]


class UserSink(Protocol):
    """Who follows users' records besides the tables."""

    def apply(self, partition: int, changes: Sequence[EntityChange]) -> None:
        """New and deleted records of users."""
        ...

    def drop(self, partition: int) -> None:
        """The partition's rows were replaced."""
        ...


class Loader:
    """Fills and follows the hot columns.

    Args:
        cold: is told which days have changed.
        sink: is given the item records of each step, after the columns have them (text and vector indexes).
        users: is told of users' records. segments: is read and told of what users did.
    """

    def __init__(
        self,
        tables: Tables,
        hot: HotColumns,
        cold: ColdTier,
        sink: EntitySink,
        users: UserSink | None = None,
        segments: SegmentMembers | None = None,
    ) -> None:
        self._tables = tables
        self._hot = hot
        self._cold = cold
        self._sink = sink
        self._users = users
        self._segments = segments
        self.records_unreadable = 0
        self.reading_anew: set[int] = set()
        self._tidying: Iterator[None] | None = None

    def scan(self) -> Iterator[str]:
        """Read every table once; yields what it does between bounded steps, so that the caller may pause."""
        for partition in self._tables.partitions(Scope.ENTITY):
            yield from self._scan_items(partition)
        for partition in self._tables.partitions(Scope.USER):
            yield from self._scan_user_ordinals(partition)
            if self._segments is not None:
                yield from self._segments.scan(partition)
        yield from self._number_profiles()
        for partition in self._tables.partitions(Scope.ITEM):
            yield from self.scan_item_partition(partition)
        while self._tidied():
            yield "merging hours"

    def scan_item_partition(self, partition: int) -> Iterator[str]:
        """Read the counts of one item partition, whose old ones were dropped."""
        maps = self._hot.item_maps, self._hot.profile_maps
        for table, held, deal in (
            (ITEM_IDS, maps[0], self._hot.items.ordinals.deal),
            (ITEM_PROFILES, maps[1], self._hot.profiles.deal),
        ):
            yield from self._scan_ordinals(table, partition, held, deal)
        yield from self._scan_cells(partition)
        for table, cube in ((GLOBAL_BLOCKS, self._hot.everybody), (COHORT_BLOCKS, self._hot.by_profile)):
            yield from self._scan_blocks(cube, table, partition)

    def apply(self, changes: Sequence[Change]) -> Iterator[str]:
        """Apply changes, all that there are up to the tables' last catch-up; yields between bounded steps.

        A partition that was taken over is dropped and read anew, and nothing else of it is applied: what its
        tables hold already contains every change in the batch.
        """
        sections = [section for change in changes for section in change.sections]
        replaced = sorted({section.partition for section in sections if _taken_over(section)})
        for section in sections:
            if section.partition not in replaced:
                self._apply(section)
                yield section.name
        if replaced:
            yield from self.read_anew(replaced)
        for _ in range(_TIDY_STEPS):
            if not self._tidied():
                break
            yield "merging hours"

    def read_anew(self, partitions: Sequence[int]) -> Iterator[str]:
        """Drop what is known of partitions and read their tables; until that is done, replies say so."""
        self.reading_anew.update(partitions)
        self._hot.drop_item_partitions(partitions)
        for partition in partitions:
            self._cold.drop_partition(partition)
            if self._users is not None:
                self._users.drop(partition)
        for partition in partitions:
            yield from self._scan_partition(partition)
            self.reading_anew.discard(partition)

    def _scan_partition(self, partition: int) -> Iterator[str]:
        yield from self._scan_items(partition)
        yield from self._scan_user_ordinals(partition)
        if self._segments is not None:
            self._segments.drop(partition)
            yield from self._segments.scan(partition)
        yield from self.scan_item_partition(partition)

    def _tidied(self) -> bool:
        """One step of merging what is over; False when there is nothing to do."""
        if self._tidying is None:
            self._tidying = chain(self._hot.everybody.tidy(), self._hot.by_profile.tidy())
        more = next(self._tidying, _DONE) is not _DONE
        if not more:
            self._tidying = None
        return more

    def _apply(self, section: Section) -> None:
        name, partition, payload = section.name, section.partition, section.payload
        if name == ITEM_IDS:
            self._new_ordinals(payload, self._hot.item_maps, partition, self._hot.items.ordinals.deal)
        elif name == ITEM_PROFILES:
            self._new_ordinals(payload, self._hot.profile_maps, partition, self._hot.profiles.deal)
        elif name == USER_ITEMS:
            self._new_ordinals(payload, self._hot.user_item_maps, partition, self._hot.items.ordinals.deal)
        elif name == cell_rows.SECTION:
            changes = cell_rows.decode_changes(payload)
            items = self._item_map(partition).translate(changes.item)
            self._set_cells(items, changes.signal, changes.cells)
        elif name == GLOBAL_BLOCKS:
            self._deltas(self._hot.everybody, name, partition, payload)
        elif name == COHORT_BLOCKS:
            self._deltas(self._hot.by_profile, name, partition, payload)
        elif name == ENTITIES_SECTION:
            self._entity_changes(partition, payload)
        elif name == SegmentMembers.SECTION and self._segments is not None:
            self._segments.apply(partition, payload)

    def _scan_items(self, partition: int) -> Iterator[str]:
        writes: list[ItemWrite] = []
        for _, value in self._tables.scan(TABLE_OF_KIND["item"], partition):
            stored = decode_entity_row(value)
            record = None if stored.status == "deleted" else self._record(stored.id, stored.raw)
            writes.append(ItemWrite(stored.id, record))
            if len(writes) == _ROWS_AT_ONCE // 16:
                self._write_items(writes)
                writes = []
                yield f"items of partition {partition}"
        self._write_items(writes)
        yield f"items of partition {partition}"

    def _entity_changes(self, partition: int, payload: bytes) -> None:
        changes = decode_entity_changes(payload)
        if self._users is not None:
            self._users.apply(partition, [change for change in changes if change.kind == "user"])
        self._write_items(
            [
                ItemWrite(change.id, None if change.raw is None else self._record(change.id, change.raw))
                for change in changes
                if change.kind == "item"
            ]
        )

    def _write_items(self, writes: list[ItemWrite]) -> None:
        if writes:
            self._hot.items.apply(writes)
            self._sink(writes)

    def _record(self, id_: str, raw: bytes) -> EntityRecord | None:
        """The record as the schema of today reads it; one that it refuses counts as absent."""
        try:
            return decode_entity("item", id_.encode(), raw, self._hot.schema)
        except RecordError:
            self.records_unreadable += 1
            return None

    def _scan_user_ordinals(self, partition: int) -> Iterator[str]:
        yield from self._scan_ordinals(
            USER_ITEMS, partition, self._hot.user_item_maps, self._hot.items.ordinals.deal
        )

    def _scan_ordinals(
        self,
        table: str,
        partition: int,
        maps: dict[int, OrdinalMap],
        deal: Callable[[list[str]], U32],
    ) -> Iterator[str]:
        held = maps[partition] = OrdinalMap()
        strings: list[str] = []
        for _, value in self._tables.scan(table, partition):
            strings.append(decode_ordinal(value))
            if len(strings) == _ROWS_AT_ONCE:
                held.set(len(held), deal(strings))
                strings = []
                yield f"{table} of partition {partition}"
        held.set(len(held), deal(strings))

    def _number_profiles(self) -> Iterator[str]:
        """Number all profiles in the order of their strings: those that a cohort allows then lie together.

        Nothing else depends on the numbers. Of very many profiles the first are numbered so.
        """
        strings: set[str] = set()
        for partition in self._tables.partitions(Scope.ITEM):
            for place, (_, value) in enumerate(self._tables.scan(ITEM_PROFILES, partition)):
                strings.add(decode_ordinal(value))
                if len(strings) >= _ORDERED_MAX:
                    break
                if place % _ROWS_AT_ONCE == 0:
                    yield f"{ITEM_PROFILES} of partition {partition}"
        ordered = sorted(strings)
        for start in range(0, len(ordered), _ROWS_AT_ONCE):
            self._hot.profiles.deal(ordered[start : start + _ROWS_AT_ONCE])
            yield "numbering profiles"

    def _new_ordinals(
        self, payload: bytes, maps: dict[int, OrdinalMap], partition: int, deal: Callable[[list[str]], U32]
    ) -> None:
        fresh = decode_new_ordinals(payload)
        maps.setdefault(partition, OrdinalMap()).set(fresh.first, deal(fresh.strings))

    def _scan_cells(self, partition: int) -> Iterator[str]:
        keys: list[bytes] = []
        values: list[bytes] = []
        for key, value in self._tables.scan(cell_rows.TABLE, partition):
            keys.append(key)
            values.append(value)
            if len(keys) == _ROWS_AT_ONCE:
                self._scanned_cells(keys, values)
                keys, values = [], []
                yield f"{cell_rows.TABLE} of partition {partition}"
        self._scanned_cells(keys, values)

    def _scanned_cells(self, keys: list[bytes], values: list[bytes]) -> None:
        if not keys:
            return
        parts = [split_row_key(key) for key in keys]
        items: U64 = np.array([part[0] for part in parts], dtype=np.uint64)
        codes: U32 = np.array([int.from_bytes(part[2], "big") for part in parts], dtype=np.uint32)
        found = self._hot.items.ordinals.find_entities(items)
        ordinals = np.where(found < 0, int(NOT_MAPPED), found).astype(np.uint32)
        self._set_cells(ordinals, codes, cell_rows.decode_cells(values))

    def _set_cells(self, items: U32, codes: U32, cells: cell_rows.Cells) -> None:
        known = np.flatnonzero(items != NOT_MAPPED)
        for code, places in runs(codes[known].astype(np.int64)):
            signal = self._hot.signal_index(code)
            rows = known[places]
            if signal is not None:
                self._hot.decayed[signal].set(
                    items[rows], cells.count[rows], cells.sum[rows], cells.ref_ms[rows], cells.acc[rows]
                )

    def _deltas(self, cube: CountCube, table: str, partition: int, payload: bytes) -> None:
        """Count what a flush added: hours that are apart one by one, all older ones together."""
        deltas = decode_deltas(payload)
        rows, signals, cells = translated(self._hot, partition, deltas.cells)
        resolution, bucket = deltas.resolution[rows], deltas.bucket[rows].astype(np.int64)
        days = np.unique(deltas.bucket // _MINUTES_IN_DAY).tolist()
        self._cold.touched(table, partition, days)
        old = (resolution == Resolution.DAY) | (bucket // _MINUTES_IN_HOUR < cube.horizon_hour)
        for signal, part in by_signal(signals[old], cells.take(old)):
            cube.add_old(signal, part)
        live = np.flatnonzero(~old)
        for value, places in runs((resolution[live].astype(np.int64) << _BUCKET_BITS) | bucket[live]):
            minute = value & _BUCKET_MASK
            chosen = live[places]
            for signal, part in by_signal(signals[chosen], cells.take(chosen)):
                by_minute = value >> _BUCKET_BITS == Resolution.MINUTE
                cube.add(signal, part, minute=minute if by_minute else None, hour=minute // _MINUTES_IN_HOUR)

    def _scan_blocks(self, cube: CountCube, table: str, partition: int) -> Iterator[str]:
        """Read the stored blocks; those of hours that are not apart in memory gather first, being many."""
        waiting: dict[int, list[Cells]] = {}
        gathered = 0
        for key, value in self._tables.scan(table, partition):
            resolution, start, _ = split_block_key(key)
            hour = start // _MINUTES_IN_HOUR
            _, signals, cells = translated(self._hot, partition, decode_block(value))
            old = resolution is Resolution.DAY or hour < cube.horizon_hour
            for signal, part in by_signal(signals, cells):
                if old:
                    waiting.setdefault(signal, []).append(part)
                    gathered += len(part)
                else:
                    minute = start if resolution is Resolution.MINUTE else None
                    cube.add(signal, part, minute=minute, hour=hour, loading=True)
            if gathered > _GATHERED_MAX:
                _count_old(cube, waiting)
                gathered = 0
            yield f"{table} of partition {partition}"
        _count_old(cube, waiting)

    def _item_map(self, partition: int) -> OrdinalMap:
        return self._hot.item_maps.get(partition, OrdinalMap())


def _taken_over(section: Section) -> bool:
    return section.name == OWNERSHIP_SECTION and decode_ownership_change(section.payload).owned


def _count_old(cube: CountCube, waiting: dict[int, list[Cells]]) -> None:
    for signal, parts in waiting.items():
        cube.add_old(signal, joined(parts), loading=True)
    waiting.clear()
