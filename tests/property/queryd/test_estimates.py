"""Estimates of cohorts: the arithmetic, the reduction of predicates to tables, and whether bounds hold."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queryd.estimate import bounds
from queryd.estimate.classes import CELLS_MAX, Table, reduced
from queryd.estimate.counts import CountEstimate, estimated, known_of
from queryd.estimate.fitting import Margin, independence, ipf, upper_bounds
from queryd.estimate.sampling import Sample, counted, spread, thinned
from queryd.hot.arrays import F64, I64
from queryd.hot.cells import Cells
from queryd.hot.profiles import ProfileTable
from queryd.hot.windows import BucketRange
from schemas.cohort_profile import encode_profile
from schemas.predicate import And, Comparison, Flag, Not, Or, Predicate, matches_profile, parse_predicate

SHAPES = st.sampled_from([(2, 2), (2, 2, 2), (3, 2, 2), (2, 3, 4), (2, 2, 2, 2)])


def margin(joint: F64, axes: tuple[int, ...]) -> Margin:
    """A margin of joints f64[*shape, n]."""
    return Margin(axes, joint.sum(axis=tuple(axis for axis in range(joint.ndim - 1) if axis not in axes)))


def pairs(joint: F64) -> list[Margin]:
    """All two-way margins."""
    return [margin(joint, axes) for axes in combinations(range(joint.ndim - 1), 2)]


def joints(shape: tuple[int, ...], seed: int, items: int = 20) -> F64:
    """Counts that differ from item to item and from cell to cell, many of them 0."""
    chance = np.random.default_rng(seed)
    return chance.poisson(chance.gamma(0.5, 20, (*shape, items))).astype(np.float64)


@given(SHAPES, st.integers(0, 10_000))
def test_ipf_fits_its_margins(shape: tuple[int, ...], seed: int) -> None:
    joint = joints(shape, seed) + 0.5
    fitted = ipf(np.ones((*shape, 1)), pairs(joint), tolerance=1e-9, sweeps_max=5_000)
    for wanted in pairs(joint):
        assert margin(fitted, wanted.axes).target == pytest.approx(wanted.target, rel=1e-6)


@given(SHAPES, st.integers(0, 10_000))
def test_ipf_is_exact_without_an_interaction_of_three(shape: tuple[int, ...], seed: int) -> None:
    """A joint that is a product of functions of two dimensions each."""
    chance = np.random.default_rng(seed)
    joint = np.full((*shape, 10), 100.0)
    for axes in combinations(range(len(shape)), 2):
        factor = chance.gamma(2, 0.5, (*(shape[axis] for axis in axes), 10)) + 0.05
        joint *= np.expand_dims(factor, tuple(axis for axis in range(len(shape)) if axis not in axes))
    fitted = ipf(np.ones((*shape, 1)), pairs(joint), tolerance=1e-10, sweeps_max=20_000)
    assert fitted == pytest.approx(joint, rel=1e-5)


@given(SHAPES, st.integers(0, 10_000))
def test_ipf_from_ones_with_single_margins_is_independence(shape: tuple[int, ...], seed: int) -> None:
    joint = joints(shape, seed)
    singles = [margin(joint, (axis,)) for axis in range(len(shape))]
    total = joint.sum(axis=tuple(range(len(shape))))
    expected = independence(total, [single.target for single in singles])
    assert ipf(np.ones((*shape, 1)), singles) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_independence_golden() -> None:
    """Of 1,000 events 300 are in A, 200 in B and 500 in C."""
    total = np.array([1000.0])
    found = independence(total, [np.array([[part], [1000.0 - part]]) for part in (300.0, 200.0, 500.0)])
    assert found[0, 0, 0, 0] == pytest.approx(1000 * 0.3 * 0.2 * 0.5)
    assert found[1, 0, 1, 0] == pytest.approx(1000 * 0.7 * 0.2 * 0.5)
    assert found.sum() == pytest.approx(1000)
    assert independence(np.zeros(1), [np.zeros((2, 1))]).tolist() == [[0.0], [0.0]]


def test_ipf_golden() -> None:
    """A table whose two margins leave it no choice but one: 40 of 100 in A, 50 in B, seed 3 : 1."""
    fitted = ipf(
        np.array([[3.0, 1.0], [1.0, 1.0]])[..., np.newaxis],
        [Margin((0,), np.array([[40.0], [60.0]])), Margin((1,), np.array([[50.0], [50.0]]))],
        tolerance=1e-12,
        sweeps_max=1_000,
    )[..., 0]
    assert fitted.sum(axis=1) == pytest.approx([40, 60])
    assert fitted.sum(axis=0) == pytest.approx([50, 50])
    assert fitted[0, 0] * fitted[1, 1] / (fitted[0, 1] * fitted[1, 0]) == pytest.approx(3.0)


@given(SHAPES, st.integers(0, 10_000))
def test_upper_bounds_hold(shape: tuple[int, ...], seed: int) -> None:
    joint = joints(shape, seed)
    allowed = np.random.default_rng(seed).random(shape) < 0.4
    upper = upper_bounds([Margin((), joint.sum(axis=tuple(range(len(shape))))), *pairs(joint)], allowed)
    assert (joint[allowed].sum(axis=0) <= upper + 1e-9).all()


def test_noise_of_three_dimensions_is_the_harmonic_mean_of_the_cells() -> None:
    joint = joints((2, 2, 2), 3) + 1.0
    allowed = np.zeros((2, 2, 2), dtype=np.bool_)
    allowed[0, 1, 0] = True
    fixed = bounds.effects((2, 2, 2), [(0, 1), (0, 2), (1, 2)])
    expected = 1 / (1 / joint).sum(axis=(0, 1, 2))
    assert bounds.noise_variance(joint, allowed, fixed) == pytest.approx(expected, rel=1e-5)
    assert bounds.effects((2, 2, 2), [()]).shape == (8, 1)
    binomial = joint[0, 1, 0] * (1 - joint[0, 1, 0] / joint.sum(axis=(0, 1, 2)))
    assert bounds.noise_variance(joint, allowed, bounds.effects((2, 2, 2), [()])) == pytest.approx(
        binomial, rel=1e-5
    )


# -- tables -----------------------------------------------------------------------------------------

VALUES = {"a": ["x", "y", "z"], "b": ["1", "2", "30"], "c": ["p", "q"], "s": ["true"]}
LEAVES = st.one_of(
    st.builds(lambda value: Comparison("a", "=", value), st.sampled_from(VALUES["a"])),
    st.builds(lambda value: Comparison("a", "!=", value), st.sampled_from(VALUES["a"])),
    st.builds(lambda value: Comparison("b", "<=", value), st.sampled_from([1, 2])),
    st.just(Comparison("c", "EXISTS")),
    st.builds(lambda value: Comparison("c", "=", value), st.sampled_from(VALUES["c"])),
    st.just(Flag("s")),
)
PREDICATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda children: And(tuple(children)), st.lists(inner, min_size=2, max_size=3)),
        st.builds(lambda children: Or(tuple(children)), st.lists(inner, min_size=2, max_size=3)),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)
ALL_PROFILES = [
    {name: value for name, value in zip(VALUES, chosen, strict=True) if value is not None}
    for chosen in np.stack(
        np.meshgrid(*[np.array([*values, None], dtype=object) for values in VALUES.values()]), axis=-1
    ).reshape(-1, len(VALUES))
]


def table_of(profiles: list[dict[str, str]]) -> ProfileTable:
    """A table of these profiles."""
    made = ProfileTable()
    made.deal([encode_profile(profile) for profile in profiles])
    return made


PROFILES = table_of(ALL_PROFILES)


@given(PREDICATES)
def test_a_table_says_of_every_profile_what_the_predicate_says(predicate: Predicate) -> None:
    table = reduced(predicate, PROFILES)
    codes = table.codes(PROFILES)
    assert table.allowed.shape == table.shape
    assert table.allowed.size <= CELLS_MAX
    expected = [matches_profile(predicate, profile) for profile in ALL_PROFILES]
    assert table.allowed.reshape(-1)[codes].tolist() == expected


def test_what_a_cohort_does_not_tell_apart_is_one_class() -> None:
    table = reduced(parse_predicate("(a:x OR a:y) AND b:1 AND NOT s"), PROFILES)
    assert table.shape == (2, 2, 2)
    wide = reduced(parse_predicate(" AND ".join(f"d{number}:v" for number in range(5))), ProfileTable())
    assert [axis.name for axis in wide.axes] == [""]


# -- samples and estimates --------------------------------------------------------------------------


def cells_of(items: list[int], profiles: list[int], counts: list[int]) -> Cells:
    """Cells without sums."""
    item, profile, count = (np.array(column, dtype=np.uint32) for column in (items, profiles, counts))
    return Cells(item, profile, count, np.zeros(len(items), dtype=np.int64))


def test_a_sample_counts_the_joints_of_some_items_and_of_all() -> None:
    cells = [cells_of([0, 1, 1], [0, 1, 1], [2, 3, 4]), cells_of([2], [0], [5])]
    sample = counted(cells, np.array([1, 0], dtype=np.uint8), 2, np.array([1, 0]), 3)
    assert sample.pooled.tolist() == [7, 7]
    assert sample.joint.tolist() == [[7, 0], [0, 2]]
    thin = thinned(cells, 2)
    assert sum(len(part) for part in thin) == 2


@given(st.integers(0, 10_000), st.integers(1, 2_000), st.integers(1, 3_000))
def test_hours_of_a_sample_lie_in_their_days(low: int, length: int, hours_max: int) -> None:
    wanted = BucketRange(False, low, low + length - 1)
    parts = spread(wanted, hours_max)
    hours = [hour for part in parts for hour in range(part.low, part.high + 1)]
    assert hours
    assert len(hours) == len(set(hours)) <= max(hours_max, 1)
    assert wanted.low <= min(hours) <= max(hours) <= wanted.high
    assert all(part.low // 24 == part.high // 24 for part in parts)


def drawn(chance: np.random.Generator, items: int) -> F64:
    """Joints of eight cells that share an interaction of three, and each have something of their own."""
    pooled = np.array([9.0, 3, 4, 2, 6, 2, 2, 8]).reshape(2, 2, 2)
    own = np.exp(chance.normal(0, 0.15, (2, 2, 2, items)))
    sizes = 20_000 / np.arange(1, items + 1) ** 0.7
    shares = pooled[..., np.newaxis] * own
    counts: F64 = chance.poisson(shares / shares.sum(axis=(0, 1, 2)) * sizes).astype(np.float64)
    return counts


def estimate_of(
    joint: F64, margins: list[Margin], chance: np.random.Generator
) -> tuple[Table, CountEstimate]:
    """An estimate with a sample of a tenth."""
    profiles = table_of([{"a": "x", "b": "1", "c": "p"}])
    table = reduced(parse_predicate("a:x, b:1 AND NOT c:p"), profiles)
    sample = chance.binomial(joint.astype(np.int64), 0.1).reshape(8, -1).astype(np.float64)

    def sample_of(rows: I64) -> Sample:
        return Sample(sample.sum(axis=1), sample[:, rows])

    known = known_of(table, joint.sum(axis=(0, 1, 2)), margins)
    return table, estimated(table, known, sample_of, fitted_max=300)


@pytest.mark.parametrize("kind", ["pairs", "singles", "nothing"])
def test_bounds_cover_the_truth(kind: str) -> None:
    """Over 20 sites of 400 items, whatever is known of them."""
    covered, all_ = 0, 0
    for seed in range(20):
        chance = np.random.default_rng(seed)
        joint = drawn(chance, 400)
        known = {
            "pairs": pairs(joint),
            "singles": [margin(joint, (axis,)) for axis in range(3)],
            "nothing": [],
        }[kind]
        table, estimate = estimate_of(joint, known, chance)
        assert estimate.estimator == ("ipf" if kind == "pairs" else "independence")
        truth = joint[table.allowed].sum(axis=0)
        bound = estimate.relative_bounds(np.arange(400, dtype=np.uint32))
        within = np.abs(truth - estimate.counts) <= bound * estimate.counts
        covered += int(within[estimate.counts > 0].sum())
        all_ += int((estimate.counts > 0).sum())
        assert within[
            (estimate.place < 0) & (estimate.counts > 0)
        ].all()  # not fitted: the bound always holds
    assert covered >= 0.95 * all_


def test_an_item_without_events_has_none_in_any_cohort() -> None:
    chance = np.random.default_rng(1)
    joint = drawn(chance, 50)
    joint[..., 7] = 0
    _, estimate = estimate_of(joint, pairs(joint), chance)
    assert estimate.counts[7] == 0
    assert estimate.relative_bounds(np.array([7], dtype=np.uint32)).tolist() == [0.0]


def test_nothing_at_all_is_estimated_as_nothing() -> None:
    _, estimate = estimate_of(np.zeros((2, 2, 2, 5)), [], np.random.default_rng(1))
    assert estimate.counts.tolist() == [0] * 5
