"""The sample of a cell: exact up to its bound, order-free, and honest about its error above it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from materializers.rows.distinct_users import (
    NOTHING,
    THRESHOLD_HOUR,
    Entries,
    decode_block,
    encode_block,
    joined,
)
from materializers.user_sample import NO_THRESHOLD, canonical, estimate, threshold_of

COLUMNS = ("day", "item", "signal", "user", "profile", "hour", "first", "last")
Row = tuple[int, int, int, int, int, int, int]


def entries_of(rows: list[Row]) -> Entries:
    day, item, signal, user, profile, hour, minute = (
        zip(*rows, strict=True) if rows else ([], [], [], [], [], [], [])
    )
    return Entries(
        np.array(day, dtype=np.uint32),
        np.array(item, dtype=np.uint32),
        np.array(signal, dtype=np.uint32),
        np.array(user, dtype=np.uint64),
        np.array(profile, dtype=np.uint32),
        np.array(hour, dtype=np.uint8),
        np.array(minute, dtype=np.uint8),
        np.array(minute, dtype=np.uint8),
    )


def as_rows(entries: Entries) -> list[tuple[int, ...]]:
    return list(zip(*(getattr(entries, name).tolist() for name in COLUMNS), strict=True))


def visits(users: np.ndarray, item: int = 1) -> Entries:
    n = len(users)
    small, narrow = np.zeros(n, dtype=np.uint32), np.zeros(n, dtype=np.uint8)
    return Entries(small, small + np.uint32(item), small, users, small, narrow, narrow, narrow)


rows = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from([7, 4_000_000_000]),
        # Neighbours in all but the last bits, so that the sort's prefix does not tell them apart.
        st.integers(0, 9).map(lambda number: number << 40) | st.integers(1, 2**64 - 2),
        st.integers(0, 2),
        st.integers(0, 23),
        st.integers(0, 59),
    ),
    max_size=80,
)


def plain(given: list[Row], users_max: int, entries_max: int) -> list[tuple[int, ...]]:
    """The definition, as loops: the longest prefix of users by hash within both bounds."""
    cells: dict[tuple[int, int, int], dict[tuple[int, int, int], list[int]]] = {}
    for day, item, signal, user, profile, hour, minute in given:
        cells.setdefault((day, item, signal), {}).setdefault((user, profile, hour), []).append(minute)
    out: list[tuple[int, ...]] = []
    for cell, entries in sorted(cells.items()):
        users = sorted({user for user, _, _ in entries})
        held, threshold = 0, None
        for rank, user in enumerate(users):
            held += sum(each[0] == user for each in entries)
            if rank == users_max or held > entries_max:
                threshold = user & ~0xFFFF
                break
        for (user, profile, hour), minutes in sorted(entries.items()):
            if threshold is None or user < threshold:
                out.append((*cell, user, profile, hour, min(minutes), max(minutes)))
        if threshold is not None:
            out.append((*cell, threshold, 0, THRESHOLD_HOUR, 0, 0))
    return out


@given(rows, st.integers(1, 6), st.integers(6, 12))
def test_cells_are_what_their_definition_says(given: list[Row], users_max: int, entries_max: int) -> None:
    assert as_rows(canonical(entries_of(given), users_max, entries_max)) == plain(
        given, users_max, entries_max
    )


@given(rows, st.randoms(), st.integers(1, 6), st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_no_order_and_no_batch_changes_a_cell(
    given: list[Row], random: object, users_max: int, cuts: list[int]
) -> None:
    expected = as_rows(canonical(entries_of(given), users_max, 12))
    shuffled = [*given, *given[: len(given) // 2]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    held, at = NOTHING, 0
    while at < len(shuffled):
        size = cuts[at % len(cuts)]
        held = canonical(joined([held, entries_of(shuffled[at : at + size])]), users_max, 12)
        at += size
    assert as_rows(held) == expected


def test_a_cell_is_exact_up_to_its_bound() -> None:
    users = np.random.default_rng(3).integers(1, 2**64 - 1, 4_097, dtype=np.uint64)
    exact = canonical(visits(users[:4_096]))
    assert threshold_of(exact) == NO_THRESHOLD
    assert estimate(len(exact), threshold_of(exact)).users == 4_096
    assert threshold_of(canonical(visits(users))) < NO_THRESHOLD


@pytest.mark.parametrize("seed", range(12))
def test_above_the_bound_the_error_is_as_stated(seed: int) -> None:
    """A quarter of 40,000 users is counted out of the sample, within four standard errors."""
    chance = np.random.default_rng(seed)
    users = chance.integers(1, 2**64 - 1, 40_000, dtype=np.uint64)
    cell = canonical(visits(users), users_max=512)
    threshold = threshold_of(cell)
    quarter = np.isin(users, chance.choice(users, 10_000, replace=False))
    for wanted, truth in ((np.ones(40_000, dtype=bool), 40_000), (quarter, 10_000)):
        sampled = int(np.isin(users[wanted], cell.user[cell.hour != THRESHOLD_HOUR]).sum())
        found = estimate(sampled, threshold)
        assert not found.exact
        assert abs(found.users - truth) < 4 * found.standard_error
        assert found.standard_error < 0.15 * truth


def test_a_cell_whose_sample_is_empty_says_how_little_it_knows() -> None:
    found = estimate(0, np.uint64(2**60))
    assert (found.users, found.exact) == (0, False)
    assert found.standard_error == pytest.approx(15.49, abs=0.01)


def test_a_threshold_in_a_row_is_no_users_hash() -> None:
    """Even if a user's hash ends in zeros: an erasure looks for these eight bytes."""
    round_hash = 0xABCD_0000_0000_0000
    users = np.array([5 << 16, 6 << 16, round_hash], dtype=np.uint64)
    cell = canonical(visits(users), users_max=2)
    assert threshold_of(cell) == round_hash
    row = encode_block(cell)
    assert round_hash.to_bytes(8, "little") not in row
    assert as_rows(decode_block(row, 0)) == as_rows(cell)
