"""Sealed cells, merged in any slices, hold what was put in; the leaders of a column are among those found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queryd.hot import profile_index
from queryd.hot import runs as runs_module
from queryd.hot.cells import Cells
from queryd.hot.leaders import KeptLeaders
from queryd.hot.profile_index import Selection, expanded
from queryd.hot.run_merging import completed, merging, sealed
from queryd.hot.runs import SPAN_HOURS, Run
from queryd.hot.standing import Gathered, StandingSum
from queryd.hot.windows import BucketRange
from schemas.weights import WEIGHT_SCALE

PROFILES, ITEMS = 5, 6
FIRST_HOUR = 40
Row = tuple[int, int, int, int]  # profile, item, count, sum

ROWS = st.lists(
    st.tuples(
        st.integers(0, PROFILES - 1) | st.just(0),
        st.integers(0, ITEMS - 1),
        st.sampled_from([1, 1, 1, 2, 200, 60_000]),
        st.sampled_from([None, None, 0, -5, 3_000_000_000]),
    ).map(lambda row: (row[0], row[1], row[2], row[2] * WEIGHT_SCALE if row[3] is None else row[3])),
    min_size=1,
    max_size=12,
)


@contextmanager
def kept_as(rare_share: int, long: int) -> Iterator[None]:
    """Few cells are enough for counts to be kept apart, and few rows for a stretch to be copied."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs_module, "_RARE_SHARE", rare_share)
        patch.setattr(profile_index, "_LONG", long)
        patch.setattr(profile_index, "_TAKEN_AT_ONCE", 2)
        yield


FORMS = st.tuples(st.sampled_from([1, 2, 16]), st.sampled_from([1, 2, 64]))


def cells_of(rows: Sequence[Row], *, profiles: bool = True) -> Cells:
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4)
    return Cells(
        columns[:, 1].astype(np.uint32),
        columns[:, 0].astype(np.uint32) if profiles else None,
        columns[:, 2].astype(np.uint32),
        columns[:, 3],
    )


def totals(cells: Cells, hours: Sequence[int]) -> dict[tuple[int, int, int], tuple[int, int]]:
    found: dict[tuple[int, int, int], tuple[int, int]] = defaultdict(lambda: (0, 0))
    profile = [0] * len(cells) if cells.profile is None else cells.profile.tolist()
    columns = (profile, cells.item.tolist(), hours, cells.count.tolist(), cells.sum.tolist())
    for who, item, hour, count, total in zip(*columns, strict=True):
        had = found[who, item, hour]
        found[who, item, hour] = had[0] + count, had[1] + total
    return dict(found)


def finished(runs: Sequence[Run], slice_cells: int, hours: Sequence[int] | None = None) -> Run:
    return completed(merging(runs, slice_cells, hours))


@given(
    st.lists(st.tuples(ROWS, st.integers(0, SPAN_HOURS - 1)), min_size=1, max_size=6),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
    FORMS,
)
def test_a_span_is_its_hours_in_whatever_slices_it_was_merged(
    parts: list[tuple[list[Row], int]], slice_cells: int, profiles: bool, again: bool, form: tuple[int, int]
) -> None:
    with kept_as(*form):
        check_span(parts, slice_cells, profiles=profiles, again=again)


def check_span(parts: list[tuple[list[Row], int]], slice_cells: int, *, profiles: bool, again: bool) -> None:
    runs = [sealed(cells_of(rows, profiles=profiles)) for rows, _ in parts]
    hours = [FIRST_HOUR + hour for _, hour in parts]
    expected: dict[tuple[int, int, int], tuple[int, int]] = {}
    for run, hour in zip(runs, hours, strict=True):
        for key, (count, total) in totals(run.cells(None), [hour] * len(run)).items():
            had = expected.get(key, (0, 0))
            expected[key] = had[0] + count, had[1] + total
    if again and len(runs) > 1:  # a span that has grown: the first ones were merged before
        span = finished(runs[:-1], slice_cells, hours[:-1])
        merged = finished([runs[-1], span], slice_cells, [hours[-1], FIRST_HOUR])
    else:
        merged = finished(runs, slice_cells, hours)
    found = totals(merged.cells(None), (merged.hours(None) + FIRST_HOUR).tolist())
    assert found == expected
    assert len(merged) == len(expected)
    assert totals(merged.untimed().cells(None), [0] * len(merged)) == totals(
        merged.cells(None), [0] * len(merged)
    )


@given(ROWS, st.lists(st.booleans(), min_size=PROFILES, max_size=PROFILES), st.integers(1, 4), FORMS)
def test_a_selection_reads_the_rows_of_its_profiles(
    rows: list[Row], allowed: list[bool], gap: int, form: tuple[int, int]
) -> None:
    with kept_as(*form):
        check_selection(rows, allowed, gap)


def check_selection(rows: list[Row], allowed: list[bool], gap: int) -> None:
    spread = [(profile * gap * 3, item, count, total) for profile, item, count, total in rows]
    mask = np.zeros(PROFILES * gap * 3 + 1, dtype=np.bool_)
    mask[np.arange(PROFILES) * gap * 3] = allowed
    run, chosen = sealed(cells_of(spread)), Selection(mask)
    every = run.cells(None)
    assert every.profile is not None
    wanted = np.flatnonzero(mask[every.profile]).tolist()
    found = run.rows(chosen)
    assert found is not None
    assert found.tolist() == wanted
    assert run.matching(chosen) == len(wanted)
    reading = run.read(chosen, None)
    assert reading.items.tolist() == every.item[found].tolist()
    assert reading.rows is not None
    assert reading.rows.tolist() == wanted
    assert reading.of(every.sum).tolist() == every.sum[found].tolist()
    cells = run.cells(found)
    assert cells.profile is not None
    assert cells.profile.tolist() == every.profile[found].tolist()
    assert cells.count.tolist() == every.count[found].tolist()
    dropped = np.arange(ITEMS) % 2 == 0
    rest = run.without(dropped)
    assert totals(rest.cells(None), [0] * len(rest)) == {
        key: value for key, value in totals(every, [0] * len(run)).items() if key[1] % 2
    }


@given(
    st.lists(st.tuples(ROWS, st.integers(0, SPAN_HOURS - 1)), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=PROFILES, max_size=PROFILES) | st.none(),
    st.tuples(st.integers(0, SPAN_HOURS - 1), st.integers(0, SPAN_HOURS - 1)).map(sorted),
    FORMS,
)
def test_a_sum_of_runs_added_and_taken_away(
    parts: list[tuple[list[Row], int]], allowed: list[bool] | None, within: list[int], form: tuple[int, int]
) -> None:
    """Of runs of an hour, and of the span that they make, of which some hours are wanted."""
    standing = StandingSum(BucketRange(False, 0, 1), ITEMS, 0, 0)
    low, high = within
    with kept_as(*form):
        chosen, counts, sums = (
            None if allowed is None else Selection(np.array(allowed)),
            [0] * ITEMS,
            [0] * ITEMS,
        )
        runs = [sealed(cells_of(rows)) for rows, _ in parts]
        span = finished(runs, 3, [FIRST_HOUR + hour for _, hour in parts])
        for run, (rows, hour) in zip(runs, parts, strict=True):
            gathered = Gathered()
            gathered.add_run(run, chosen, None)
            standing.add(gathered)
            for profile, item, count, total in rows:
                inside = (allowed is None or allowed[profile]) * (2 if low <= hour <= high else 1)
                counts[item] += count * inside
                sums[item] += total * inside
        gathered = Gathered()
        gathered.add_run(span, chosen, (low, high))
        standing.add(gathered)
        assert (standing.counts.tolist(), standing.sums.tolist()) == (counts, sums)
        standing.add(gathered, -1)
        for rows, _ in parts:
            gathered = Gathered()
            gathered.add_cells(cells_of(rows).allowed(None if chosen is None else chosen.mask))
            standing.add(gathered, -1)
    assert not standing.counts.any()
    assert not standing.sums.any()


@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=12), st.integers(0, 2), st.booleans())
def test_counts_that_no_longer_fit_two_bytes_are_widened(added: list[int], item: int, together: bool) -> None:
    """Whether they come as cells of one event or of many, at once or one after the other."""
    standing, expected = StandingSum(BucketRange(False, 0, 1), 3, 0, 0), [0, 0, 0]
    gathered = Gathered()
    for number, events in enumerate(added):
        where = item if number % 3 else 0
        if number % 2:
            gathered.add_cells(cells_of([(0, where, events, events * WEIGHT_SCALE)]))
        else:
            gathered.ones.append(np.full(events, where, dtype=np.uint32))
        expected[where] += events
        if together and number < len(added) - 1:
            continue
        standing.add(gathered)
        gathered = Gathered()
        assert standing.counts.tolist() == expected
    assert max(expected) <= 65_535 or standing.counts.dtype == np.int32
    standing.add(Gathered(ones=[np.full(expected[item], item, dtype=np.uint32)]), -1)
    assert standing.counts[item] == 0


def test_a_few_large_counts_do_not_widen_the_others_while_they_are_summed() -> None:
    standing = StandingSum(BucketRange(False, 0, 1), 3, 0, 0)
    standing.add(Gathered(ones=[np.full(64_000, 1, dtype=np.uint32), np.full(9, 2, dtype=np.uint32)]))
    assert (standing.counts.dtype, standing.counts.tolist()) == (np.uint16, [0, 64_000, 9])
    standing.add(Gathered(ones=[np.full(200_000, 1, dtype=np.uint32)]))
    assert (standing.counts.dtype, standing.counts.tolist()) == (np.int32, [0, 264_000, 9])


def test_counts_that_no_longer_fit_four_bytes_are_widened() -> None:
    standing = StandingSum(BucketRange(False, 0, 1), 2, 0, 0)
    for _ in range(3):
        gathered = Gathered()
        gathered.add_cells(cells_of([(0, 1, 2_000_000_000, 2_000_000_000 * WEIGHT_SCALE)]))
        standing.add(gathered)
    assert standing.counts.tolist() == [0, 6_000_000_000]
    assert standing.sums.tolist() == [0, 6_000_000_000 * WEIGHT_SCALE]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 4)), max_size=20))
def test_ranges_are_written_out_in_order(ranges: list[tuple[int, int]]) -> None:
    columns = np.array(ranges, dtype=np.uint32).reshape(-1, 2)
    expected = [row for begin, length in ranges for row in range(begin, begin + length)]
    assert expanded(columns[:, 0], columns[:, 1]).tolist() == expected


@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0.0, 0.3, 1.0])), min_size=1, max_size=4),
    st.booleans(),
)
def test_the_best_and_all_their_ties_are_among_the_leaders(
    seed: int, asked: list[tuple[int, float]], long: bool
) -> None:
    """However many, and of whichever items, were asked for before."""
    rng = np.random.default_rng(seed)
    items = 30_000 if long else 200
    counts = rng.poisson(rng.pareto(1.0, items)).astype(np.int32)
    kept = KeptLeaders(counts)
    for wanted, share in asked:
        allowed = rng.random(items) < share
        qualifying = np.flatnonzero((counts > 0) & allowed)
        rows, total = kept.among(allowed, wanted)
        assert total == len(qualifying)
        assert set(rows.tolist()) <= set(qualifying.tolist())
        if len(qualifying):
            least = np.sort(counts[qualifying])[-min(wanted, len(qualifying))]
            assert set(np.flatnonzero((counts >= least) & allowed).tolist()) <= set(rows.tolist())


@given(
    st.lists(st.tuples(st.integers(0, ITEMS - 1), st.integers(1, 9), st.sampled_from([1, -1])), max_size=9)
)
def test_the_leaders_of_a_sum_follow_it(changes: list[tuple[int, int, int]]) -> None:
    standing, counts = StandingSum(BucketRange(False, 0, 1), ITEMS, 0, 0), [0] * ITEMS
    everything = np.ones(ITEMS + 1, dtype=np.bool_)
    for item, events, sign in changes:
        if sign < 0 and counts[item] < events:
            continue
        gathered = Gathered()
        gathered.add_cells(cells_of([(0, item, events, events * WEIGHT_SCALE)]))
        standing.add(gathered, sign)
        counts[item] += sign * events
        for size in (ITEMS, ITEMS - 1):
            found = standing.leaders(size).among(everything[:size], 1)
            assert found.rows.tolist() == [row for row in range(size) if counts[row]]
