"""Bringing scores of different kinds onto one scale."""

from __future__ import annotations

import numpy as np

from queryd.hot.arrays import F64


def min_max(scores: F64) -> F64:
    """(s − min) / (max − min), f64[n] in 0..1; all 1 where every score is the same."""
    if not len(scores):
        return scores
    low, high = scores.min(), scores.max()
    if low == high:
        return np.ones(len(scores), dtype=np.float64)
    scaled: F64 = (scores - low) / (high - low)
    return scaled
