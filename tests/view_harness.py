"""Runs a view over events with chosen batch boundaries, flushes and crashes, beside the oracle's fold."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from materializers.batches import CardedEvents, EntityWrite, ItemBatch, UserBatch
from materializers.cards import ItemCards
from materializers.interner import Interner
from materializers.materializer import Materializer, PartitionContext, View
from schemas.ids import entity_ids
from schemas.loading import load_schema
from schemas.model import Schema
from schemas.records.entities import decode_entity
from tests.memory_rows import MemoryRows, MemoryWriter
from tests.oracle import CleanFold, Event, LogRecord, fold
from tests.view_strategies import Cuts

DIM = 8


def small_schema() -> Schema:
    """Signals of every sort under names that no code knows."""
    windows = ["1h", "24h", "7d", "30d", "all_time"]
    exponential = {"exponential": ["1h", "24h", "7d"]}
    return load_schema(
        {
            "name": "test_site",
            "entities": {"item": {"fields": {"title": "text"}, "embeddings": {"look": {"dim": DIM}}}},
            "signals": {
                "glance": {
                    "category": "exposure",
                    "decay": exponential,
                    "windows": windows,
                    "state": "met",
                    "relationship": {"bond": 0.02, "fondness": 0.1},
                    "preference": 0.05,
                },
                "cheer": {
                    "category": "positive",
                    "decay": {"exponential": ["24h"]},
                    "windows": windows,
                    "state": ["cheered", "judged"],
                    "clears": "shunned",
                    "relationship": {"bond": 0.4, "esteem": 0.3, "fondness": 0.5, "pull": 0.2},
                    "preference": 0.6,
                },
                "jeer": {
                    "category": "negative",
                    "decay": "none",
                    "windows": ["24h", "all_time"],
                    "state": ["shunned", "judged"],
                    "clears": ["cheered"],
                    "relationship": {"bond": -0.5, "fondness": -0.3},
                    "preference": -0.4,
                },
                "stay": {"category": "consumption", "decay": exponential, "windows": windows},
            },
            "states": ["met", "cheered", "shunned", "judged"],
            "co_engagement": ["cheered", "met"],
            "relationships": {
                "bond": {"half_life": "7d"},
                "esteem": {},
                "fondness": {"target": "item", "half_life": "24h"},
                "pull": {"target": "item"},
            },
        }
    )


@dataclass
class Partition:
    """One partition's rows and the worker's dictionaries; ``crash`` keeps the rows alone."""

    schema: Schema
    rows: MemoryRows = field(default_factory=MemoryRows)
    items: Interner = field(default_factory=Interner)
    users: Interner = field(default_factory=Interner)
    profiles: Interner = field(default_factory=Interner)
    creators: Interner = field(default_factory=Interner)
    cards: ItemCards | None = None

    def context(self) -> PartitionContext:
        return PartitionContext(
            0,
            1,
            self.schema,
            self.items,
            self.users,
            self.profiles,
            self.creators,
            self.rows,
            self.cards,
        )

    def crash(self) -> Partition:
        """Another process over the same disk: its dictionaries deal other numbers."""
        other = Partition(self.schema, self.rows.copy())
        other.items.ids(["a stranger"])
        other.users.ids(["another", "stranger"])
        return other

    def item_batch(self, events: Sequence[Event]) -> ItemBatch:
        return ItemBatch(
            item=self.items.ids([event.item for event in events]),
            user=entity_ids([event.user for event in events]),
            signal=self._signals(events),
            profile=self.profiles.ids([event.profile for event in events]),
            weight=_column(event.weight for event in events),
            ts_ms=_column(event.ts_ms for event in events),
            record_ts_ms=_column(event.record_ms for event in events),
            source_partition=np.zeros(len(events), dtype=np.uint16),
            source_offset=_column(event.offset for event in events),
        )

    def user_batch(self, events: Sequence[Event], carded: Sequence[Event] | None = None) -> UserBatch:
        """A batch whose events are all on known items, unless ``carded`` says which are."""
        items = self.items.ids([event.item for event in events])
        return UserBatch(
            item=items,
            user=self.users.ids([event.user for event in events]),
            signal=self._signals(events),
            profile=self.profiles.ids([event.profile for event in events]),
            weight=_column(event.weight for event in events),
            ts_ms=_column(event.ts_ms for event in events),
            record_ts_ms=_column(event.record_ms for event in events),
            offset=_column(event.offset for event in events),
            carded=self._carded(events if carded is None else carded),
        )

    def _carded(self, events: Sequence[Event]) -> CardedEvents:
        items = self.items.ids([event.item for event in events])
        cards = np.zeros(len(events), dtype=np.uint32) if self.cards is None else self.cards.cards(items)
        return CardedEvents(
            item=items,
            user=self.users.ids([event.user for event in events]),
            signal=self._signals(events),
            weight=_column(event.weight for event in events),
            ts_ms=_column(event.ts_ms for event in events),
            offset=_column(event.offset for event in events),
            creator=cards if self.cards is None else self.cards.creators(cards),
            card=cards,
        )

    def _signals(self, events: Sequence[Event]) -> np.ndarray:
        index = self.schema.signal_index
        return np.array([index[event.kind] for event in events], dtype=np.uint16)


def run(
    partition: Partition,
    build: Callable[[PartitionContext], Materializer],
    make_batch: str,
    batches: Sequence[Sequence[Event]],
    *,
    flush_after: frozenset[int] = frozenset(),
    crash_after: frozenset[int] = frozenset(),
    revive: Callable[[Partition], Partition] = Partition.crash,
) -> Partition:
    """Fold ``batches``; flush after those numbered in ``flush_after`` and after the last.

    After a batch in ``crash_after`` memory is lost: what was folded since the last flush is folded again.
    Returns the partition as it stands at the end.
    """
    view = _started(partition, build)
    unflushed: list[Sequence[Event]] = []
    for number, events in enumerate(batches):
        unflushed.append(events)
        view.on_batch(getattr(partition, make_batch)(events))
        if number in crash_after:
            partition = revive(partition)
            view = _started(partition, build)
            for again in unflushed:
                view.on_batch(getattr(partition, make_batch)(again))
        if number in flush_after:
            flush(view, partition.rows)
            unflushed.clear()
    flush(view, partition.rows)
    return partition


def run_carded(
    view: View,
    schema: Schema,
    items: dict[str, dict[str, object]],
    events: Sequence[Event],
    cut: Cuts,
    build: Callable[[PartitionContext], Materializer] | None = None,
) -> tuple[Partition, CleanFold]:
    """A user view's partition after ``events`` on known ``items``, and the fold of the log that they make.

    The view is given what counts: duplicates are left out as the shard does. ``build`` replaces the view's.
    """
    oracle = fold(log_of(events, items), schema)
    lives = count()
    with TemporaryDirectory() as folder:

        def revive(partition: Partition) -> Partition:
            return with_cards(partition.crash(), Path(folder) / str(next(lives)), items)

        partition = run(
            with_cards(Partition(schema), Path(folder) / str(next(lives)), items),
            build or view.build,
            "user_batch",
            cut.batches(oracle.events),
            flush_after=cut.flush_after,
            crash_after=cut.crash_after,
            revive=revive,
        )
    return partition, oracle


def flush(view: Materializer, rows: MemoryRows) -> None:
    writer = MemoryWriter(rows)
    view.checkpoint(writer)
    writer.commit()


def log_of(events: Sequence[Event], items: dict[str, dict[str, object]] | None = None) -> list[LogRecord]:
    """The events as JSON records of one partition (offset = position), after the items' records."""
    records = [
        LogRecord("tidal.items", 0, offset, 0, name.encode(), json.dumps(document).encode())
        for offset, (name, document) in enumerate((items or {}).items())
    ]
    for offset, event in enumerate(events):
        value = {
            "kind": event.kind,
            "item": event.item,
            "user": event.user or None,
            "weight": event.weight / 1_000_000,
            "ts": event.ts_ms,
        }
        body = json.dumps(value).encode()
        records.append(LogRecord("tidal.signals", 0, offset, event.record_ms, None, body))
    return records


def item_writes(schema: Schema, items: dict[str, dict[str, object]]) -> list[EntityWrite]:
    """Records of ``tidal.items`` as the cards take them."""
    return [
        EntityWrite(
            offset, 0, name, decode_entity("item", name.encode(), json.dumps(document).encode(), schema)
        )
        for offset, (name, document) in enumerate(items.items())
    ]


def with_cards(partition: Partition, folder: Path, items: dict[str, dict[str, object]]) -> Partition:
    """Give the partition cards of ``items``."""
    partition.cards = ItemCards(folder, partition.schema, partition.items, partition.creators)
    partition.cards.apply(0, item_writes(partition.schema, items))
    return partition


def _started(partition: Partition, build: Callable[[PartitionContext], Materializer]) -> Materializer:
    view = build(partition.context())
    view.restore(partition.rows)
    return view


def _column(values: object) -> np.ndarray:
    return np.fromiter(values, dtype=np.int64)  # type: ignore[call-overload]
