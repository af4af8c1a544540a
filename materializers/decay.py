"""Decayed sums whose value does not depend on the order of events.

Exponential decay is kept as forward decay with a moving landmark (Cormode, Shkapenyuk, Srivastava, Xu:
"Forward Decay", ICDE 2009). A cell holds ``ref_ms``, the newest timestamp that it has seen, and for each
half-life h the accumulator

    acc = Σ wᵢ · 2^(−(ref − tᵢ)/h)

A newer event moves the landmark and rescales ``acc``; an older one is added with the factor of its own
age. The exponent is never positive, so nothing overflows however long the stream is. Read at time t:
``acc · 2^(−(t − ref)/h)``.

Half-lives enter as rates: halvings for each millisecond, 1/h. A rate of 0 never decays, so a signal with
fewer half-lives than its table has columns, or with none, needs no branch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer]

NEVER_MS = np.iinfo(np.int64).min
"""``ref_ms`` of a cell without an event."""


class Accumulators(NamedTuple):
    """State of m cells: ``ref_ms`` i64[m] and ``acc`` f64[m, k], one column for each half-life."""

    ref_ms: I64
    acc: F64


def rates(half_lives_ms: Sequence[Sequence[int]]) -> F64:
    """Rates of signals with their half-lives, f64[signals, k], k = the largest number of half-lives.

    Columns that a signal does not use have rate 0.
    """
    width = max((len(row) for row in half_lives_ms), default=0)
    table = np.zeros((len(half_lives_ms), width), dtype=np.float64)
    for row, half_lives in enumerate(half_lives_ms):
        table[row, : len(half_lives)] = [1.0 / half_life for half_life in half_lives]
    return table


def factors(elapsed_ms: I64, rate: F64) -> F64:
    """``2^(−elapsed · rate)``; ``elapsed_ms`` i64[n], ``rate`` f64[n, k], result f64[n, k]."""
    decayed: F64 = np.exp2(-elapsed_ms[:, None] * rate)
    return decayed


def advance(state: Accumulators, newest_ms: I64, rate: F64) -> Accumulators:
    """Move each cell's landmark to ``newest_ms`` i64[m] where that is later, rescaling what it holds."""
    ref_ms = np.maximum(state.ref_ms, newest_ms)
    empty = state.ref_ms == NEVER_MS
    elapsed = np.where(empty, 0, ref_ms - np.where(empty, ref_ms, state.ref_ms))
    return Accumulators(ref_ms, state.acc * factors(elapsed, rate))


def contributions(ref_ms: I64, ts_ms: I64, weight: F64, rate: F64) -> F64:
    """What each event adds to its cell's accumulators, f64[n, k].

    Args:
        ref_ms: i64[n], the landmark of the event's cell, already moved to ``ts_ms`` or later.
        ts_ms: i64[n]. weight: f64[n]. rate: f64[n, k].
    """
    return weight[:, None] * factors(ref_ms - ts_ms, rate)


def fold(state: Accumulators, cell: Integers, ts_ms: I64, weight: F64, rate: F64) -> Accumulators:
    """Add n events to m cells.

    Args:
        state: the m cells before.
        cell: [n], the cell of each event. ts_ms: i64[n]. weight: f64[n].
        rate: f64[m, k], rates of each cell.
    """
    newest = np.full(len(state.ref_ms), NEVER_MS, dtype=np.int64)
    np.maximum.at(newest, cell, ts_ms)
    moved = advance(state, newest, rate)
    added = contributions(moved.ref_ms[cell], ts_ms, weight, rate[cell])
    acc = moved.acc.copy()
    for column in range(acc.shape[1]):
        acc[:, column] += np.bincount(cell, weights=added[:, column], minlength=len(acc))
    return Accumulators(moved.ref_ms, acc)


def read(state: Accumulators, at_ms: int, rate: F64) -> F64:
    """Scores at ``at_ms``, f64[m, k]; 0 for a cell without an event.

    ``at_ms`` may lie before a cell's newest event (clocks differ by seconds): the formula is then the same
    with a negative age. For a time of the past take the cold tier: accumulators cannot forget what came
    later.
    """
    empty = state.ref_ms == NEVER_MS
    elapsed = at_ms - np.where(empty, at_ms, state.ref_ms)
    return state.acc * factors(elapsed, rate)


def score(acc: float, ref_ms: int, half_life_ms: int, at_ms: int) -> float:
    """One accumulator read at ``at_ms``."""
    return float(acc * 2.0 ** (-(at_ms - ref_ms) / half_life_ms))


class ForwardDecayed(NamedTuple):
    """Decayed count and sum of a set of values."""

    decayed_count: float
    decayed_sum: float


def forward_decay(
    ts: F64, values: F64, landmark: float, at: float, g: Callable[[F64], F64]
) -> ForwardDecayed:
    """The general form for any non-decreasing ``g``: item i weighs ``g(tᵢ − L) / g(t − L)``.

    ``ts`` and ``values`` are f64[n]; every timestamp is at or after the landmark. Exponential decay is
    the case ``g(n) = 2^(n/h)``, the only one in which the landmark can move without the events.
    """
    weights = g(ts - landmark) / g(np.array([at - landmark]))
    return ForwardDecayed(float(weights.sum()), float((weights * values).sum()))


def faded(weight: F64, updated_ms: I64, half_life_ms: F64, at_ms: I64) -> F64:
    """Weights that lose half in each half-life after their last update, f64[n].

    Nothing grows: before ``updated_ms`` the weight is what it is. A half-life of ``inf`` never fades.
    """
    elapsed = np.maximum(0, at_ms - updated_ms)
    result: F64 = weight * np.exp2(-elapsed / half_life_ms)
    return result
