"""Folds the log again, in one process, into a database of its own, exactly as far as a goal says.

The shards and views are the worker's. What differs is around them: partitions are read side by side in one
thread; an item's partition is a function call away; item cards are those that each partition saw then
(``card_positions``); what a shard would send stands in the log already; nothing is written to any topic.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from materializers.batches import EntityWrite
from materializers.cards import Cards
from materializers.interner import IdCollisionError, Interner
from materializers.materializer import RowReader, RowWriter, Scope, TableSpec, View
from materializers.refold.goal import Goal
from materializers.refold.item_history import CardsAsOf, EveryItem, ItemHistory
from materializers.refold.local_forwarder import ItemPartition, LocalForwarder
from materializers.refold.log_reader import LogReader, LogUnreadableError, Place, Span
from materializers.refold.progress import Progress, Watch, unwatched
from materializers.registry import MaterializerRegistry, default_registry
from materializers.shards.card_positions import CardPositions
from materializers.shards.context import WorkerContext
from materializers.shards.entity_shard import ENTITY_SHARD_TABLES, EntityShard
from materializers.shards.homes import Homes
from materializers.shards.item_records import CopyMarks, read_item_record
from materializers.shards.rejects import Rejects
from materializers.shards.user_shard import USER_SHARD_TABLES, UserShard
from materializers.shards.user_step import fold_users
from materializers.tables.database import Database, DatabaseSettings, PartitionWriter
from materializers.tables.meta import ShardMeta
from schemas.model import Schema
from streams.records import Records
from streams.topics import ENTITY_TOPICS, ITEMS, RELATIONSHIPS, SIGNALS

_FLUSH_EVENTS: Final = 400_000
"""Folded in memory before rows are written: fewer flushes rewrite fewer rows."""
_FLUSH_ENTITIES: Final = 20_000
_NEVER: Final = math.inf


class NoRows:
    """``RowReader`` of a shard whose rows nobody wants."""

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return [None] * len(keys)

    def scan(self, table: str, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


@dataclass(slots=True)
class _Source:
    """One partition of ``tidal.signals``.

    Attributes:
        keep_until: the user tables contain everything up to this offset and nothing beyond; events beyond
            are folded for their items alone, and then the partition is ``kept``.
    """

    shard: UserShard
    cards: CardsAsOf | None
    card_rows: deque[CardPositions] = field(default_factory=deque)
    card_rows_known: int = 0
    keep_until: int = -1
    kept: bool = True
    position: int = 0

    @property
    def next_stop(self) -> float:
        """The last offset before something else than folding has to happen."""
        if self.kept:
            return _NEVER
        return self.card_rows[0].applied if self.card_rows else self.keep_until


class Refold:
    """A fold of some views, or of everything that a worker keeps, from the log's beginning on.

    Args:
        folder: for its files; it must not exist yet, and belongs to the caller.
        views: what is folded; tables of other views are not made.
        own_tables: also the tables of the shards themselves (dedup, parked events, users' profiles …).
    """

    def __init__(
        self,
        folder: Path,
        log: LogReader,
        schema: Schema,
        views: Iterable[View],
        partitions: int,
        *,
        own_tables: bool = False,
        watch: Watch = unwatched,
    ) -> None:
        self._log = log
        self._schema = schema
        self._views = tuple(views)
        self._watch = watch
        registry = MaterializerRegistry(self._views)
        self._stamps = bool(schema.segments)
        self._database = Database(folder / "db", _tables(registry), DatabaseSettings())
        self._keeps_users = own_tables or bool(registry.of(Scope.USER))
        self._keeps_items = bool(registry.of(Scope.ITEM))
        self._keeps_entities = own_tables or bool(registry.of(Scope.ENTITY))
        carded = own_tables or any(view.carded for view in registry.of(Scope.USER))
        stamping = MaterializerRegistry(_with_stampers(self._views))
        self._context, self._history = _context(folder, schema, stamping, partitions, carded)
        self._rows = {partition: self._database.rows(partition) for partition in range(partitions)}
        self._rejects = {partition: Rejects() for partition in range(partitions)}
        self._items = [self._item_partition(partition) for partition in range(partitions)]
        self._context.forwarder = self._forwarder()
        self._sources = {partition: self._source(partition) for partition in range(partitions)}
        self._entities = {partition: self._entity_shard(partition) for partition in range(partitions)}
        self._copies = CopyMarks({})
        self._next: dict[Place, int] = {}
        self._unflushed = 0
        self.events = 0
        """Folded since the beginning."""
        self.item_records_missing = 0
        """Offsets of ``tidal.items``, up to what events saw, that hold no record (any more)."""

    def close(self) -> None:
        self._database.close()

    def rows(self, partition: int) -> RowReader:
        """What has been folded of one partition."""
        return self._rows[partition]

    def name_of(self, entity_id: int) -> str | None:
        """The id behind an EntityId, if the log has one."""
        for interner in (self._context.users, self._context.items, self._context.creators):
            found = np.flatnonzero(interner.entity_ids == np.uint64(entity_id))
            if len(found):
                return interner.string(int(found[0]))
        return None

    def next_card_rows(self) -> dict[int, int]:
        """By user partition the first row of ``card_positions`` that no goal has contained."""
        return {partition: source.card_rows_known for partition, source in self._sources.items()}

    def advance(self, goal: Goal) -> None:
        """Fold exactly up to ``goal``, which lies behind no earlier one; partitions that it lacks may stay
        where they are.

        Raises:
            LogUnreadableError: the log does not answer, or no longer has what is needed.
        """
        if self._history is not None:
            self._read_items(goal)
        if self._keeps_entities:
            self._fold_entities(goal)
        if self._keeps_users or self._keeps_items:
            self._fold_signals(goal)
        self._flush()

    # -- entities -----------------------------------------------------------------------------------

    def _read_items(self, goal: Goal) -> None:
        """Every version of every item that some partition has seen."""
        assert self._history is not None
        ends: dict[int, int] = {}
        for partition in goal.values():
            for row in partition.card_rows:
                for place, end in row.next_offsets.items():
                    ends[place] = max(end, ends.get(place, 0))
        places = {Place(ITEMS, partition): end for partition, end in ends.items()}
        progress = Progress("reading item records")
        for records in self._read(places, progress, key="cards"):
            for record in records:
                found = read_item_record(records.partition, self._context.partitions, record, self._schema)
                if found is not None and self._copies.is_news(records.partition, found):
                    self._add_version(records.partition, found.write)
        self.item_records_missing += progress.total - progress.records

    def _add_version(self, partition: int, write: EntityWrite) -> None:
        assert self._history is not None
        try:
            self._history.add(partition, write)
        except IdCollisionError:  # the worker left it out, too
            return

    def _fold_entities(self, goal: Goal) -> None:
        places = {
            Place(topic, partition): wanted.applied.get(topic, -1) + 1
            for partition, wanted in goal.items()
            for topic in (*ENTITY_TOPICS.values(), RELATIONSHIPS)
        }
        progress = Progress("folding entities")
        for records in self._read(places, progress, key="entities"):
            self._unflushed += self._entities[records.partition].fold(records.topic, records)
            if self._unflushed >= _FLUSH_ENTITIES:
                self._flush()

    # -- signals ------------------------------------------------------------------------------------

    def _fold_signals(self, goal: Goal) -> None:
        self._set_out(goal)
        ends = {Place(SIGNALS, partition): self._end_of(goal, partition) for partition in self._sources}
        progress = Progress("folding signals")
        for batch in self._read_together(ends, progress, key="signals"):
            events = self._fold_step({records.partition: records for records in batch})
            progress.events += events
            self.events += events
            if self._unflushed >= _FLUSH_EVENTS:
                self._flush()
        for partition in goal:
            self._pass_stops(self._sources[partition], partition, _NEVER)

    def _set_out(self, goal: Goal) -> None:
        for partition, wanted in goal.items():
            source = self._sources[partition]
            if self._keeps_items:
                self._items[partition].go_to(wanted.marks)
                self._items[partition].settle()
            if self._keeps_users:
                source.keep_until = wanted.applied.get(SIGNALS, -1)
                source.kept = False
                fresh = wanted.card_rows[max(0, source.card_rows_known - wanted.first_card_row) :]
                source.card_rows.extend(fresh if source.cards is not None else ())
                source.card_rows_known = wanted.first_card_row + len(wanted.card_rows)

    def _end_of(self, goal: Goal, partition: int) -> int:
        """The first offset of a source partition that nobody needs."""
        last = goal[partition].applied.get(SIGNALS, -1) if self._keeps_users and partition in goal else -1
        if self._keeps_items:
            last = max([last, *(wanted.marks.get(partition, -1) for wanted in goal.values())])
        return last + 1

    def _fold_step(self, parts: Mapping[int, Records]) -> int:
        """Fold records of several partitions, pausing each where its stops are."""
        events = 0
        waiting = dict(parts)
        while waiting:
            heads = {}
            for partition, records in waiting.items():
                source = self._sources[partition]
                self._pass_stops(source, partition, records.first_offset)
                stop = source.next_stop
                end = len(records) if stop == _NEVER else int(np.searchsorted(records.offset, stop, "right"))
                heads[partition] = records.part(0, end)
            given = [(self._sources[partition].shard, head) for partition, head in heads.items()]
            events += sum(fold_users(self._context, given))
            waiting = {
                partition: records.part(len(heads[partition]), len(records))
                for partition, records in waiting.items()
                if len(heads[partition]) < len(records)
            }
        self._unflushed += events
        return events

    def _pass_stops(self, source: _Source, partition: int, before: float) -> None:
        """Do what has to be done before the record at offset ``before`` is folded."""
        while source.next_stop < before and not source.kept:
            source.shard.settle()
            if source.card_rows:
                assert source.cards is not None
                source.cards.move_to(source.card_rows.popleft().next_offsets)
                source.shard.wake()
            else:
                self._keep(source, partition)

    def _keep(self, source: _Source, partition: int) -> None:
        """The user tables are complete; what follows is folded for items alone."""
        source.kept = True
        batch = self._database.batch()
        writer = PartitionWriter(self._database, batch, partition)
        source.shard.flush(writer)
        writer.finish()
        self._database.write(batch)
        if self._keeps_items:
            source.shard.forward_only()

    # -- reading and writing ------------------------------------------------------------------------

    def _read(self, ends: Mapping[Place, int], progress: Progress, key: str) -> Iterator[Records]:
        for batch in self._read_together(ends, progress, key):
            yield from batch

    def _read_together(
        self, ends: Mapping[Place, int], progress: Progress, key: str
    ) -> Iterator[list[Records]]:
        """Records from where the last call with ``key`` ended up to ``ends``."""
        spans = {}
        for place, end in ends.items():
            mark = Place(f"{key} {place.topic}", place.partition)
            start = self._next.get(mark)
            if start is None and end > 0:
                start = self._first_offset(place)
            if start is not None and start < end:
                spans[place] = Span(start, end)
                self._next[mark] = end
        progress.total = sum(map(len, spans.values()))
        for batch in self._log.read(spans):
            yield batch
            progress.records += sum(map(len, batch))
            self._watch(progress)

    def _first_offset(self, place: Place) -> int:
        low = self._log.bounds(place).start
        if low > 0 and place.topic == SIGNALS:
            raise LogUnreadableError(
                f"{place.topic} partition {place.partition} begins at offset {low}: retention has removed "
                "what the tables were folded from; only entities can be folded again"
            )
        return low

    def _flush(self) -> None:
        """Write every changed row."""
        batch = self._database.batch()
        for partition in range(self._context.partitions):
            writer = PartitionWriter(self._database, batch, partition)
            self._flush_partition(partition, writer)
            writer.finish()
        self._database.write(batch)
        self._unflushed = 0

    def _flush_partition(self, partition: int, writer: RowWriter) -> None:
        if self._keeps_entities:
            self._entities[partition].flush(writer)
            self._entities[partition].take_letters()
        if self._keeps_items:
            self._items[partition].flush(writer)
        source = self._sources[partition]
        source.shard.take_letters()
        if self._keeps_users and not source.kept:
            source.shard.flush(writer)
        elif self._stamps and not self._keeps_users:
            source.shard.flush_stampers(writer)

    # -- parts --------------------------------------------------------------------------------------

    def _item_partition(self, partition: int) -> ItemPartition:
        build = partial(self._context.build_views, Scope.ITEM, partition)
        return ItemPartition(self._rows[partition], build, self._context.partitions)

    def _forwarder(self) -> LocalForwarder:
        context = self._context
        destinations = self._items if self._keeps_items else ()
        return LocalForwarder(
            context.partitions, self._schema, context.items, context.users, context.profiles, destinations
        )

    def _source(self, partition: int) -> _Source:
        cards = CardsAsOf(self._history) if self._history is not None else None
        context = _with_cards(self._context, cards or EveryItem())
        rows: RowReader = self._rows[partition] if self._keeps_users or self._stamps else NoRows()
        shard = UserShard(context, partition, rows, self._rejects[partition])
        shard.restore(rows, ShardMeta())
        return _Source(shard, cards)

    def _entity_shard(self, partition: int) -> EntityShard:
        rows = self._rows[partition]
        shard = EntityShard(self._context, partition, rows, self._rejects[partition])
        shard.restore(rows, ShardMeta())
        return shard


def _with_stampers(views: Sequence[View]) -> list[View]:
    """The views, and those that stamp events whoever folds them."""
    stampers = [view for view in default_registry().of(Scope.USER) if view.stamps]
    names = {view.name for view in views}
    return [*views, *(view for view in stampers if view.name not in names)]


def _tables(registry: MaterializerRegistry) -> list[TableSpec]:
    """The folded views' tables, and all that shards read or write, whoever wants them."""
    views = [
        spec for each in (default_registry(), registry) for scope in Scope for spec in each.tables(scope)
    ]
    return list(dict.fromkeys([*views, *USER_SHARD_TABLES, *ENTITY_SHARD_TABLES]))


def _context(
    folder: Path, schema: Schema, registry: MaterializerRegistry, partitions: int, carded: bool
) -> tuple[WorkerContext, ItemHistory | None]:
    items, users, profiles, creators = Interner(), Interner(), Interner(), Interner()
    history = ItemHistory(folder / "cards", schema, items, creators) if carded else None
    forwarder = LocalForwarder(partitions, schema, items, users, profiles, ())
    context = WorkerContext(
        schema=schema,
        partitions=partitions,
        registry=registry,
        items=items,
        users=users,
        profiles=profiles,
        creators=creators,
        cards=EveryItem(),
        forwarder=forwarder,
        user_homes=Homes(users, partitions),
        item_homes=Homes(items, partitions),
    )
    return context, history


def _with_cards(context: WorkerContext, cards: Cards) -> WorkerContext:
    return replace(context, cards=cards)
