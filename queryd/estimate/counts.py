"""The estimate itself: counts of a cohort by item from margins, and what they may be wrong by. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from queryd.estimate import bounds
from queryd.estimate.classes import Table
from queryd.estimate.fitting import Margin, ipf, upper_bounds
from queryd.estimate.sampling import Sample
from queryd.hot.arrays import F64, I32, I64, U32, Mask

Estimator: TypeAlias = Literal["exact", "ipf", "independence"]

FITTED_MAX: Final = 16_384
"""Items whose joints are fitted: those with the highest upper bounds, far more than any page reaches."""
MEASURED_MAX: Final = 1_024
_SWEEPS_MAX: Final = 12
"""Those that are not fitted by then are small items with cells that must become 0."""
_SMOOTHING: Final = 0.5
"""Added to each cell of the pooled joint: one that the sample lacks is rare, not impossible."""


@dataclass(frozen=True, slots=True)
class CountEstimate:
    """Counts of a cohort by item.

    Attributes:
        counts: f64[items].
        estimator: ``ipf`` when every two-way margin was fitted, ``independence`` when fewer were known.
        upper: f64[items], what the counts cannot exceed.
        place: i32[items], the column of an item in ``fitted`` f64[cells, k], −1 for one that was not fitted.
        error: of the model, measured on the sample.
        seed_error: Σ 1/count over the cells of the joint that the fit began with.
    """

    counts: F64
    estimator: Estimator
    upper: F64
    place: I32
    fitted: F64
    allowed: Mask
    fixed: F64
    error: bounds.ModelError
    seed_error: float

    def relative_bounds(self, items: U32) -> F64:
        """|truth − count| ≤ bound · count in at least 95 % of the cases, f64[n]; 0 where count is 0.

        An item that was not fitted has the bound that always holds: between nothing and its upper bound.
        """
        counts, upper = self.counts[items], self.upper[items]
        found = np.zeros(len(items), dtype=np.float64)
        some = counts > 0
        found[some] = np.maximum(1.0, upper[some] / counts[some] - 1.0)
        column = self.place[items]
        held = np.flatnonzero((column >= 0) & some)
        found[held] = self._fitted_bounds(column[held], counts[held])
        return found

    def _fitted_bounds(self, columns: I32, counts: F64) -> F64:
        noise = bounds.noise_variance(self.fitted[:, columns], self.allowed, self.fixed)
        # d log(count) / d log(seed) is noise / count: how much the count leans on what no margin says.
        squared_error = self.error.squared + self.seed_error * (noise / counts) ** 2
        return bounds.relative_bounds(counts, noise, squared_error, self.error.spreads)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the items.

    Attributes:
        axes: of each margin that is known; the total is always.
        upper: f64[items], what no count can exceed.
        margins_at: the margins of the items ``rows`` i64[k], the total first.
    """

    axes: Sequence[tuple[int, ...]]
    upper: F64
    margins_at: Callable[[I64], list[Margin]]


def known_of(table: Table, total: F64, margins: Sequence[Margin]) -> Known:
    """From margins of all items: the targets f64[*shape, items], ``total`` f64[items]."""
    every = [Margin((), total), *margins]
    return Known(
        [margin.axes for margin in margins],
        upper_bounds(every, table.allowed),
        lambda rows: [Margin(margin.axes, margin.target[..., rows]) for margin in every],
    )


def estimated(
    table: Table, known: Known, sample_of: Callable[[I64], Sample], *, fitted_max: int = FITTED_MAX
) -> CountEstimate:
    """Estimate the counts of the cohort that ``table`` describes.

    Each item's joint begins as the sample's pooled one and is fitted to the item's margins, so that what the
    margins leave open is as among all events. Items beyond ``fitted_max`` get the same share of their upper
    bounds as the fitted ones have of theirs.

    Args:
        sample_of: counts the joints of given items in a sample.
    """
    upper, allowed = known.upper, table.allowed
    rows = _highest(upper, fitted_max)
    sample = sample_of(rows[:MEASURED_MAX])
    seed = sample.pooled.reshape(table.shape) + _SMOOTHING
    fitted = ipf(seed[..., np.newaxis], known.margins_at(rows), sweeps_max=_SWEEPS_MAX)
    fixed = bounds.effects(table.shape, [(), *known.axes])
    found = fitted[allowed].sum(axis=0)
    counts = upper * _ratio(float(found.sum()), float(upper[rows].sum()))
    counts[rows] = found
    place = np.full(len(upper), -1, dtype=np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    pairs = len(table.axes) * (len(table.axes) - 1) // 2
    return CountEstimate(
        counts=counts,
        estimator="ipf" if pairs and sum(len(axes) == 2 for axes in known.axes) == pairs else "independence",
        upper=upper,
        place=place,
        fitted=fitted.reshape(allowed.size, len(rows)),
        allowed=allowed,
        fixed=fixed,
        error=_measured_error(sample, seed, [(), *known.axes], allowed, fixed),
        seed_error=_seed_error(seed, allowed, with_margins=bool(known.axes)),
    )


def _measured_error(
    sample: Sample, seed: F64, axes: Sequence[tuple[int, ...]], allowed: Mask, fixed: F64
) -> bounds.ModelError:
    """The model's error on the sample: each item fitted to its margins there, beside its true joint."""
    shape = allowed.shape
    truth = sample.joint.reshape(*shape, -1)
    if not truth.any():
        return bounds.ModelError(1.0, bounds.SPREADS)
    margins = [
        Margin(each, truth.sum(axis=tuple(axis for axis in range(len(shape)) if axis not in each)))
        for each in axes
    ]
    fitted = ipf(seed[..., np.newaxis], margins, sweeps_max=_SWEEPS_MAX)
    noise = bounds.noise_variance(fitted, allowed, fixed)
    return bounds.model_error(fitted[allowed].sum(axis=0), truth[allowed].sum(axis=0), noise)


def _seed_error(seed: F64, allowed: Mask, *, with_margins: bool) -> float:
    cells = seed.reshape(-1) if with_margins else np.array([seed[allowed].sum(), seed[~allowed].sum()])
    return float((1.0 / np.maximum(cells, _SMOOTHING)).sum())


def _highest(upper: F64, limit: int) -> I64:
    """The items with the highest upper bounds above 0, highest first."""
    rows = np.flatnonzero(upper > 0)
    if len(rows) > limit:
        rows = rows[np.argpartition(upper[rows], len(rows) - limit)[len(rows) - limit :]]
    ordered: I64 = rows[np.argsort(-upper[rows], kind="stable")]
    return ordered


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
