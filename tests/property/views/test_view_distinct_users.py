"""Distinct users of any window, time, cohort and set of items equal a set of users of the plain fold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from materializers import user_runs
from materializers.canonical_users import distinct_users as distinct_user_facts
from materializers.materializer import Forgotten
from materializers.rows.distinct_users import (
    TABLE,
    Entries,
    blocks_range,
    day_of,
    days_range,
    decode_block,
    decode_runs,
    encode_block,
    joined,
    run_range,
    split_block_key,
)
from materializers.rows.ordinals import decode_ordinal
from materializers.user_runs import FAN_IN, FINAL_ENTRIES, runs_to_merge
from materializers.user_sample import canonical
from materializers.views.distinct_users import VIEW
from queryd.hot import distinct
from queryd.hot.bucket_reads import bucket_range
from queryd.hot.columns import HotColumns, OrdinalMap
from queryd.hot.cube import BucketRange
from queryd.hot.distinct import DistinctUsers
from schemas.ids import entity_id
from schemas.model import Schema
from schemas.predicate import parse_predicate
from tests.engine_site import MemoryTables
from tests.memory_rows import MemoryRows, MemoryWriter
from tests.oracle import CleanFold, Event
from tests.oracle.distinct import distinct_users
from tests.view_harness import Partition, flush, run, small_schema
from tests.view_strategies import DAY_MS, HOUR_MS, ITEMS, START_MS, Cuts, cuts, streams

USERS = [f"u{number}" for number in range(6)]
WINDOWS = ("1h", "24h", "7d", "30d")
ages = st.integers(-2 * HOUR_MS, 45 * DAY_MS)


def declared(days: int = 0) -> Schema:
    """The small schema, counting users of two of its signals."""
    schema = small_schema()
    signals = {
        name: msgspec.structs.replace(signal, distinct_users=name in ("glance", "cheer"))
        for name, signal in schema.signals.items()
    }
    limits = msgspec.structs.replace(schema.limits, distinct_users_days=days)
    return msgspec.structs.replace(schema, signals=signals, limits=limits)


SCHEMA = declared()


def folded(events: list[Event], cut: Cuts, schema: Schema = SCHEMA) -> MemoryRows:
    return run(
        Partition(schema),
        VIEW.build,
        "item_batch",
        cut.batches(events),
        flush_after=cut.flush_after,
        crash_after=cut.crash_after,
    ).rows


def content(rows: MemoryRows) -> list[tuple[object, ...]]:
    """What the day's runs amount to, in names: it must not depend on how they were cut."""
    items = [decode_ordinal(value) for _, value in rows.scan("item_ids")]
    profiles = [decode_ordinal(value) for _, value in rows.scan("item_profiles")]
    parts: list[Entries] = []
    for key, value in rows.scan(TABLE, *days_range(0, 2**32 - 2)):
        for number in decode_runs(value).runs:
            blocks = rows.scan(TABLE, *run_range(day_of(key), number))
            parts += [decode_block(block, day_of(key)) for _, block in blocks]
    assert sum(map(len, parts)) == sum(
        len(decode_block(value, split_block_key(key)[0])) for key, value in rows.scan(TABLE, *blocks_range())
    ), "every block belongs to a run"
    entries = canonical(joined(parts))
    named = zip(
        *(getattr(entries, name).tolist() for name in ("day", "item", "signal", "user", "profile", "hour")),
        *(getattr(entries, name).tolist() for name in ("first", "last")),
        strict=True,
    )
    return sorted(
        (day, items[item], signal, user, profiles[profile], *rest)
        for day, item, signal, user, profile, *rest in named
    )


EVERYTHING = [BucketRange(minutes=False, low=0, high=2**31)]


def reads(
    rows: MemoryRows, schema: Schema, items: set[str], ranges: Sequence[BucketRange] = EVERYTHING
) -> tuple[HotColumns, DistinctUsers]:
    hot, mask = columns(rows, schema, items)
    users = DistinctUsers(MemoryTables({0: rows}), hot, mask)
    asyncio.run(users.load(ranges))
    return hot, users


def columns(rows: MemoryRows, schema: Schema, items: set[str]) -> tuple[HotColumns, np.ndarray]:
    hot = HotColumns(schema)
    ids = [decode_ordinal(value) for _, value in rows.scan("item_ids")]
    hot.item_maps[0], hot.profile_maps[0] = OrdinalMap(), OrdinalMap()
    hot.item_maps[0].set(0, hot.items.ordinals.deal(ids))
    profiles = [decode_ordinal(value) for _, value in rows.scan("item_profiles")]
    hot.profile_maps[0].set(0, hot.profiles.deal(profiles))
    return hot, np.array([name in items for name in hot.items.ordinals.ids], dtype=np.bool_)


def clean(events: list[Event], schema: Schema = SCHEMA) -> CleanFold:
    fold = CleanFold(schema)
    for event in events:
        fold.accept(event)
    return fold


@given(streams(users=[*USERS, ""]), cuts, st.sets(st.sampled_from(ITEMS), min_size=1), ages)
def test_windows_equal_the_fold(events: list[Event], cut: Cuts, items: set[str], age_ms: int) -> None:
    at_ms, fold = START_MS - age_ms, clean(events)
    hot, users = reads(folded(events, cut), SCHEMA, items, [bucket_range(each, at_ms) for each in WINDOWS])
    young = parse_predicate("age:18-24 AND NOT locale:US", 16)
    for signal in ("glance", "cheer"):
        for window in WINDOWS:
            wanted = bucket_range(window, at_ms)
            found = users.count(SCHEMA.signal_index[signal], wanted, None)
            assert found.estimator == "exact"
            assert found.users == distinct_users(fold, items, signal, window, at_ms)
            of_cohort = users.count(SCHEMA.signal_index[signal], wanted, hot.profiles.mask(young))
            assert of_cohort.users == distinct_users(
                fold,
                items,
                signal,
                window,
                at_ms,
                lambda profile: profile.get("age") == "18-24" and profile.get("locale") != "US",
            )


@given(streams(users=[*USERS, ""]), cuts, cuts, st.randoms())
def test_content_depends_on_the_events_alone(
    events: list[Event], cut: Cuts, other: Cuts, random: object
) -> None:
    shuffled = [*events, *events[::3]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    mine, theirs = folded(shuffled, other), folded(events, cut)
    assert content(mine) == content(theirs)
    assert sorted(distinct_user_facts(mine, SCHEMA)) == sorted(distinct_user_facts(theirs, SCHEMA))


@given(streams(users=USERS), cuts, st.integers(1, 50))
def test_old_days_leave_and_say_so(events: list[Event], cut: Cuts, days: int) -> None:
    """Whatever the batches: once everything is flushed, days before the first kept one are gone or going."""
    schema = declared(days)
    rows = folded(events, cut, schema)
    first_day = max(event.record_ms for event in events) // DAY_MS - days
    kept = [event for event in events if event.ts_ms // DAY_MS >= first_day]
    assert [row for row in content(rows) if int(str(row[0])) >= first_day] == content(
        folded(kept, cut) if kept else MemoryRows()
    )
    _, users = reads(rows, schema, set(ITEMS))
    glance = schema.signal_index["glance"]
    before = users.count(glance, bucket_range("24h", (first_day - 1) * DAY_MS), None)
    told = any(event.kind in ("glance", "cheer") for event in events)
    assert (before.users, before.estimator) == ((None, "expired") if told else (0, "exact"))
    after = users.count(glance, bucket_range("24h", (first_day + 2) * DAY_MS), None)
    assert after.estimator == "exact"


@given(streams(users=USERS), cuts, cuts, st.sampled_from(USERS))
def test_a_forgotten_user_is_nowhere(events: list[Event], cut: Cuts, later: Cuts, user: str) -> None:
    rows = folded(events, cut)
    partition = Partition(SCHEMA, rows)
    view = VIEW.build(partition.context())
    view.restore(rows)
    gathered = [event for event in events if event.user == user]  # not yet on disk
    view.on_batch(partition.item_batch(gathered))
    writer = MemoryWriter(rows)
    ids = np.array([entity_id(user)], dtype=np.uint64)
    view.forget(Forgotten(ids, np.zeros(1, dtype=np.uint32)), writer)
    writer.commit()
    flush(view, rows)
    others = [event for event in events if event.user != user]
    pattern = entity_id(user).to_bytes(8, "little")
    assert not any(pattern in value for value in rows.tables.get(TABLE, {}).values())
    assert content(rows) == (content(folded(others, later)) if others else [])


@pytest.mark.parametrize("arriving", [1, 40, 900, 30_000])
def test_runs_stay_few_and_merges_small(arriving: int) -> None:
    sizes: list[int] = []
    written = 0
    for _ in range(3_000):
        chosen = runs_to_merge(sizes, arriving)
        merged = arriving + sum(sizes[index] for index in chosen)
        assert merged < 2 * FINAL_ENTRIES
        written += merged
        sizes = [size for index, size in enumerate(sizes) if index not in chosen] + [merged]
        small = [size for size in sizes if size < FINAL_ENTRIES]
        assert len(small) <= (FAN_IN - 1) * 6
    assert written < 5 * 3_000 * arriving


def test_a_day_that_rests_is_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_runs, "_REST_FLUSHES", 2)
    old = [_event(number, f"u{number}", START_MS - 3 * DAY_MS) for number in range(5)]
    new = [_event(number, "u0", START_MS) for number in range(5, 10)]
    batches = Cuts([1], frozenset(range(10)), frozenset())
    rows = folded([*old, *new], batches)
    runs = [decode_runs(value).sizes for _, value in rows.scan(TABLE, *days_range(0, 2**32 - 2))]
    assert runs[0] == (5,)
    assert content(rows) == content(folded([*old, *new], Cuts([10], frozenset(), frozenset())))


def _event(offset: int, user: str, ts_ms: int) -> Event:
    return Event(
        partition=0,
        offset=offset,
        record_ms=START_MS,
        kind="glance",
        item="i0",
        user=user,
        weight=1_000_000,
        ts_ms=ts_ms,
        profile="{}",
    )


def test_pairs_of_runs_never_share_a_number() -> None:
    events = [_event(number, f"u{number}", START_MS) for number in range(40)]
    rows = folded(events, Cuts([1], frozenset(range(40)), frozenset({7, 20})))
    (value,) = [value for _, value in rows.scan(TABLE, *days_range(0, 2**32 - 2))]
    runs = decode_runs(value)
    assert all(first < second for first, second in pairwise(runs.runs))
    assert runs.next_run == 40


async def test_runs_merged_while_they_are_read_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "_BLOCKS_AT_ONCE", 1)
    partition = Partition(SCHEMA)
    view = VIEW.build(partition.context())
    view.restore(partition.rows)
    for number in range(FAN_IN - 1):
        view.on_batch(partition.item_batch([_event(number, f"u{number}", START_MS)]))
        flush(view, partition.rows)
    users = DistinctUsers(MemoryTables({0: partition.rows}), *columns(partition.rows, SCHEMA, {"i0"}))
    reading = asyncio.create_task(users.load(EVERYTHING))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not reading.done()
    view.on_batch(partition.item_batch([_event(99, "u0", START_MS)]))
    flush(view, partition.rows)
    await reading
    found = users.count(SCHEMA.signal_index["glance"], bucket_range("24h", START_MS), None)
    assert found.users == FAN_IN - 1


def test_above_the_bound_every_order_gives_one_estimate() -> None:
    """6,000 users on one day, another 3,000 the day before: both windows within four standard errors."""
    events = [
        _event(number, f"user{number}", START_MS - DAY_MS * (number % 3 == 0)) for number in range(9_000)
    ]
    schema = SCHEMA
    answers = set()
    for cut in (Cuts([9_000], frozenset(), frozenset()), Cuts([700], frozenset(range(14)), frozenset({3}))):
        _, users = reads(folded(events, cut), schema, {"i0"})
        day = users.count(schema.signal_index["glance"], bucket_range("24h", START_MS + 20 * HOUR_MS), None)
        week = users.count(schema.signal_index["glance"], bucket_range("7d", START_MS), None)
        before = users.count(schema.signal_index["glance"], bucket_range("24h", START_MS - DAY_MS), None)
        answers.add((day, week, before))
        events.reverse()
    ((day, week, before),) = answers
    assert (before.users, before.estimator) == (3_000, "exact")
    for found, truth in ((day, 6_000), (week, 9_000)):
        assert found.estimator == "sketch"
        assert found.users is not None
        assert found.standard_error is not None
        assert abs(found.users - truth) < 4 * found.standard_error < 0.1 * truth


def test_differences_are_named() -> None:
    """What a verification would say of a visit too few, and of a row that is damaged."""
    rows = folded(
        [_event(number, f"u{number}", START_MS) for number in range(3)], Cuts([3], frozenset(), frozenset())
    )
    (whole,) = distinct_user_facts(rows, SCHEMA)
    assert whole.key == ("i0", "glance", f"day {START_MS // DAY_MS}")
    assert whole.says().startswith("3 users in 3 visits, digest ")
    (key, value) = next(rows.scan(TABLE, *blocks_range()))
    block = decode_block(value, split_block_key(key)[0])
    rows.tables[TABLE][key] = encode_block(block.at(slice(0, 2)))
    (less,) = distinct_user_facts(rows, SCHEMA)
    assert not less.agrees(whole)
    rows.tables[TABLE][key] = value[:-1]
    (damaged,) = distinct_user_facts(rows, SCHEMA)
    assert "cannot be read" in damaged.says()
