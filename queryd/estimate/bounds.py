"""How far an estimate may be from the truth: noise that the margins leave, and a measured model error.

*Noise.* If an item's joint follows the model, its cells are counts that vary around the fitted ones, held by
the margins. Under multinomial sampling with the margins of some effects fixed, the variance of a sum of cells
is that of a linear function of a Gaussian with covariance M − M·A·(Aᵀ·M·A)⁻¹·Aᵀ·M, where M = diag(fitted) and
A are the fixed effects (Bishop, Fienberg and Holland 1975, chapter 14). For three dimensions of two classes
it is 1/Σ(1/fitted).

*Model error.* No item's joint follows the model exactly. How far items are from it is measured where the
truth is known: on a sample of the same cells, of which each item's joint is counted. The mean of the squared
relative misses beyond noise is the squared model error; two standard errors of that mean are added to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from queryd.hot.arrays import F64, Mask

SPREADS: Final = 2.0
"""Standard deviations that a bound spans at least: 95 % of a normal law."""
_COVERED: Final = 0.96
_ROUNDS: Final = 5
_SMALL: Final = 1e-6


def effects(shape: tuple[int, ...], margins: Iterable[tuple[int, ...]]) -> F64:
    """The effects that ``margins`` (tuples of axes) fix, as independent columns f64[cells, effects]."""
    fixed: set[tuple[int, ...]] = {()}
    for axes in margins:
        for kept in product((False, True), repeat=len(axes)):
            fixed.add(tuple(axis for axis, keep in zip(axes, kept, strict=True) if keep))
    cells = np.indices(shape).reshape(len(shape), -1)
    columns = []
    for axes in sorted(fixed, key=lambda each: (len(each), each)):
        for classes in product(*(range(shape[axis] - 1) for axis in axes)):
            hit = [cells[axis] == number for axis, number in zip(axes, classes, strict=True)]
            columns.append(np.all(hit, axis=0) if hit else np.ones(cells.shape[1], dtype=np.bool_))
    return np.stack(columns, axis=1).astype(np.float64)


def noise_variance(fitted: F64, allowed: Mask, fixed: F64) -> F64:
    """Variance of the sum of the allowed cells of each joint when the ``fixed`` effects are known, f64[n].

    Args:
        fitted: f64[*shape, n]; ``allowed`` bool[*shape]; ``fixed`` as ``effects`` gives it.
    """
    cells = fitted.reshape(allowed.size, fitted.shape[-1])
    chosen = allowed.reshape(-1).astype(np.float64)
    known = np.einsum("ki,kn,kj->nij", fixed, cells + _SMALL, fixed)
    shared = np.einsum("ki,kn,k->ni", fixed, cells, chosen)
    explained = np.linalg.solve(known, shared[..., np.newaxis])[..., 0]
    variance: F64 = np.asarray(chosen @ cells - np.einsum("ni,ni->n", shared, explained))
    variance[variance < 0] = 0.0  # rounding, where the margins say everything
    return variance


@dataclass(frozen=True, slots=True)
class ModelError:
    """The squared relative error of a model beyond noise, and how many deviations a bound must span."""

    squared: float
    spreads: float


def model_error(estimated: F64, truth: F64, noise: F64) -> ModelError:
    """What items whose truth is known say of a model, all f64[n].

    The mean of the squared relative misses less noise, each weighted by how precisely it tells (the weights
    of a random-effects mean, DerSimonian and Laird 1986, repeated until they settle). Bounds span as many
    deviations as 96 % of the items need, and never fewer than ``SPREADS``.
    """
    some = np.flatnonzero(estimated > 0)
    if not len(some):
        return ModelError(1.0, SPREADS)
    own = noise[some] / estimated[some] ** 2
    beyond = (truth[some] / estimated[some] - 1.0) ** 2 - own
    weights, squared = estimated[some] ** 2, 0.0
    for _ in range(_ROUNDS):
        squared = max(0.0, float((weights * beyond).sum() / weights.sum()))
        weights = 1.0 / (own + squared + _SMALL) ** 2
    spread = float(np.sqrt(((weights * (beyond - squared)) ** 2).sum()) / weights.sum())
    squared += SPREADS * spread
    deviation = np.sqrt(own + squared) * estimated[some]
    needed = (np.abs(truth[some] - estimated[some]) - 1.0) / np.maximum(deviation, _SMALL)
    return ModelError(squared, max(SPREADS, float(np.quantile(needed, _COVERED))))


def relative_bounds(estimated: F64, noise: F64, squared_error: F64, spreads: float) -> F64:
    """|truth − estimated| ≤ bound · estimated in at least 95 % of the cases, f64[n]; infinite at 0.

    One event is added to the spread: counts are whole, and small ones are skewed.

    Args:
        noise: variance, f64[n]; ``squared_error`` the squared relative model error, f64[n].
    """
    spread = spreads * np.sqrt(noise + squared_error * estimated**2) + 1.0
    bounds: F64 = np.divide(spread, estimated, out=np.full(len(estimated), np.inf), where=estimated > 0)
    return bounds
