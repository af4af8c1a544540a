"""Reciprocal rank fusion (Cormack, Clarke, Büttcher: SIGIR 2009): Σ 1 / (k + rank) over the lists."""

from __future__ import annotations

from typing import Final

import numpy as np

from queryd.hot.arrays import F64, I64, U32
from queryd.hot.ordinals import Ordinals
from queryd.ranking.order import top

RRF_K: Final = 60
"""The constant of the paper; ranks count from 1."""


def ranks(ordinals: U32, scores: F64, ids: Ordinals) -> I64:
    """Rank of each candidate, i64[n] from 1, by score descending, then id: no two share one."""
    order = top(ordinals, scores, len(ordinals), ids)
    placed = np.empty(len(ordinals), dtype=np.int64)
    placed[order] = np.arange(1, len(ordinals) + 1)
    return placed


def reciprocal(rank: I64) -> F64:
    """1 / (k + rank), f64[n]."""
    return 1.0 / (RRF_K + rank)
