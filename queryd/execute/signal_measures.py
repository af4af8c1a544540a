"""Measures of one signal, which SIGNAL or a profile chooses: how much, how fast, how unusual."""

from __future__ import annotations

import numpy as np

from queryd.execute.context import Context
from queryd.execute.measure import ByCount, ByScore, Counted, Scored, counts_by_item, everything
from queryd.hot.arrays import F64, I64, U32, Mask
from queryd.hot.fields import ABSENT_TIME
from queryd.hot.history import PastSums
from queryd.ranking import formulas
from queryd.ranking.relative import WINDOWS_MIN, Prior, fit_prior, relative
from schemas.durations import ALL_TIME, HOUR_MS, WINDOWS


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
        return counts_by_item(context, of) > 0

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        all_counts = counts_by_item(context, of)
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


class Hacker:
    """Points over age; 0 for an item without created_at."""

    name = "hacker"

    def qualifying(self, context: Context, of: Counted) -> Mask:
        return counts_by_item(context, of) > 0

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        created = context.hot.items.created_column()[rows]
        known = created != ABSENT_TIME
        age_h = np.where(known, context.at_ms - created, 0) / HOUR_MS
        points = counts_by_item(context, of)[rows].astype(np.float64)
        scores = np.where(known, formulas.hacker(points, age_h), 0.0)
        return Scored(scores, {"points": points, "age_hours": age_h})


class Evergreen:
    """Share of all events of an item that lie in the window, smoothed; only of items older than the window,
    since everything that a younger one ever had is recent."""

    name = "evergreen"

    def qualifying(self, context: Context, of: Counted) -> Mask:
        created = context.hot.items.created_column()
        since_ms = context.at_ms - WINDOWS[of.window].duration_ms
        return np.asarray(
            (created != ABSENT_TIME) & (created <= since_ms) & (counts_by_item(context, of) > 0)
        )

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        recent, ever = counts_by_item(context, of), counts_by_item(context, Counted(of.signals, ALL_TIME))
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


def _present_prior(counts: I64) -> Prior:
    """Without a past, an item is compared with what others have at the moment: the order of counts."""
    active = counts[counts > 0].astype(np.float64)
    return fit_prior(active, np.ones(len(active)))


def _sum(columns: list[F64], rows: U32) -> F64:
    return np.sum(columns, axis=0) if columns else np.zeros(len(rows), dtype=np.float64)
