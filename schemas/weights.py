"""Weights are fixed point: sums of int64 are exact whatever the order and the batches."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

WEIGHT_SCALE: Final = 1_000_000
"""Micro-units in a weight of 1.0."""

WEIGHT_MAX: Final = 1_000_000.0
"""Largest absolute weight of an event: 2^63 holds nine million sums of it, and float64 holds it exactly."""

WEIGHT_MICRO_MAX: Final = int(WEIGHT_MAX) * WEIGHT_SCALE


def to_micro(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Fixed-point form of finite weights within ±WEIGHT_MAX: i64[n] micro-units, halves to even."""
    return np.rint(weights * WEIGHT_SCALE).astype(np.int64)
