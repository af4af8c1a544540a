"""Measures of roles: signals that the schema says are likes, views or comments, whatever they are called."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from queryd.execute.context import Context
from queryd.execute.measure import ByScore, Counted, Scored, counts_by_item, total
from queryd.hot.arrays import F64, I64, U32, Mask
from queryd.hot.fields import ABSENT_TIME
from queryd.ranking import formulas
from schemas.weights import WEIGHT_SCALE


class Hot:
    """Votes by their order of magnitude, and age; an item without created_at comes after all others."""

    name = "hot"

    def qualifying(self, context: Context, of: Counted) -> Mask:
        return np.ones(context.items, dtype=np.bool_)

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        ups, downs = _votes(context, of, rows)
        created = context.hot.items.created_column()[rows]
        created_s = np.where(created == ABSENT_TIME, 0.0, created / 1000)
        return Scored(formulas.hot(ups, downs, created_s), {"liked": ups, "disliked": downs})


class Votes(ByScore):
    """A function of the likes and dislikes in the window."""

    def __init__(self, name: str, formula: Callable[[F64, F64], F64]) -> None:
        self.name = name
        self._formula = formula

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        ups, downs = _votes(context, of, rows)
        return Scored(self._formula(ups, downs), {"liked": ups, "disliked": downs})


class SmoothedMean:
    """Mean weight of a role's events in the window, each item beginning with ten of the scope's average."""

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self._role = role

    def qualifying(self, context: Context, of: Counted) -> Mask:
        return _counts_of(context, self._role, of.window) > 0

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        counts = _counts_of(context, self._role, of.window)
        signals = _signals_of(context, self._role)
        sums = total([context.reads.sums(each, of.window, context.scope) for each in signals], context)
        amounts, events = sums[rows] / WEIGHT_SCALE, counts[rows].astype(np.float64)
        all_amounts, all_events = float(sums.sum()) / WEIGHT_SCALE, float(counts.sum())
        scores = formulas.smoothed(amounts, events, all_amounts, all_events)
        return Scored(scores, {"sum": amounts, "count": events})


class SmoothedRate:
    """Events of one role for each of another in the window, smoothed towards the scope's rate."""

    def __init__(self, name: str, role: str, over: str) -> None:
        self.name = name
        self._role, self._over = role, over

    def qualifying(self, context: Context, of: Counted) -> Mask:
        return _counts_of(context, self._role, of.window) > 0

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        clicks = _counts_of(context, self._role, of.window)
        shown = _counts_of(context, self._over, of.window)
        held, among = clicks[rows].astype(np.float64), shown[rows].astype(np.float64)
        scores = formulas.smoothed_rate(held, among, float(clicks.sum()), float(shown.sum()))
        return Scored(scores, {self._role: held, self._over: among})


class HiddenGems:
    """Well liked for certain, and seen by few."""

    name = "hidden_gems"

    def qualifying(self, context: Context, of: Counted) -> Mask:
        return _counts_of(context, "liked", of.window) > 0

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        quality = formulas.wilson_lower(*_votes(context, of, rows))
        seen = _counts_of(context, "viewed", of.window)[rows].astype(np.float64)
        return Scored(formulas.hidden(quality, seen), {"quality": quality, "viewed": seen})


def _counts_of(context: Context, role: str, window: str) -> I64:
    return counts_by_item(context, Counted(_signals_of(context, role), window))


def _signals_of(context: Context, role: str) -> tuple[int, ...]:
    schema = context.hot.schema
    return tuple(schema.signal_index[name] for name in schema.roles[role])


def _votes(context: Context, of: Counted, rows: U32) -> tuple[F64, F64]:
    ups, downs = (_counts_of(context, role, of.window)[rows] for role in ("liked", "disliked"))
    return ups.astype(np.float64), downs.astype(np.float64)
