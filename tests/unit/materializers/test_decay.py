"""Golden cases of decay."""

from __future__ import annotations

import random

import numpy as np
import pytest

from materializers import decay

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def one_cell(
    events: list[tuple[int, float]], half_lives_ms: list[int]
) -> tuple[decay.Accumulators, np.ndarray]:
    rate = decay.rates([half_lives_ms])
    state = decay.Accumulators(np.array([decay.NEVER_MS]), np.zeros((1, rate.shape[1])))
    for ts_ms, weight in events:
        state = decay.fold(state, np.array([0]), np.array([ts_ms]), np.array([weight]), rate)
    return state, rate


def test_a_weight_halves_in_each_half_life() -> None:
    state, rate = one_cell([(0, 1.0)], [DAY_MS])
    scores = [decay.read(state, at_ms, rate)[0, 0] for at_ms in (0, DAY_MS, 2 * DAY_MS)]
    assert scores == pytest.approx([1.0, 0.5, 0.25], rel=1e-12)


def test_the_example_of_the_forward_decay_paper() -> None:
    ts = np.array([105.0, 107.0, 103.0, 108.0, 104.0])
    values = np.array([4.0, 8.0, 3.0, 6.0, 4.0])
    decayed = decay.forward_decay(ts, values, landmark=100.0, at=110.0, g=np.square)
    assert decayed.decayed_count == pytest.approx(1.63)
    assert decayed.decayed_sum == pytest.approx(9.67)


def test_exponential_decay_is_the_case_that_needs_no_landmark() -> None:
    half_life = 3.0
    ts, values = np.array([1.0, 4.0, 2.5]), np.array([2.0, 1.0, 5.0])
    general = decay.forward_decay(ts, values, 0.0, 10.0, lambda n: np.exp2(n / half_life))
    moved = decay.forward_decay(ts - 1.0, values, 0.0, 9.0, lambda n: np.exp2(n / half_life))
    assert general.decayed_sum == pytest.approx(moved.decayed_sum)
    assert general.decayed_sum == pytest.approx(float((values * 2 ** (-(10.0 - ts) / half_life)).sum()))


def test_an_older_event_lands_exactly() -> None:
    events = [(10 * HOUR_MS, 1.0), (2 * HOUR_MS, 3.0), (30 * HOUR_MS, -0.5), (29 * HOUR_MS, 2.0)]
    expected = sum(weight * 2 ** (-(40 * HOUR_MS - ts) / DAY_MS) for ts, weight in events)
    for order in (events, events[::-1]):
        state, rate = one_cell(order, [DAY_MS])
        assert decay.read(state, 40 * HOUR_MS, rate)[0, 0] == pytest.approx(expected, rel=1e-12)


def test_half_lives_have_accumulators_of_their_own() -> None:
    half_lives = [HOUR_MS, DAY_MS, 7 * DAY_MS]
    state, rate = one_cell([(0, 1.0)], half_lives)
    read = decay.read(state, DAY_MS, rate)[0]
    assert read == pytest.approx([2**-24, 0.5, 2 ** (-1 / 7)], rel=1e-12)
    assert decay.score(state.acc[0, 1], int(state.ref_ms[0]), DAY_MS, DAY_MS) == pytest.approx(0.5)


def test_a_batch_equals_its_events_one_by_one() -> None:
    chance = random.Random(4)
    events = [(chance.randrange(5 * DAY_MS), chance.uniform(-2, 9), chance.randrange(7)) for _ in range(500)]
    rate = decay.rates([[HOUR_MS, DAY_MS]] * 7)
    state = decay.Accumulators(np.full(7, decay.NEVER_MS), np.zeros((7, 2)))
    cell = np.array([cell for _, _, cell in events])
    state = decay.fold(
        state,
        cell,
        np.array([ts for ts, _, _ in events]),
        np.array([weight for _, weight, _ in events]),
        rate,
    )
    for number in range(7):
        mine = [(ts, weight) for ts, weight, cell in events if cell == number]
        expected = sum(weight * 2 ** (-(6 * DAY_MS - ts) / DAY_MS) for ts, weight in mine)
        assert decay.read(state, 6 * DAY_MS, rate)[number, 1] == pytest.approx(expected, rel=1e-9)


def test_a_landmark_that_moves_by_centuries_does_not_overflow() -> None:
    century = 36_500 * DAY_MS
    state, rate = one_cell([(0, 1.0), (century, 1.0), (0, 5.0), (10 * century, 1.0)], [HOUR_MS])
    assert decay.read(state, 10 * century, rate)[0, 0] == pytest.approx(1.0)


def test_a_cell_without_an_event_scores_nothing() -> None:
    state = decay.Accumulators(np.array([decay.NEVER_MS]), np.zeros((1, 1)))
    assert decay.read(state, DAY_MS, decay.rates([[DAY_MS]])).tolist() == [[0.0]]


def test_a_signal_without_decay_is_a_plain_sum() -> None:
    state, rate = one_cell([(0, 1.0), (DAY_MS, 2.0)], [])
    assert state.acc.shape == (1, 0)
    rate = decay.rates([[], [HOUR_MS]])
    assert rate.tolist() == [[0.0], [1.0 / HOUR_MS]]
    assert decay.factors(np.array([DAY_MS]), rate[:1]).tolist() == [[1.0]]


def test_an_edge_fades_but_never_grows() -> None:
    weight, updated = np.array([0.8, 0.8, 0.8]), np.array([0, 0, 2 * DAY_MS])
    half_life = np.array([DAY_MS, np.inf, DAY_MS])
    at = np.full(3, DAY_MS)
    assert decay.faded(weight, updated, half_life, at).tolist() == pytest.approx([0.4, 0.8, 0.8])
