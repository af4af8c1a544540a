"""How age counts: 1 up to the offset, then falling over the scale."""

from __future__ import annotations

import numpy as np

from queryd.hot.arrays import F64


def recency(age_ms: F64, curve: str, scale_ms: int, offset_ms: int) -> F64:
    """Value in 0..1 of ages f64[n] in ms, x = max(0, age − offset) / scale:

    exponential 2^(−x), linear max(0, 1 − x), gaussian 2^(−x²): each ½ (linear: 0) at one scale.
    """
    x = np.maximum(age_ms - offset_ms, 0.0) / scale_ms
    if curve == "linear":
        return np.maximum(0.0, 1.0 - x)
    exponent = x * x if curve == "gaussian" else x
    value: F64 = np.exp2(-exponent)
    return value
