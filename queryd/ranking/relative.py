"""How far a count lies above what its own past lets one expect, in standard deviations.

The past of an item are the counts of n earlier windows at the same hour of the day. Three forms:

* ``OWN``: at least three earlier windows of 10 events on average. z = (c − μ)/σ with the mean and the sample
  deviation of the own past; σ is at least √μ, what a count of independent events spreads by.
* ``POISSON``: at least three earlier windows of fewer events. z = (c − λ)/√λ. λ is the own mean drawn towards
  that of the scope's items, so that one that was silent expects little and not nothing.
* ``PRIOR``: an item without such a past. λ comes from the scope's items, and how much those differ from one
  another adds to the spread: the deviation is that of the prior's prediction, √(λ + λ/(β + n)).

Below one event the deviation is taken as one: else a single event of a silent item would be a sensation.

λ = (α + S)/(β + n) is the posterior mean under a gamma prior of Poisson rates (D. Clayton, J. Kaldor:
Empirical Bayes estimates of age-standardized relative risks, Biometrics 43, 1987); S are the events of n
windows. α and β are estimated by moments, weighted by windows (R. J. Marshall: Mapping disease and mortality
rates using empirical Bayes estimators, Applied Statistics 40, 1991): with rates r = S/n and the pooled mean
m, the variance between items is A = Σn(r − m)²/Σn − m/n̄, and β = m/A, α = m·β.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from queryd.hot.arrays import F64, I64, U8

WINDOWS_MIN: Final = 3
"""Fewer earlier windows than this are no past: a deviation of two counts says nothing."""
POISSON_BELOW: Final = 10.0
"""Mean from which a normal distribution stands for a Poisson one (a common rule of thumb)."""
_STRENGTH_MAX: Final = 1e9  # items that do not differ: the prior then says all there is to say

OWN, POISSON, PRIOR = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Prior:
    """Gamma prior of the events of a window: its mean, and β, the windows of own past that weigh as much."""

    mean: float
    strength: float


def fit_prior(totals: F64, windows: F64) -> Prior:
    """The prior of items with ``totals`` f64[n] events in ``windows`` f64[n] (> 0) windows each."""
    exposure = float(windows.sum())
    if not exposure:
        return Prior(0.0, _STRENGTH_MAX)
    mean = float(totals.sum()) / exposure
    rates = totals / windows
    between = float((windows * (rates - mean) ** 2).sum()) / exposure - mean * len(windows) / exposure
    if between <= mean / _STRENGTH_MAX:
        return Prior(mean, _STRENGTH_MAX)
    return Prior(mean, mean / between)


@dataclass(frozen=True, slots=True)
class Relative:
    """Scores f64[n] and what they were made of: expected f64[n], deviation f64[n], form u8[n]."""

    scores: F64
    expected: F64
    deviation: F64
    form: U8


def relative(counts: F64, totals: F64, squares: F64, windows: I64, prior: Prior) -> Relative:
    """Scores of items now.

    Args:
        counts: events of the current window, f64[n].
        totals, squares: Σc and Σc² over the earlier windows of each item, f64[n].
        windows: how many those are, i64[n].
    """
    n = windows.astype(np.float64)
    known = windows >= WINDOWS_MIN
    mean = np.divide(totals, n, out=np.zeros(len(n)), where=known)
    own = known & (mean >= POISSON_BELOW)
    drawn = (prior.mean * prior.strength + totals) / (prior.strength + n)
    expected = np.where(own, mean, drawn)
    variance = expected.copy()
    new = ~known
    variance[new] += drawn[new] / (prior.strength + n[new])
    within = (squares[own] - totals[own] * mean[own]) / (n[own] - 1.0)
    variance[own] = np.maximum(within, mean[own])
    deviation = np.sqrt(np.maximum(variance, 1.0))
    form = np.where(own, OWN, np.where(known, POISSON, PRIOR)).astype(np.uint8)
    return Relative((counts - expected) / deviation, expected, deviation, form)
