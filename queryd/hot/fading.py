"""Decayed scores from buckets: for a cohort, for a past time, and for linear decay, which has no accumulator.

Exponential decay takes all events of a bucket as if they lay in its middle (of the part that has passed): an
event is off by at most half a bucket, a factor of 2^(bucket / 2 / half-life). Linear decay knows the buckets'
moments Σ w·t, and is exact except in the one bucket that is just leaving: there the score is that of the mean
time, low by at most bucket / (4 · lifetime) of the bucket's weight, for weights of one sign.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from queryd.hot.arrays import F64
from queryd.hot.cube import Piece, StandingSum
from schemas.durations import DAY_MS, HOUR_MS
from schemas.weights import WEIGHT_SCALE

HALVINGS_MAX = 20
"""Events more than so many half-lives old are left out: a millionth of their weight."""


def exponential(
    hours: Sequence[Piece], minutes: Sequence[Piece], at_ms: int, half_life_ms: int, items: int
) -> F64:
    """Scores at ``at_ms`` by item, f64[items].

    Args:
        hours: all events, by hour or day. minutes: those of them whose minute is known as well, which are
            moved from the middle of their hour to that of their minute.
    """
    scores = np.zeros(items, dtype=np.float64)
    for piece in hours:
        _add(scores, piece, _half_way(piece.start_ms, piece.length_ms, at_ms, half_life_ms))
    for piece in minutes:
        hour_ms = piece.start_ms // HOUR_MS * HOUR_MS
        nearer = _half_way(piece.start_ms, piece.length_ms, at_ms, half_life_ms)
        _add(scores, piece, nearer - _half_way(hour_ms, HOUR_MS, at_ms, half_life_ms))
    return scores


def linear(pieces: Sequence[Piece], at_ms: int, lifetime_ms: int, items: int) -> F64:
    """Scores Σ w·max(0, 1 − (at − t)/lifetime) by item, f64[items]."""
    scores = np.zeros(items, dtype=np.float64)
    for piece in pieces:
        end_ms = piece.start_ms + piece.length_ms
        if end_ms <= at_ms - lifetime_ms or piece.start_ms > at_ms:
            continue
        weight = piece.cells.sum.astype(np.float64)
        if at_ms - lifetime_ms <= piece.start_ms and end_ms <= at_ms:
            values = weight - (weight * (at_ms - _day_of(piece)) - _moments(piece)) / lifetime_ms
        else:  # leaving, or not all of it has happened yet
            age_ms = at_ms - np.minimum(_mean_times(piece), at_ms)
            values = weight * np.maximum(0.0, 1.0 - age_ms / lifetime_ms)
        np.add.at(scores, piece.cells.item, values / WEIGHT_SCALE)
    return scores


def linear_of_sum(standing: StandingSum, at_ms: int, lifetime_ms: int) -> F64:
    """Linear scores of a standing sum whose buckets all lie inside the lifetime, f64[items]."""
    assert standing.moments is not None
    ages = standing.sums.astype(np.float64) * (at_ms - standing.base_ms) - standing.moments
    scores: F64 = (standing.sums - ages / lifetime_ms) / WEIGHT_SCALE
    return scores


def _add(scores: F64, piece: Piece, factor: float) -> None:
    np.add.at(scores, piece.cells.item, piece.cells.sum * (factor / WEIGHT_SCALE))


def _half_way(start_ms: int, length_ms: int, at_ms: int, half_life_ms: int) -> float:
    """What is left at ``at_ms`` of an event in the middle of a bucket; 0 for one that lies ahead."""
    if start_ms > at_ms:
        return 0.0
    middle_ms = (start_ms + min(start_ms + length_ms, at_ms)) / 2
    return float(2.0 ** (-(at_ms - middle_ms) / half_life_ms))


def _day_of(piece: Piece) -> int:
    return piece.start_ms // DAY_MS * DAY_MS


def _moments(piece: Piece) -> F64:
    moment = piece.cells.moment
    return np.zeros(len(piece.cells), dtype=np.float64) if moment is None else moment


def _mean_times(piece: Piece) -> F64:
    """The mean time of each cell's events; the middle of the bucket for weights that cancel out."""
    weight = piece.cells.sum.astype(np.float64)
    middle = np.full(len(weight), piece.length_ms / 2 + piece.start_ms - _day_of(piece))
    means = np.divide(_moments(piece), weight, out=middle, where=weight != 0)
    first = piece.start_ms - _day_of(piece)
    times: F64 = np.clip(means, first, first + piece.length_ms) + _day_of(piece)
    return times
