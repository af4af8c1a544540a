"""Counts of any window and cohort equal a plain recount, through growth, expiry, late and future events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queryd.hot import buckets, signal_cells
from queryd.hot import cube as cube_module
from queryd.hot.bucket_reads import bucket_range
from queryd.hot.buckets import Bucket
from queryd.hot.cells import Cells
from queryd.hot.cube import ALL_TIME, EVERY_PROFILE, HOUR_MS, BucketRange, CountCube, NotHot
from queryd.hot.profile_index import Selection
from queryd.hot.profiles import ProfileTable
from queryd.hot.run_merging import sealed
from schemas.cohort_profile import encode_profile, parse_profile
from schemas.durations import DAY_MS, MINUTE_MS
from schemas.predicate import And, Comparison, Not, Or, Predicate
from schemas.predicate_match import matches_profile

PROFILES = 6
ITEMS = 5
BEGIN_MS = 1_763_600_000_000


@dataclass
class Fact:
    """One event as a recount remembers it."""

    item: int
    profile: int
    ts_ms: int
    weight: int
    by_minute: bool


def cells_of(facts: list[Fact]) -> Cells:
    return Cells(
        np.array([fact.item for fact in facts], dtype=np.uint32),
        np.array([fact.profile for fact in facts], dtype=np.uint32),
        np.ones(len(facts), dtype=np.uint32),
        np.array([fact.weight for fact in facts], dtype=np.int64),
    )


def add(cube: CountCube, fact: Fact) -> None:
    minute = fact.ts_ms // MINUTE_MS if fact.by_minute else None
    cube.add(0, cells_of([fact]), minute=minute, hour=fact.ts_ms // HOUR_MS)


def recount(facts: list[Fact], wanted: BucketRange, mask: np.ndarray | None) -> tuple[list[int], list[int]]:
    counts, sums = [0] * ITEMS, [0] * ITEMS
    for fact in facts:
        if wanted.minutes and not fact.by_minute:
            continue
        bucket = fact.ts_ms // (MINUTE_MS if wanted.minutes else HOUR_MS)
        inside = wanted == ALL_TIME or wanted.low <= bucket <= wanted.high
        if inside and (mask is None or mask[fact.profile]):
            counts[fact.item] += 1
            sums[fact.item] += fact.weight
    return counts, sums


def padded(column: np.ndarray) -> list[int]:
    return [*column.tolist(), *[0] * (ITEMS - len(column))]


STEPS = st.lists(
    st.tuples(
        st.integers(0, ITEMS - 1),
        st.integers(0, PROFILES - 1),
        # minutes before (or, within the allowed skew, after) the clock of that moment
        st.integers(-5, 5) | st.integers(0, 90) | st.integers(0, 40 * 24 * 60),
        st.integers(-3_000_000, 3_000_000),
        # by how many minutes the clock moves on afterwards
        st.integers(0, 3) | st.integers(0, 100) | st.integers(0, 9 * 24 * 60),
        st.booleans(),
        # steps of merging that are taken then; all of them, or the work is left in its midst
        st.sampled_from([0, 1, 3, 1_000]),
    ),
    min_size=1,
    max_size=40,
)


@pytest.fixture(autouse=True, scope="module")
def small_slices() -> Iterator[None]:
    """Merge two cells at a time, so that events come and queries run in the midst of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal_cells, "SLICE_CELLS", 2)
        patch.setattr(buckets, "_TAIL_CELLS_MAX", 1)
        patch.setattr(cube_module, "_WIDE_CELLS_MIN", 0)
        yield


@given(
    STEPS,
    st.lists(st.lists(st.booleans(), min_size=PROFILES, max_size=PROFILES), min_size=1, max_size=2),
    st.sampled_from(["never", "at first", "at every step"]),
)
def test_standing_sums_equal_a_recount_at_every_moment(
    steps: list, masks: list[list[bool]], every: str
) -> None:
    """Also those that are told from the sum of every profile, which stands and may have to follow."""
    everything = np.ones(PROFILES, dtype=np.bool_)
    cube, facts, now_ms = CountCube(), [], BEGIN_MS
    merging: Iterator[None] = iter(())
    for item, profile, ago, weight, moved, expires, merges in steps:
        fact = Fact(item, profile, now_ms - ago * MINUTE_MS, weight, ago <= 120)
        facts.append(fact)
        add(cube, fact)
        if expires:
            cube.expire(now_ms, 32 * 24)
        for _ in range(merges):
            if next(merging, False) is False:
                merging = cube.tidy()
                if next(merging, False) is False:
                    break
        for window in ("1h", "24h", "7d", "30d", "all_time"):
            if every == "at every step" or (every == "at first" and len(facts) == 1):
                cube.standing(0, bucket_range(window, now_ms), everything, EVERY_PROFILE, window)
            for number, chosen in enumerate(masks):
                mask = np.array(chosen)
                wanted = bucket_range(window, now_ms)
                anew = cube.standing(0, wanted, mask, ("anew", len(facts), number), window)
                standing = cube.standing(0, wanted, mask, number, window)
                assert cube.rows_to_sum(0, wanted, mask, number, window) == 0
                expected = recount(facts, wanted, mask)
                assert (padded(anew.counts), padded(anew.sums)) == expected
                assert (padded(standing.counts), padded(standing.sums)) == expected
        now_ms += moved * MINUTE_MS


@given(STEPS)
def test_the_bytes_kept_are_bounded_and_what_is_evicted_is_summed_again(steps: list) -> None:
    cube, facts = CountCube(bytes_max=2 * 8 * ITEMS), []
    for item, profile, ago, weight, _, _, _ in steps:
        fact = Fact(item, profile, BEGIN_MS - ago * MINUTE_MS, weight, ago <= 120)
        facts.append(fact)
        add(cube, fact)
        for window in ("24h", "7d"):
            wanted = bucket_range(window, BEGIN_MS)
            assert (
                padded(cube.standing(0, wanted, None, None, window).counts) == recount(facts, wanted, None)[0]
            )
            assert len(cube._standing) <= 2


def test_a_range_before_the_horizon_is_not_hot_but_all_time_has_it() -> None:
    cube = CountCube()
    old = Fact(0, 0, BEGIN_MS - 60 * DAY_MS, 1, by_minute=False)
    add(cube, old)
    cube.expire(BEGIN_MS, 32 * 24)
    with pytest.raises(NotHot):
        cube.standing(0, bucket_range("24h", old.ts_ms), None, None, "24h")
    assert cube.standing(0, ALL_TIME, None, None, "all_time").counts.tolist() == [1]
    add(cube, old)  # and an event later still lands there
    assert cube.standing(0, ALL_TIME, None, None, "all_time").counts.tolist() == [2]


def test_a_sum_that_slept_through_more_changes_than_are_kept_is_summed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cube_module, "_LOG_ENTRIES_MAX", 2)
    cube, wanted = CountCube(), bucket_range("24h", BEGIN_MS)
    for added, total in ((1, 1), (2, 3), (3, 6), (7, 13)):
        for _ in range(added):
            add(cube, Fact(0, 0, BEGIN_MS, 1, by_minute=True))
        assert cube.standing(0, wanted, None, None, "24h").counts.tolist() == [total]


def test_a_sum_that_slept_while_its_oldest_hours_were_archived_is_summed_again() -> None:
    cube = CountCube()
    for days_ago in (25, 1):
        add(cube, Fact(0, 0, BEGIN_MS - days_ago * DAY_MS, 1, by_minute=False))
    assert cube.standing(0, bucket_range("30d", BEGIN_MS), None, None, "30d").counts.tolist() == [2]
    later_ms = BEGIN_MS + 10 * DAY_MS
    cube.expire(later_ms, 32 * 24)
    assert cube.standing(0, bucket_range("30d", later_ms), None, None, "30d").counts.tolist() == [1]


def test_dropped_items_are_forgotten_everywhere() -> None:
    cube = CountCube()
    facts = [Fact(item, 0, BEGIN_MS, 1, by_minute=True) for item in range(ITEMS)]
    for fact in facts:
        add(cube, fact)
    wanted = bucket_range("24h", BEGIN_MS)
    assert cube.standing(0, wanted, None, None, "24h").counts.tolist() == [1] * ITEMS
    cube.drop_items(np.array([False, True, False, False, True]))
    assert cube.standing(0, wanted, None, None, "24h").counts.tolist() == [1, 0, 1, 1, 0]


def test_the_previous_window_ends_where_this_one_begins() -> None:
    for window in ("1h", "24h", "7d", "30d"):
        now = bucket_range(window, BEGIN_MS)
        assert now.shifted(-1).high == now.low - 1
        assert now.shifted(-1).high - now.shifted(-1).low == now.high - now.low


def test_a_bucket_of_many_runs_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "_TAIL_CELLS_MAX", 8)
    monkeypatch.setattr(buckets, "RUN_CELLS_MAX", 64)
    rng = np.random.default_rng(7)
    bucket, total = Bucket(), np.zeros((20, PROFILES), dtype=np.int64)
    for _ in range(200):
        size = int(rng.integers(1, 12))
        items = rng.integers(0, 20, size).astype(np.uint32)
        profiles = rng.integers(0, PROFILES, size).astype(np.uint32)
        bucket.add(Cells(items, profiles, np.ones(size, dtype=np.uint32), np.ones(size, dtype=np.int64)))
        np.add.at(total, (items, profiles), 1)
    for number in range(2**PROFILES):
        mask = np.array([bool(number >> bit & 1) for bit in range(PROFILES)])
        counts = np.zeros(20, dtype=np.int64)
        for piece in bucket.select(Selection(mask)):
            np.add.at(counts, piece.item, piece.count)
        assert counts.tolist() == total[:, mask].sum(axis=1).tolist()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 5), st.integers(-9, 9))))
def test_merging_keeps_every_total(rows: list[tuple[int, int, int, int]]) -> None:
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4)
    cells = Cells(
        columns[:, 0].astype(np.uint32),
        columns[:, 1].astype(np.uint32),
        columns[:, 2].astype(np.uint32),
        columns[:, 3],
    )
    expected: dict[tuple[int, int], list[int]] = {}
    for item, profile, count, total in rows:
        held = expected.setdefault((profile, item), [0, 0])
        held[0] += count
        held[1] += total
    found = sealed(cells).cells(None)
    assert found.profile is not None
    keys = list(zip(found.profile.tolist(), found.item.tolist(), strict=True))
    assert keys == sorted(expected)
    assert [[*pair] for pair in zip(found.count.tolist(), found.sum.tolist(), strict=True)] == [
        expected[key] for key in keys
    ]


LEAVES = st.builds(
    Comparison,
    st.sampled_from(["locale", "age", "nothing"]),
    st.sampled_from(["=", "!="]),
    st.sampled_from(["US", "DE", "18-24", "zz"]),
) | st.builds(Comparison, st.sampled_from(["locale", "age"]), st.just("EXISTS"))
PREDICATES: st.SearchStrategy[Predicate] = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(Not, inner)
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(tuple(parts)))
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts)))
    ),
    max_leaves=6,
)
PROFILE_STRINGS = st.dictionaries(
    st.sampled_from(["locale", "age"]), st.sampled_from(["US", "DE", "18-24"])
).map(encode_profile)


@given(PREDICATES, st.lists(PROFILE_STRINGS, min_size=1, max_size=8), st.lists(PROFILE_STRINGS, max_size=4))
def test_a_mask_over_profiles_is_the_predicate_on_each(
    predicate: Predicate, first: list[str], later: list[str]
) -> None:
    table = ProfileTable()
    for strings in (first, later):
        table.deal(strings)
        expected = [matches_profile(predicate, table.profile(each)) for each in range(len(table))]
        assert table.mask(predicate).tolist() == expected
    strings = [*first, *later]
    assert [table.profile(each) for each in table.deal(strings)] == list(map(parse_profile, strings))


def test_a_profile_from_before_a_dimension_existed_matches_no_value_of_it() -> None:
    table = ProfileTable()
    table.deal(['{"locale":"US"}', '{"age":"18-24","locale":"US"}', '{"age":"25-34","locale":"US"}'])
    young = Comparison("age", "=", "18-24")
    assert table.mask(young).tolist() == [False, True, False]
    assert table.mask(Comparison("age", "!=", "18-24")).tolist() == [False, False, True]
    assert table.mask(Comparison("age", "EXISTS")).tolist() == [False, True, True]
    assert table.mask(Not(young)).tolist() == [True, False, True]


@pytest.mark.parametrize("change", ["late", "dropped", "expired"])
def test_a_merge_that_is_overtaken_is_begun_anew(change: str) -> None:
    cube, wanted = CountCube(), bucket_range("30d", BEGIN_MS)
    for hours_ago in (12, 12, 13, 13, 14):
        add(cube, Fact(0, 0, BEGIN_MS - hours_ago * HOUR_MS, 1, by_minute=False))
        add(cube, Fact(1, 1, BEGIN_MS - hours_ago * HOUR_MS, 1, by_minute=False))
    cube.expire(BEGIN_MS, 32 * 24)
    merging = cube.tidy()
    for _ in range(4):
        next(merging)
    expected = [5, 5]
    if change == "late":
        for _ in range(3):
            add(cube, Fact(0, 1, BEGIN_MS - 12 * HOUR_MS, 1, by_minute=False))
        expected = [8, 5]
    elif change == "dropped":
        cube.drop_items(np.array([False, True]))
        expected = [5, 0]
    else:
        cube.expire(BEGIN_MS, 1)
        wanted = ALL_TIME
    for _ in merging:
        pass
    for _ in range(2):
        assert cube.standing(0, wanted, None, change, "30d").counts.tolist() == expected
        assert cube.standing(0, wanted, None, None, "anew").counts.tolist() == expected
        for _ in cube.tidy():
            pass


def test_hours_without_cells_are_left_alone() -> None:
    cube = CountCube()
    add(cube, Fact(0, 0, BEGIN_MS - 12 * HOUR_MS, 1, by_minute=False))
    cube.expire(BEGIN_MS, 32 * 24)
    cube.drop_items(np.array([True]))
    for _ in cube.tidy():
        pass
    assert cube.cells == 0
    assert cube.sample(0, bucket_range("24h", BEGIN_MS), 10) == []
    assert cube.history(1, np.array([True]), bucket_range("24h", BEGIN_MS)) == (0, 0)


def test_the_rows_of_a_sum_are_counted_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "_TAIL_CELLS_MAX", 100)
    cube, wanted = CountCube(), bucket_range("24h", BEGIN_MS)
    for hours_ago in (30, 20, 10, 10, 1):
        for profile in range(PROFILES):
            add(cube, Fact(0, profile, BEGIN_MS - hours_ago * HOUR_MS, 1, by_minute=False))
    mask = np.arange(PROFILES) < 2
    assert cube.rows_to_sum(0, wanted, mask, "two", "24h") == 8
    cube.expire(BEGIN_MS, 32 * 24)
    for _ in cube.tidy():
        pass
    assert (
        cube.rows_to_sum(0, wanted, mask, "two", "24h") == 6
    )  # two cells of one profile and hour are one now
    assert cube.rows_to_sum(0, wanted, mask, "two", "24h", enough=1_000) == 18
    cube.standing(0, wanted, mask, "two", "24h")
    assert cube.rows_to_sum(0, wanted, mask, "two", "24h") == 0
    add(cube, Fact(0, 0, BEGIN_MS, 1, by_minute=False))
    assert cube.rows_to_sum(0, wanted, mask, "two", "24h") == 1


def test_a_wide_sum_reads_the_other_cells_once_all_of_them_are_summed() -> None:
    cube, wanted, wide = CountCube(), bucket_range("24h", BEGIN_MS), np.arange(PROFILES) > 0
    for profile in range(PROFILES):
        add(cube, Fact(profile % ITEMS, profile, BEGIN_MS, 3, by_minute=False))
    asked: list[str] = []
    before = cube.standing(0, wanted, wide, "before", "24h", wide=lambda: asked.append("wide"))
    cube.standing(0, wanted, ~wide, "narrow", "24h", wide=lambda: asked.append("narrow"))
    assert asked == ["wide"]
    assert cube.rows_to_sum(0, wanted, wide, "after", "24h") == PROFILES - 1
    cube.standing(0, wanted, np.ones(PROFILES, dtype=np.bool_), EVERY_PROFILE, "24h")
    assert cube.rows_to_sum(0, wanted, wide, "after", "24h") == 1
    after = cube.standing(0, wanted, wide, "after", "24h", wide=lambda: asked.append("again"))
    assert asked == ["wide"]
    assert after.counts.tolist() == before.counts.tolist() == [1] * ITEMS
    assert after.sums.tolist() == before.sums.tolist() == [3] * ITEMS


def test_a_sample_holds_every_so_many_th_cell_of_a_range() -> None:
    cube, wanted = CountCube(), bucket_range("24h", BEGIN_MS)
    for hours_ago in range(40):
        add(
            cube,
            Fact(hours_ago % ITEMS, hours_ago % PROFILES, BEGIN_MS - hours_ago * HOUR_MS, 1, by_minute=False),
        )
    everything = cube.sample(0, wanted, 1_000)
    assert sum(int(cells.count.sum()) for cells in everything) == 24
    cube.expire(BEGIN_MS, 32 * 24)
    for _ in cube.tidy():
        pass
    assert sum(int(cells.count.sum()) for cells in cube.sample(0, wanted, 1_000)) == 24
    assert 0 < sum(map(len, cube.sample(0, wanted, 8))) <= 12
