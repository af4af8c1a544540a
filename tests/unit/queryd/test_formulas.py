"""The arithmetic of sort modes: worked examples, and what must hold of any input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queryd.ranking import formulas
from queryd.ranking.relative import OWN, POISSON, PRIOR, Prior, fit_prior, relative


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def test_hot_gives_a_decade_of_votes_twelve_and_a_half_hours() -> None:
    epoch = float(formulas.HOT_EPOCH_S)
    ups, downs = column(1, 100, 0, 0, 5), column(0, 0, 100, 0, 5)
    assert formulas.hot(ups, downs, column(*[epoch] * 5)).tolist() == [0, 2, -2, 0, 0]
    later = formulas.hot(column(10), column(0), column(epoch)) == formulas.hot(
        column(1), column(0), column(epoch + 45_000)
    )
    assert later.all()


def test_hacker() -> None:
    found = formulas.hacker(column(1, 2, 33, 33, 0), column(0, 0, 0, 6, 0))
    assert found.tolist() == pytest.approx([0, 2**-1.8, 16 / 2**1.8, 16 / 8**1.8, 0])


def test_wilson() -> None:
    """Ten ups of ten: n/(n + z²); and one more vote of the same kind raises the bound."""
    square = formulas.WILSON_Z**2
    found = formulas.wilson_lower(column(10, 0, 0, 1), column(0, 10, 0, 1))
    assert found.tolist() == pytest.approx([10 / (10 + square), 0, 0, 0.5 - _half_width(2)])
    assert (np.diff(formulas.wilson_lower(np.arange(50.0), np.zeros(50))) > 0).all()


def _half_width(votes: int) -> float:
    square = formulas.WILSON_Z**2
    return math.sqrt(square) * math.sqrt(0.25 / votes + square / (4 * votes**2)) / (1 + square / votes)


def test_controversy() -> None:
    found = formulas.controversy(column(50, 100, 100, 0, 9), column(50, 50, 0, 0, 1))
    assert found.tolist() == pytest.approx([100, 150**0.5, 0, 0, 10 ** (1 / 9)])


def test_the_smoothed_rate_of_the_specification() -> None:
    rate = formulas.smoothed_rate(column(1, 0), column(2, 0), 10, 100)
    assert rate.tolist() == pytest.approx([11 / 102, 10 / 100])
    assert round(100 * rate[0], 2) == 10.78
    assert formulas.smoothed_rate(column(0), column(5), 0, 5).tolist() == [0]
    assert formulas.smoothed_rate(column(3, 0), column(0, 0), 3, 0).tolist() == [0, 0]


def test_a_smoothed_mean_begins_with_ten_events_of_the_average() -> None:
    found = formulas.smoothed(column(0, 100, 4_000), column(0, 10, 1_000), 400, 200)
    assert found.tolist() == pytest.approx([2, 120 / 20, 4_020 / 1_010])
    assert formulas.smoothed(column(0), column(0), 0, 0).tolist() == [0]


def test_a_gem_is_good_and_seen_by_few() -> None:
    found = formulas.hidden(column(0.8, 0.8, 0.8, 0.4), column(0, 2, 1_022, 0))
    assert found.tolist() == pytest.approx([0.8, 0.4, 0.08, 0.4])


def past(*windows: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Σc, Σc² and n of items whose earlier windows are listed."""
    totals = column(*(sum(each) for each in windows))
    squares = column(*(sum(count * count for count in each) for each in windows))
    return totals, squares, np.array([len(each) for each in windows])


NOTHING = Prior(mean=0.0, strength=1e-12)  # an item's own past is all there is


def test_the_own_mean_and_deviation_where_there_are_enough_events() -> None:
    found = relative(column(160), *past([80, 100, 120, 100]), NOTHING)
    deviation = math.sqrt(800 / 3)
    assert (found.expected[0], found.deviation[0]) == pytest.approx((100, deviation))
    assert found.scores[0] == pytest.approx(60 / deviation)
    assert found.form[0] == OWN


def test_counts_that_vary_less_than_chance_are_taken_to_vary_by_chance() -> None:
    found = relative(column(120), *past([100, 100, 100, 100]), NOTHING)
    assert found.scores[0] == pytest.approx((120 - 100) / math.sqrt(100))


def test_poisson_where_there_are_few_events() -> None:
    found = relative(column(10, 10), *past([4, 4, 4, 4], [9, 9, 9.5, 9.5]), NOTHING)
    assert found.form.tolist() == [POISSON, POISSON]
    assert found.scores.tolist() == pytest.approx([(10 - 4) / 2, (10 - 9.25) / math.sqrt(9.25)])


def test_one_event_of_a_silent_item_is_one_deviation_at_most() -> None:
    found = relative(column(1, 3), *past([0] * 28, [0] * 28), Prior(mean=0.5, strength=0.2))
    expected = 0.5 * 0.2 / 28.2
    assert found.scores.tolist() == pytest.approx([1 - expected, 3 - expected])


def test_a_new_item_is_expected_to_be_like_the_others_and_to_differ_as_they_do() -> None:
    prior = Prior(mean=4.0, strength=0.5)
    found = relative(column(10, 10), *past([], [7, 7]), prior)
    assert found.form.tolist() == [PRIOR, PRIOR]
    drawn = (4 * 0.5 + 14) / 2.5
    assert found.expected.tolist() == pytest.approx([4, drawn])
    assert found.deviation.tolist() == pytest.approx([math.sqrt(4 + 4 / 0.5), math.sqrt(drawn + drawn / 2.5)])


def test_the_prior_is_fitted_by_moments() -> None:
    """Rates 1 and 3 over two windows each: m = 2, A = 1 − 2/2 = 0: they differ no more than by chance."""
    assert fit_prior(column(2, 6), column(2, 2)) == Prior(2.0, 1e9)
    # Rates 0, 2 and 10, each over ten windows: m = 4, A = 56/3 − 4/10.
    found = fit_prior(column(0, 20, 100), column(10, 10, 10))
    assert (found.mean, found.strength) == pytest.approx((4, 4 / (56 / 3 - 0.4)))
    assert fit_prior(column(), column()) == Prior(0.0, 1e9)


def test_the_prior_of_simulated_items_is_the_one_that_they_were_drawn_from() -> None:
    rng = np.random.default_rng(8)
    windows = rng.integers(1, 29, 40_000).astype(np.float64)
    rates = rng.gamma(2.0, 1 / 0.5, 40_000)
    found = fit_prior(rng.poisson(rates * windows).astype(np.float64), windows)
    assert (found.mean, found.strength) == pytest.approx((4.0, 0.5), rel=0.03)


COUNTS = st.lists(st.integers(0, 60).map(float), max_size=6)


@given(st.lists(st.tuples(st.integers(0, 200), COUNTS), min_size=1, max_size=8), st.floats(0, 50))
def test_scores_are_finite_and_grow_with_the_count(items: list[tuple[int, list[float]]], mean: float) -> None:
    sums = past(*(windows for _, windows in items))
    counts, prior = column(*(count for count, _ in items)), Prior(mean, 0.7)
    found = relative(counts, *sums, prior)
    assert np.isfinite(found.scores).all()
    assert (found.scores <= counts).all(), "σ is at least one event, and 0 the least to expect"
    assert (relative(counts + 1, *sums, prior).scores > found.scores).all()
