"""Measures: what sort modes and sources score items by, from signals and records, in the scope of the query.

A measure says which items it concerns at all (``qualifying``: what has no event does not trend), and scores
any item. A source takes the best of those that qualify; a search in the same order scores what it found.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from queryd.execute.context import Context
from queryd.hot.arrays import F64, I64, U32, U64, Counts, Mask
from queryd.hot.fields import ABSENT_TIME
from queryd.hot.history import PastSums
from queryd.hot.leaders import KeptLeaders, Leaders
from queryd.ranking import formulas
from queryd.ranking.relative import WINDOWS_MIN, Prior, fit_prior, relative
from schemas.durations import ALL_TIME, HOUR_MS, WINDOWS
from schemas.weights import WEIGHT_SCALE


@dataclass(frozen=True, slots=True)
class Counted:
    """The events that a measure counts: indexes of signals, counted together, and the window.

    A measure that counts roles reads the window alone.
    """

    signals: tuple[int, ...]
    window: str


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores f64[n]; ``parts``, each f64[n], are what they were made of, ``notes`` what holds for all."""

    scores: F64
    parts: dict[str, F64] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


class Measure(Protocol):
    """Scores items."""

    name: str

    def qualifying(self, context: Context, of: Counted) -> Mask:
        """Items that a list in this order has, bool[items]."""
        ...

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        """Scores of the items ``rows`` u32[n]."""
        ...


class ByCount:
    """Measures whose scores grow with the number of events, so that the best are found by it alone."""

    def qualifying(self, context: Context, of: Counted) -> Mask:
        return self.tallies(context, of) > 0

    def leaders(self, context: Context, of: Counted, limit: int) -> Leaders:
        """Allowed items with an event, among them the best ``limit`` and all that tie with the last."""
        if len(of.signals) == 1:
            return context.reads.leaders(of.signals[0], of.window, context.scope, context.allowed, limit)
        return KeptLeaders(_counts(context, of)).among(context.allowed, limit)

    def tallies(self, context: Context, of: Counted) -> Counts:
        """Events by item, int[items]: to compare and to take from."""
        if len(of.signals) == 1:
            return context.reads.tallies(of.signals[0], of.window, context.scope)
        return _counts(context, of)


class ByScore(ABC):
    """Measures that concern the items whose score is above 0."""

    def qualifying(self, context: Context, of: Counted) -> Mask:
        return self.score(context, of, everything(context)).scores > 0

    @abstractmethod
    def score(self, context: Context, of: Counted, rows: U32) -> Scored: ...


class Trending(ByCount):
    """Velocity of the signal in the window; for all_time the count."""

    name = "trending"

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        velocities = [
            context.reads.velocity(each, of.window, context.scope, rows=rows) for each in of.signals
        ]
        return Scored(_sum(velocities, rows))


class TrendingRelative:
    """How far the count lies above what earlier days had at the same hour, in standard deviations."""

    name = "trending_relative"

    def qualifying(self, context: Context, of: Counted) -> Mask:
        return _counts(context, of) > 0

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        all_counts = _counts(context, of)
        counts = all_counts[rows].astype(np.float64)
        past = context.reads.past(of.signals[0], of.window, context.scope)
        prior, lived, total, squares = past.prior, past.windows_of(rows), past.total[rows], past.squares[rows]
        if past.windows < WINDOWS_MIN:
            prior = _present_prior(all_counts)
            lived, total, squares = np.zeros_like(lived), np.zeros_like(total), np.zeros_like(squares)
        self._tell(context, past)
        found = relative(counts, total, squares, lived, prior)
        parts = {
            "count": counts,
            "expected": found.expected,
            "deviation": found.deviation,
            "windows": lived.astype(np.float64),
        }
        notes = {
            "windows": past.windows,
            "unread": past.unread,
            "prior_mean": prior.mean,
            "prior_windows": prior.strength,
        }
        return Scored(found.scores, parts, notes)

    def _tell(self, context: Context, past: PastSums) -> None:
        """What a page must say of a past that is short, or not all read yet."""
        if past.unread:
            context.report.degrade(
                self.name, f"compared with {past.windows} earlier windows; {past.unread} are still to be read"
            )
        elif past.windows < WINDOWS_MIN:
            context.report.warn(
                f"this scope has {past.windows} complete earlier windows, and {WINDOWS_MIN} are the "
                "least to compare with: trending_relative compares items with one another instead"
            )


class Rising(ByScore):
    """Acceleration: velocity in the window less that in the window before."""

    name = "rising"

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        found = [context.reads.acceleration(each, of.window, context.scope)[rows] for each in of.signals]
        return Scored(_sum(found, rows))


class Top(ByCount):
    """Events in the window."""

    name = "top"

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        return Scored(self.tallies(context, of)[rows].astype(np.float64))


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


class Hacker:
    """Points over age; 0 for an item without created_at."""

    name = "hacker"

    def qualifying(self, context: Context, of: Counted) -> Mask:
        return _counts(context, of) > 0

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        created = context.hot.items.created_column()[rows]
        known = created != ABSENT_TIME
        age_h = np.where(known, context.at_ms - created, 0) / HOUR_MS
        points = _counts(context, of)[rows].astype(np.float64)
        scores = np.where(known, formulas.hacker(points, age_h), 0.0)
        return Scored(scores, {"points": points, "age_hours": age_h})


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
        sums = _total([context.reads.sums(each, of.window, context.scope) for each in signals], context)
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


class Evergreen:
    """Share of all events of an item that lie in the window, smoothed; only of items older than the window,
    since everything that a younger one ever had is recent."""

    name = "evergreen"

    def qualifying(self, context: Context, of: Counted) -> Mask:
        created = context.hot.items.created_column()
        since_ms = context.at_ms - WINDOWS[of.window].duration_ms
        return np.asarray((created != ABSENT_TIME) & (created <= since_ms) & (_counts(context, of) > 0))

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        recent, ever = _counts(context, of), _counts(context, Counted(of.signals, ALL_TIME))
        held, among = recent[rows].astype(np.float64), ever[rows].astype(np.float64)
        smoothed = formulas.smoothed(held, among, float(recent.sum()), float(ever.sum()))
        scores = np.where(self.qualifying(context, of)[rows], smoothed, 0.0)
        return Scored(scores, {"recent": held, "all_time": among})


class CreatorPopularity(ByScore):
    """What all items of the creator have together: the signal's slowest decayed score."""

    name = "creator_popularity"

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        items = everything(context)
        scores = np.zeros(context.items, dtype=np.float64)
        for signal in of.signals:
            slowest = context.hot.schema.signal_list[signal].decay.scores[-1]
            scores += context.reads.decayed(signal, slowest, context.scope, items, context.at_ms)
        creators = context.hot.items.creator_column()
        # Items without a creator have the number −1: they count for nobody.
        sums = np.zeros(len(context.hot.items.creators) + 1, dtype=np.float64)
        np.add.at(sums, creators + 1, scores)
        sums[0] = 0.0
        return Scored(sums[creators[rows] + 1])


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
        return Scored(mixed(keys ^ np.uint64(context.seed & 0xFFFFFFFFFFFFFFFF)) / 2.0**64)


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


def mixed(keys: U64) -> U64:
    """SplitMix64's finaliser: u64[n] to u64[n], every input bit reaching every output bit."""
    with np.errstate(over="ignore"):
        keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _present_prior(counts: I64) -> Prior:
    """Without a past, an item is compared with what others have at the moment: the order of counts."""
    active = counts[counts > 0].astype(np.float64)
    return fit_prior(active, np.ones(len(active)))


def everything(context: Context) -> U32:
    """All rows, u32[items]."""
    return np.arange(context.items, dtype=np.uint32)


def _counts(context: Context, of: Counted) -> I64:
    """Events by item of all signals that are counted, i64[items]. Do not change it: it may be a kept sum."""
    return _total([context.reads.counts(each, of.window, context.scope) for each in of.signals], context)


def _counts_of(context: Context, role: str, window: str) -> I64:
    return _counts(context, Counted(_signals_of(context, role), window))


def _signals_of(context: Context, role: str) -> tuple[int, ...]:
    schema = context.hot.schema
    return tuple(schema.signal_index[name] for name in schema.roles[role])


def _votes(context: Context, of: Counted, rows: U32) -> tuple[F64, F64]:
    ups, downs = (_counts_of(context, role, of.window)[rows] for role in ("liked", "disliked"))
    return ups.astype(np.float64), downs.astype(np.float64)


def _total(columns: list[I64], context: Context) -> I64:
    if len(columns) == 1:
        return columns[0]
    return np.sum(columns, axis=0, dtype=np.int64) if columns else np.zeros(context.items, dtype=np.int64)


def _sum(columns: list[F64], rows: U32) -> F64:
    return np.sum(columns, axis=0) if columns else np.zeros(len(rows), dtype=np.float64)
