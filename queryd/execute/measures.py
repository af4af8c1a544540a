"""Every measure by name: what sort modes and sources score items by."""

from __future__ import annotations

import numpy as np

from queryd.execute.context import Context
from queryd.execute.measure import Counted, Measure, Scored
from queryd.execute.role_measures import HiddenGems, Hot, SmoothedMean, SmoothedRate, Votes
from queryd.execute.signal_measures import (
    CreatorPopularity,
    Evergreen,
    Hacker,
    Rising,
    Top,
    Trending,
    TrendingRelative,
)
from queryd.hot.arrays import U32, U64, Mask
from queryd.hot.fields import ABSENT_TIME
from queryd.ranking import formulas


class ByAge:
    """± created_at in epoch ms; an item without one is taken to be of 1970."""

    def __init__(self, name: str, sign: int) -> None:
        self.name = name
        self._sign = sign

    def qualifying(self, context: Context, of: Counted) -> Mask:
        return np.ones(context.items, dtype=np.bool_)

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        created = context.hot.items.created_column()[rows]
        return Scored((self._sign * np.where(created == ABSENT_TIME, 0, created)).astype(np.float64))


class Random:
    """An order that the seed fixes, 0..1."""

    name = "random"

    def qualifying(self, context: Context, of: Counted) -> Mask:
        return np.ones(context.items, dtype=np.bool_)

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        keys = context.hot.items.ordinals.entity_ids[rows]
        return Scored(_mixed(keys ^ np.uint64(context.seed & 0xFFFFFFFFFFFFFFFF)) / 2.0**64)


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Trending(),
        TrendingRelative(),
        Rising(),
        Top(),
        Hot(),
        Hacker(),
        Votes("best", formulas.wilson_lower),
        Votes("controversial", formulas.controversy),
        SmoothedMean("completion_rate", "completed"),
        SmoothedMean("dwell", "dwelt"),
        SmoothedRate("discussed", "commented", "viewed"),
        HiddenGems(),
        Evergreen(),
        CreatorPopularity(),
        ByAge("newest", 1),
        ByAge("matching", 1),
        ByAge("oldest", -1),
        Random(),
    )
}


def counted(context: Context) -> Counted:
    """What the measures of this query count: the order's signals, else what its profile's sources count."""
    plan = context.plan
    if plan.order is not None:
        return Counted(plan.order.signals, plan.order.window)
    return Counted((plan.signal,), plan.window)


def _mixed(keys: U64) -> U64:
    """SplitMix64's finaliser: u64[n] to u64[n], every input bit reaching every output bit."""
    with np.errstate(over="ignore"):
        keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
