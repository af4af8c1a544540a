"""What users' signals teach, through the whole user shard: items that come, change and go in between,
repetitions, late events, flushes and crashes; and users among each other in any order."""

from __future__ import annotations

import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from materializers.batches import EntityWrite
from materializers.registry import default_registry
from materializers.rows.preference import decode_preference
from materializers.rows.relationships import decode_relationship
from materializers.shards.card_positions import CARD_POSITIONS_TABLE, decode_card_positions
from materializers.shards.user_shard import UserShard
from materializers.tables.meta import ShardMeta
from schemas.records.entities import decode_entity
from streams.partitioner import partition_for
from tests.memory_rows import MemoryRows
from tests.oracle import CleanFold, Event, LogRecord, fold
from tests.shard_harness import PARTITIONS, Record, ShardSite, flushed
from tests.user_tables import check_preferences, check_relationships, check_states, samples_of, states_of
from tests.view_harness import DIM, small_schema
from tests.view_strategies import ITEMS, streams

SIGNALS = "tidal.signals"
SCHEMA = small_schema()
HOME = 1
USERS = [name for name in map(str, range(40)) if partition_for(name.encode(), PARTITIONS) == HOME][:4]


def events_of(size_max: int = 40) -> st.SearchStrategy[list[Event]]:
    return streams(users=USERS, size_max=size_max)


class ItemChange(NamedTuple):
    """A record of an item; ``look`` chooses its embedding, None deletes it."""

    item: str
    look: int | None
    creator: str

    def value(self) -> bytes | None:
        if self.look is None:
            return None
        chance = random.Random(self.look)
        vector = [chance.gauss(0.0, 1.0) for _ in range(DIM)]
        return json.dumps({"creator": self.creator, "embeddings": {"look": vector}}).encode()


class Life:
    """One partition's shard over the views of the engine, through crashes."""

    def __init__(self, folder: Path) -> None:
        self.site = ShardSite(folder, SCHEMA)
        self.site.context.registry = default_registry()
        self.rows = MemoryRows()
        self.log: list[LogRecord] = []
        self.meta: ShardMeta | None = None
        self.shard = self._start()
        self._signals: list[Record] = []
        self._items = 0

    def signals(self, events: list[Event], record_ms: int) -> None:
        """Publish, each event a record, and fold them in one step."""
        fresh = []
        for event in events:
            value = {
                "kind": event.kind,
                "item": event.item,
                "user": event.user,
                "weight": event.weight / 1_000_000,
                "ts": event.ts_ms,
            }
            body, offset = json.dumps(value).encode(), len(self._signals)
            fresh.append(Record(offset, body, timestamp=record_ms, partition=HOME))
            self._signals.append(fresh[-1])
            self.log.append(LogRecord(SIGNALS, HOME, offset, record_ms, None, body))
        self._fold(fresh)

    def item(self, change: ItemChange) -> None:
        """Write an item's record, which every partition's cards have at once."""
        key, value = change.item.encode(), change.value()
        record = decode_entity("item", key, value, SCHEMA)
        self.log.append(LogRecord("tidal.items", 0, self._items, 0, key, value))
        self.site.cards.apply(0, [EntityWrite(self._items, 0, change.item, record)])
        self._items += 1

    def flush(self) -> None:
        self.meta = flushed(self.shard, self.rows)

    def crash(self) -> None:
        """What was folded since the last flush is read again."""
        self.shard = self._start()
        applied = -1 if self.meta is None else self.meta.applied[SIGNALS]
        self._fold(self._signals[applied + 1 :])

    def oracle(self) -> CleanFold:
        history = [decode_card_positions(row) for _, row in self.rows.scan(CARD_POSITIONS_TABLE.name)]
        positions = {HOME: [(row.applied, row.next_offsets) for row in history]}
        return fold(self.log, SCHEMA, card_positions=positions)

    def _fold(self, records: list[Record]) -> None:
        if records:
            self.shard.fold(SIGNALS, records)
            self.shard.settle()

    def _start(self) -> UserShard:
        meta = self.meta or ShardMeta(applied={}, rerouted_hw={}, counters={})
        return self.site.user_shard(HOME, self.rows, meta)


changes = st.builds(
    ItemChange,
    st.sampled_from(ITEMS),
    st.one_of(st.none(), st.integers(0, 5)),
    st.sampled_from(["", "c0", "c1"]),
)
steps = st.lists(
    st.one_of(st.integers(1, 8), st.integers(1, 8), changes, st.just("flush"), st.just("crash")),
    min_size=1,
    max_size=20,
)


@given(events_of(), steps)
def test_every_user_table_equals_the_fold(events: list[Event], plan: list[int | ItemChange | str]) -> None:
    with TemporaryDirectory() as folder:
        life = Life(Path(folder))
        now_ms = max(event.record_ms for event in events)
        at = 0
        for step in plan:
            if isinstance(step, int):
                life.signals(events[at : at + step], now_ms)
                at += step
            elif isinstance(step, ItemChange):
                life.item(step)
            elif step == "flush":
                life.flush()
            else:
                life.crash()
        life.signals(events[at:], now_ms)
        life.shard.wake()
        life.shard.settle()
        life.flush()
    oracle = life.oracle()
    check_states(life.rows, oracle, USERS)
    check_preferences(life.rows, oracle, USERS)
    check_relationships(life.rows, oracle, USERS)


@given(events_of(), st.randoms(use_true_random=False), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_users_among_each_other_may_come_in_any_order(
    events: list[Event], chance: random.Random, sizes: list[int]
) -> None:
    """Each user's own order stays; everything else about the stream changes."""
    queues = {user: [event for event in events if event.user == user] for user in USERS}
    shuffled: list[Event] = []
    for user in chance.sample([event.user for event in events], len(events)):
        shuffled.append(queues[user].pop(0))
    first, second = _taught(events, [len(events)]), _taught(shuffled, sizes)
    for user in USERS:
        for state in SCHEMA.states.values():
            assert states_of(first, user, state.code) == states_of(second, user, state.code)
    assert samples_of(first) == samples_of(second)
    assert set(dict(first.scan("relationships"))) == set(dict(second.scan("relationships")))
    for key, row in first.scan("relationships"):
        [other] = second.get_many("relationships", [key])
        assert other is not None
        here, there = decode_relationship(row), decode_relationship(other)
        assert here._replace(weight=0.0) == there._replace(weight=0.0)
        assert here.weight == pytest.approx(there.weight, rel=1e-9, abs=1e-12)
    assert set(dict(first.scan("preference"))) == set(dict(second.scan("preference")))
    for key, row in first.scan("preference"):
        [other] = second.get_many("preference", [key])
        assert other is not None
        mine, theirs = decode_preference(row), decode_preference(other)
        assert mine.updates == theirs.updates
        assert mine.long.tolist() == pytest.approx(theirs.long.tolist(), abs=1e-9)
        assert mine.short.tolist() == pytest.approx(theirs.short.tolist(), abs=1e-9)


def _taught(events: list[Event], sizes: list[int]) -> MemoryRows:
    """The rows after a stream folded in steps of these sizes in turn, on items that all have records."""
    with TemporaryDirectory() as folder:
        life = Life(Path(folder))
        for number, item in enumerate(ITEMS):
            life.item(ItemChange(item, number, f"c{number % 2}"))
        now_ms = max(event.record_ms for event in events)
        at = number = 0
        while at < len(events):
            size = sizes[number % len(sizes)]
            life.signals(events[at : at + size], now_ms)
            at, number = at + size, number + 1
        life.flush()
    return life.rows
