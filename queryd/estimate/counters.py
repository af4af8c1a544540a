"""Counters of single classes and of pairs of them, as margins in which the rest is a class like others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from queryd.estimate.classes import Table
from queryd.estimate.counts import Known
from queryd.estimate.fitting import Margin
from queryd.hot.arrays import F64, I64, Counts


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts by item, int[items] each.

    Attributes:
        total: all events.
        singles: by axis, of each class but the last; none when they are not known.
        pairs: by two axes, of each class but the last of one with each but the last of the other.
    """

    table: Table
    total: I64
    singles: Sequence[Sequence[Counts]]
    pairs: Mapping[tuple[int, int], Sequence[Sequence[Counts]]]

    def known(self) -> Known:
        """The two-way margins, or else the single ones, and the total."""
        axes: list[tuple[int, ...]] = list(self.pairs) or [(axis,) for axis in range(len(self.singles))]
        upper = self.total.copy()
        for each in axes:
            np.minimum(upper, self._upper(each), out=upper)
        return Known(axes, np.maximum(upper, 0).astype(np.float64), self._margins_at)

    def _upper(self, axes: tuple[int, ...]) -> I64:
        """What a margin leaves the allowed cells: as few passes over all items as its counters allow."""
        others = tuple(axis for axis in range(self.table.allowed.ndim) if axis not in axes)
        reach: I64 = np.asarray(self.table.allowed.any(axis=others)).astype(np.int64)
        terms = self._single_terms(axes[0], reach) if len(axes) == 1 else self._pair_terms(axes, reach)
        upper = np.zeros(len(self.total), dtype=np.int64)
        for weight, counts in terms:
            if weight:
                upper += counts if weight == 1 else weight * counts.astype(np.int64)
        return upper

    def _single_terms(self, axis: int, reach: I64) -> list[tuple[int, Counts]]:
        rest = int(reach[-1])
        classes = zip(reach[:-1].tolist(), self.singles[axis], strict=True)
        return [(rest, self.total), *((here - rest, counts) for here, counts in classes)]

    def _pair_terms(self, axes: tuple[int, ...], reach: I64) -> list[tuple[int, Counts]]:
        """The last class of an axis is what remains, so its counts are differences of what is kept."""
        first, second = axes
        rest = int(reach[-1, -1])
        terms: list[tuple[int, Counts]] = [(rest, self.total)]
        terms += zip((reach[:-1, -1] - rest).tolist(), self.singles[first], strict=True)
        terms += zip((reach[-1, :-1] - rest).tolist(), self.singles[second], strict=True)
        inner = reach[:-1, :-1] - reach[:-1, -1:] - reach[-1:, :-1] + rest
        for weights, row in zip(inner.tolist(), self.pairs[first, second], strict=True):
            terms += zip(weights, row, strict=True)
        return terms

    def _margins_at(self, rows: I64) -> list[Margin]:
        total = self.total[rows].astype(np.float64)
        singles = [_at(classes, rows) for classes in self.singles]
        margins = [Margin((), total)]
        for (first, second), both in self.pairs.items():
            inner = np.stack([_at(row, rows) for row in both])
            margins.append(Margin((first, second), _two_way(inner, singles[first], singles[second], total)))
        if not self.pairs:
            margins += [Margin((axis,), _completed(found, total)) for axis, found in enumerate(singles)]
        return margins


def _at(classes: Sequence[Counts], rows: I64) -> F64:
    return np.stack([counts[rows] for counts in classes]).astype(np.float64)


def _completed(classes: F64, total: F64) -> F64:
    """f64[…, classes, n] and, as one more class, what remains of ``total`` f64[…, n]."""
    rest = np.maximum(total - classes.sum(axis=-2), 0.0)
    completed: F64 = np.concatenate([classes, rest[..., np.newaxis, :]], axis=-2)
    return completed


def _two_way(both: F64, first: F64, second: F64, total: F64) -> F64:
    """f64[a + 1, b + 1, n] from counts of both f64[a, b, n], of each f64[a, n], f64[b, n], and of all."""
    rows = _completed(both, first)
    rest = _completed(np.maximum(second - both.sum(axis=0), 0.0), np.maximum(total - first.sum(axis=0), 0.0))
    completed: F64 = np.concatenate([rows, rest[np.newaxis]], axis=0)
    return completed
