"""Candidates are columns until the page is assembled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from queryd.hot.arrays import F64, U32


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What one source found: ordinals u32[n] and its scores f64[n], best first by score, then id.

    ``total`` is how many there are (n, or more when the source stopped at its limit); ``exact`` whether that
    is a count and not an estimate; ``notes`` what EXPLAIN ANALYZE should say of the stage.
    """

    ordinals: U32
    scores: F64
    total: int
    exact: bool = True
    notes: dict[str, Any] = field(default_factory=dict)


NOTHING = Retrieved(np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.float64), 0)


@dataclass(frozen=True, slots=True)
class TermColumn:
    """One term of the score for every candidate: contribution = weight · value, both f64[n]."""

    name: str
    weight: float
    values: F64

    @property
    def contributions(self) -> F64:
        """f64[n]."""
        return self.weight * self.values


@dataclass(slots=True)
class Candidates:
    """The union of what the sources found.

    ``ordinals`` u32[n] ascending; ``by_source`` each source's scores f64[n], NaN where it did not find the
    candidate; ``terms`` and ``scores`` f64[n] once scored.
    """

    ordinals: U32
    by_source: dict[str, F64]
    terms: list[TermColumn] = field(default_factory=list)
    scores: F64 = field(default_factory=lambda: np.zeros(0, dtype=np.float64))

    def __len__(self) -> int:
        return len(self.ordinals)


def united(found: dict[str, Retrieved]) -> Candidates:
    """The candidates of all sources, each once."""
    if len(found) == 1:
        name, only = next(iter(found.items()))
        order = np.argsort(only.ordinals)
        return Candidates(only.ordinals[order], {name: only.scores[order]})
    parts = [retrieved.ordinals for retrieved in found.values()]
    ordinals = np.unique(np.concatenate(parts)) if parts else NOTHING.ordinals
    by_source = {}
    for name, retrieved in found.items():
        scores = np.full(len(ordinals), np.nan)
        scores[np.searchsorted(ordinals, retrieved.ordinals)] = retrieved.scores
        by_source[name] = scores
    return Candidates(ordinals, by_source)
