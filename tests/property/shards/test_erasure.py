"""An erased user leaves nothing, whoever comes later starts anew, and nobody else is touched: whatever the
order of events, erasures, flushes and crashes.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from materializers.batches import EntityWrite
from materializers.facts import Fact
from materializers.materializer import Scope
from materializers.registry import default_registry
from materializers.rows.erasures import decode_erasure
from materializers.tables.meta import ShardMeta
from schemas.ids import entity_id
from schemas.loading import load_schema
from schemas.records.entities import EntityRecord
from schemas.records.forget_record import FORGET_HEADERS, ForgetRecord, encode_forget
from schemas.records.profile_record import PROFILE_HEADERS, ProfileRecord, encode_profile_record
from streams.partitioner import partition_for
from tests.memory_rows import MemoryRows
from tests.shard_harness import NOW_MS, PARTITIONS, Record, ShardSite, flushed
from tests.view_harness import DIM

HOME = 1
NAMES = (f"person{number}" for number in range(99))
USERS = [name for name in NAMES if partition_for(name.encode(), PARTITIONS) == HOME][:3]
ITEMS = ["film-a", "film-b", "film-c"]
KINDS = ["glance", "cheer", "jeer", "stay"]
REGISTRY = default_registry()
SCHEMA = load_schema(
    {
        "name": "erased",
        "entities": {
            "item": {"fields": {"title": "text"}, "embeddings": {"look": {"dim": DIM}}},
            "user": {"fields": {"locale": "keyword"}, "dimensions": {"locale": {"field": "locale"}}},
        },
        "signals": {
            "glance": {"category": "exposure", "state": "met", "distinct_users": True},
            "cheer": {
                "category": "positive",
                "state": "cheered",
                "relationship": {"bond": 0.4},
                "preference": 0.6,
                "distinct_users": True,
            },
            "jeer": {
                "category": "negative",
                "clears": "cheered",
                "relationship": {"bond": -0.5},
                "preference": -0.4,
            },
            "stay": {"category": "consumption"},
        },
        "states": ["met", "cheered"],
        "relationships": {"bond": {"half_life": "7d"}},
    }
)
USER_TABLES = {"user_state", "preference", "relationships", "user_profiles", "user_ids", "parked"}


@dataclass(frozen=True)
class Event:
    user: int
    item: int
    kind: int
    second: int


@dataclass(frozen=True)
class Forget:
    user: int


@dataclass(frozen=True)
class Profile:
    user: int
    locale: str


@dataclass(frozen=True)
class Turn:
    """``flush``; ``crash``: what was folded since is folded again; ``card``: an item's record comes."""

    what: str
    item: int = 0


USER_NUMBERS = st.integers(0, len(USERS) - 1)
EVENTS = st.builds(
    Event,
    USER_NUMBERS,
    st.integers(0, len(ITEMS) - 1),
    st.integers(0, len(KINDS) - 1),
    st.integers(0, 1500),
)
STEPS = st.lists(
    st.one_of(
        EVENTS,
        EVENTS,
        EVENTS,
        st.builds(Forget, USER_NUMBERS),
        st.builds(Profile, USER_NUMBERS, st.sampled_from(["US", "DE"])),
        st.builds(Turn, st.sampled_from(["flush", "crash"])),
        st.builds(Turn, st.just("card"), st.integers(0, len(ITEMS) - 1)),
    ),
    max_size=40,
)


@dataclass
class Life:
    """A worker's shards over rows that outlive it."""

    folder: Path
    rows: MemoryRows = field(default_factory=MemoryRows)
    item_rows: list[MemoryRows] = field(default_factory=lambda: [MemoryRows() for _ in range(PARTITIONS)])
    meta: ShardMeta = field(default_factory=ShardMeta)
    item_meta: list[ShardMeta] = field(default_factory=lambda: [ShardMeta() for _ in range(PARTITIONS)])
    carded: list[int] = field(default_factory=list)
    unflushed: list[Any] = field(default_factory=list)
    deaths: int = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.deaths += 1
        self.site = ShardSite(self.folder / str(self.deaths), SCHEMA, REGISTRY)
        self.site.users.ids(["a stranger"] * self.deaths)
        for item in self.carded:
            self.give_card(item)
        self.shard = self.site.user_shard(HOME, self.rows, self.meta)
        self.items = [
            self.site.item_shard(number, self.item_rows[number], self.item_meta[number])
            for number in range(PARTITIONS)
        ]
        self.delivered = 0

    def give_card(self, item: int) -> None:
        self.site.items.ids(["another"])
        vector = np.zeros(DIM, dtype=np.float32)
        vector[item] = 1.0
        record = EntityRecord("item", ITEMS[item], creator=f"maker{item % 2}", embeddings={"look": vector})
        self.site.cards.apply(0, [EntityWrite(len(self.carded) + 100 * item, NOW_MS, ITEMS[item], record)])

    def take(self, record: Record) -> None:
        self.unflushed.append(record)
        self.shard.fold("tidal.signals", [record])

    def turn(self, turn: Turn) -> None:
        if turn.what == "card" and turn.item not in self.carded:
            self.flush()  # which cards an event sees must not depend on the erasures
            self.carded.append(turn.item)
            self.give_card(turn.item)
            self.shard.settle()
        elif turn.what == "flush":
            self.flush()
        elif turn.what == "crash":
            self.start()
            for record in self.unflushed:
                self.shard.fold("tidal.signals", [record])

    def flush(self) -> None:
        self.site.forwarder.send()
        self.deliver()
        self.meta = flushed(self.shard, self.rows)
        self.item_meta = [
            flushed(shard, rows) for shard, rows in zip(self.items, self.item_rows, strict=True)
        ]
        self.unflushed.clear()

    def deliver(self) -> None:
        for sent in self.site.forwarder.sent[self.delivered :]:
            if sent.topic == "tidal.signals.by-item":
                shard = self.items[sent.partition]
                offset = shard.applied("") + 1
                shard.fold(
                    sent.topic,
                    [Record(offset, sent.value, None, NOW_MS, sent.headers, sent.topic, sent.partition)],
                )
        self.delivered = len(self.site.forwarder.sent)

    def facts(self, scope: Scope, rows: MemoryRows, tables: set[str]) -> dict[Any, Fact]:
        found = {}
        for view in REGISTRY.of(scope):
            for fact in view.canonical(rows, self.site.schema) if view.canonical else ():
                if fact.table in tables:
                    found[fact.table, *map(str, fact.key)] = fact
        return found


def _record(offset: int, step: Event | Forget | Profile) -> Record:
    user = USERS[step.user]
    at_ms = NOW_MS + offset
    if isinstance(step, Forget):
        value = encode_forget(ForgetRecord(user, (HOME, offset), at_ms))
        return Record(offset, value, user.encode(), at_ms, FORGET_HEADERS)
    if isinstance(step, Profile):
        value = encode_profile_record(ProfileRecord(user, {"locale": step.locale}, (HOME, offset)))
        return Record(offset, value, user.encode(), at_ms, PROFILE_HEADERS)
    body = {
        "kind": KINDS[step.kind],
        "user": user,
        "item": ITEMS[step.item],
        "ts": NOW_MS - 1000 * step.second,
    }
    return Record(offset, json.dumps(body).encode(), user.encode(), at_ms)


def _lived(steps: list[Any], folder: Path, *, keep: Any = lambda at: True, calm: bool = False) -> Life:
    """Live through the steps that ``keep`` chooses, at their own offsets; ``calm``: no flush, no crash."""
    life = Life(folder)
    for at, step in enumerate(steps):
        if isinstance(step, Turn):
            if not calm or step.what == "card":
                life.turn(step)
        elif keep(at):
            life.take(_record(at, step))
    life.flush()
    return life


def _survives(steps: list[Any], at: int) -> bool:
    """Whether no erasure of its user follows the step."""
    mine = getattr(steps[at], "user", None)
    later = steps[at + 1 :]
    return not isinstance(steps[at], Forget) and Forget(mine) not in later


def _same(found: dict[Any, Fact], wanted: dict[Any, Fact]) -> bool:
    return found.keys() == wanted.keys() and all(fact.agrees(wanted[key]) for key, fact in found.items())


FLUSH, CRASH = Turn("flush"), Turn("crash")
COMES_BACK = [Turn("card", 0), Event(0, 0, 1, 5), FLUSH, Forget(0), Event(0, 1, 1, 5), Event(0, 0, 0, 5)]


@given(STEPS)
@example([*COMES_BACK, FLUSH, Event(0, 2, 1, 9), Event(0, 1, 1, 7)])
@example([*COMES_BACK, CRASH, FLUSH, CRASH])
@example([*COMES_BACK, Forget(0), FLUSH])
@example([*COMES_BACK, FLUSH, Event(1, 2, 1, 9)])
@settings(max_examples=25)
def test_tables_are_those_of_a_log_without_the_erased(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        life = _lived(steps, folder / "real")
        wanted = _lived(steps, folder / "wanted", keep=lambda at: _survives(steps, at), calm=True)
        all_of_them = _lived(
            steps, folder / "all", keep=lambda at: not isinstance(steps[at], Forget), calm=True
        )
        found = life.facts(Scope.USER, life.rows, USER_TABLES)
        assert _same(found, wanted.facts(Scope.USER, wanted.rows, USER_TABLES))
        for number in range(PARTITIONS):
            rows, clean = life.item_rows[number], wanted.item_rows[number]
            users = life.facts(Scope.ITEM, rows, {"distinct_users"})
            assert _same(users, wanted.facts(Scope.ITEM, clean, {"distinct_users"}))
        _check_counts(life, all_of_them, steps)
        _check_traces(life, steps)


def _check_counts(life: Life, everybody: Life, steps: list[Any]) -> None:
    """Counts by item keep what the erased have done. An event that is repeated after its user was erased
    counts once more: it is somebody else's."""
    events = [step for step in steps if isinstance(step, Event)]
    if len(set(events)) < len(events):
        return
    for number in range(PARTITIONS):
        cells = life.facts(Scope.ITEM, life.item_rows[number], {"global_cells"})
        assert _same(cells, everybody.facts(Scope.ITEM, everybody.item_rows[number], {"global_cells"}))


def _check_traces(life: Life, steps: list[Any]) -> None:
    """Nobody who is gone is named in any row, by id or by EntityId."""
    gone = {
        step.user
        for at, step in enumerate(steps)
        if isinstance(step, Forget)
        and not any(getattr(later, "user", None) == step.user for later in steps[at + 1 :])
    }
    every_row = [
        part
        for rows in (life.rows, *life.item_rows)
        for table in rows.tables.values()
        for pair in table.items()
        for part in pair
    ]
    for user in gone:
        number = entity_id(USERS[user])
        traces = (USERS[user].encode(), number.to_bytes(8, "big"), number.to_bytes(8, "little"))
        assert not any(trace in part for part in every_row for trace in traces)
        assert life.site.users.find(USERS[user]) is None


def test_the_report_counts_what_was_erased(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.turn(Turn("card", 0))
    life.take(_record(0, Event(0, 0, 1, 5)))
    life.take(_record(1, Event(0, 1, 1, 5)))
    life.take(_record(2, Event(1, 0, 1, 5)))
    life.flush()
    life.take(_record(3, Forget(0)))
    life.flush()
    (report,) = [decode_erasure(value).rows for value in life.rows.tables["erasures"].values()]
    one_each = ("preference", "user_ids", "dedup", "parked")
    assert {table: report[table] for table in one_each} == dict.fromkeys(one_each, 1)
    assert report["user_state"] == 1
    assert all(len(rows.tables["erasures"]) == 1 for rows in life.item_rows)


def test_a_forget_record_that_comes_twice_spares_who_came_in_between(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.take(_record(0, Event(0, 0, 1, 5)))
    once = _record(1, Forget(0))
    life.take(once)
    life.take(_record(2, Event(0, 1, 1, 9)))
    late_profile = ProfileRecord(USERS[0], {"locale": "US"}, (HOME, 0))
    life.take(Record(3, encode_profile_record(late_profile), None, NOW_MS, PROFILE_HEADERS))
    life.take(Record(4, once.value, once.key, NOW_MS, FORGET_HEADERS))
    life.flush()
    assert len(life.facts(Scope.USER, life.rows, {"user_state"})) == 1
    assert not life.rows.tables.get("user_profiles")
