"""Joint counts from marginal counts: iterative proportional fitting and independence, for many items at once.

A *joint* of an item has a cell for each combination of the classes of a few dimensions. Arrays are cells
first, items last (``f64[*shape, n]``), so that each operation runs over contiguous items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from queryd.hot.arrays import F64, I64, Mask

_ITEMS_AT_ONCE: Final = 8_192
"""Items fitted together: their joints stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Margin:
    """Counts over some axes of a joint: ``target`` f64[*shape of these axes, n]; ``axes`` ascend, none of
    them twice; no axis at all is the total, f64[n]."""

    axes: tuple[int, ...]
    target: F64


def ipf(seed: F64, margins: Sequence[Margin], *, tolerance: float = 1e-3, sweeps_max: int = 50) -> F64:
    """The joints nearest to ``seed`` (in relative entropy) that have all ``margins``: f64[*shape, n].

    Each sweep scales the joints to every margin in turn (Deming and Stephan 1940; Csiszár 1975). What the
    margins do not say is the seed's: a seed of ones has no interaction beyond the margins', another
    population's joint has that population's. The margins must be of one set of events, so that they agree.

    Args:
        seed: f64[*shape, 1] for all items, or f64[*shape, n]; a cell of 0 stays 0.
        margins: at least one; n is theirs.
        tolerance: the largest relative miss of a margin that ends the sweeps.
    """
    items = margins[0].target.shape[-1]
    fitted = np.empty((*seed.shape[:-1], items), dtype=np.float64)
    for start in range(0, items, _ITEMS_AT_ONCE):
        part = slice(start, min(start + _ITEMS_AT_ONCE, items))
        width = part.stop - part.start
        joint = np.empty((*seed.shape[:-1], width), dtype=np.float64)
        joint[...] = seed if seed.shape[-1] == 1 else seed[..., part]
        targets = [Margin(margin.axes, margin.target[..., part]) for margin in margins]
        fitted[..., part] = _swept(joint, targets, tolerance, sweeps_max)
    return fitted


def independence(total: F64, singles: Sequence[F64]) -> F64:
    """Joints of dimensions that know nothing of each other, f64[*shape, n]: total · Π (single / total).

    For two classes this is count(A)·count(B)/count(all).

    Args:
        total: f64[n], all events of each item.
        singles: for each dimension f64[classes, n], which add up to ``total``.
    """
    joint = total
    for axis, single in enumerate(singles):
        share = np.divide(single, total, out=np.zeros(single.shape), where=total > 0)
        joint = joint[..., np.newaxis, :] * share.reshape((*[1] * axis, *share.shape))
    return joint


def upper_bounds(margins: Sequence[Margin], allowed: Mask) -> F64:
    """What the allowed cells of each joint cannot exceed, f64[n]: the least of what each margin leaves them.

    Args:
        allowed: bool[*shape].
    """
    bounds = []
    for margin in margins:
        others = tuple(axis for axis in range(allowed.ndim) if axis not in margin.axes)
        reachable = allowed.any(axis=others)
        bounds.append(margin.target[reachable].sum(axis=0) if margin.axes else margin.target)
    return np.asarray(np.minimum.reduce(bounds), dtype=np.float64)


def _swept(joint: F64, margins: Sequence[Margin], tolerance: float, sweeps_max: int) -> F64:
    """Sweep until every item fits; those that do are set aside, so that a few stubborn ones cost little."""
    open_: I64 | None = None  # positions of the items that are still swept, None for all
    swept = joint
    for _ in range(sweeps_max):
        missed = np.maximum.reduce([_scaled(swept, margin) for margin in margins])
        waiting = np.flatnonzero(missed > tolerance)
        if len(waiting) > swept.shape[-1] // 2:
            continue
        if open_ is not None:
            joint[..., open_] = swept
        open_ = waiting if open_ is None else open_[waiting]
        if not len(open_):
            return joint
        swept = joint[..., open_]
        margins = [Margin(margin.axes, margin.target[..., waiting]) for margin in margins]
    if open_ is not None:
        joint[..., open_] = swept
    return joint


def _scaled(joint: F64, margin: Margin) -> F64:
    """Scale ``joint`` to a margin in place; how far each item was from it, relatively, f64[n]."""
    others = tuple(axis for axis in range(joint.ndim - 1) if axis not in margin.axes)
    had = joint.sum(axis=others)
    factor = np.divide(margin.target, had, out=np.ones_like(had), where=had > 0)
    joint *= np.expand_dims(factor, others)
    missed: F64 = np.abs(factor - 1.0).reshape(-1, joint.shape[-1]).max(axis=0)
    return missed
