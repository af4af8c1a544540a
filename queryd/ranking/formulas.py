"""The arithmetic of the sort modes: columns in, a column of scores out.

Counts are f64[n] and not negative; ``ups`` and ``downs`` are events that speak for and against an item.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from queryd.hot.arrays import F64

HOT_EPOCH_S: Final = 1_134_028_003
"""What ages are counted from: any fixed time gives the same order."""
_HOT_DECADE_S: Final = 45_000
WILSON_Z: Final = 1.281551565545
"""80 % of a normal distribution lies within it."""
PRIOR_EVENTS: Final = 10.0
"""How many events of the average item a smoothed mean or rate begins with."""


def hot(ups: F64, downs: F64, created_s: F64) -> F64:
    """sign(s)·log10(max(|s|, 1)) + (created − epoch)/45000, s = ups − downs: ten times the votes outweigh
    twelve and a half hours (the front page of reddit, 2008 to 2017)."""
    balance = ups - downs
    votes = np.sign(balance) * np.log10(np.maximum(np.abs(balance), 1.0))
    score: F64 = votes + (created_s - HOT_EPOCH_S) / _HOT_DECADE_S
    return score


def hacker(points: F64, age_h: F64) -> F64:
    """(points − 1)^0.8 / (age + 2)^1.8, age in hours (news.arc of Hacker News); 0 for fewer than two."""
    score: F64 = np.maximum(points - 1.0, 0.0) ** 0.8 / (np.maximum(age_h, 0.0) + 2.0) ** 1.8
    return score


def wilson_lower(ups: F64, downs: F64) -> F64:
    """Lower bound of the share of ups, 0..1; 0 without a vote.

    E. B. Wilson: Probable inference, the law of succession, and statistical inference. JASA 22 (1927).
    """
    votes = ups + downs
    held = np.maximum(votes, 1.0)
    share, square = ups / held, WILSON_Z**2
    spread = WILSON_Z * np.sqrt((share * (1.0 - share) + square / (4.0 * held)) / held)
    bound = (share + square / (2.0 * held) - spread) / (1.0 + square / held)
    return np.where(votes > 0, np.maximum(bound, 0.0), 0.0)


def controversy(ups: F64, downs: F64) -> F64:
    """(ups + downs)^(fewer/more): many votes, evenly split; 0 unless there are both."""
    fewer, more = np.minimum(ups, downs), np.maximum(ups, downs)
    balance = np.divide(fewer, more, out=np.zeros(len(ups)), where=more > 0)
    return np.where(fewer > 0, (ups + downs) ** balance, 0.0)


def smoothed(amounts: F64, counts: F64, all_amounts: float, all_counts: float) -> F64:
    """(w·A/C + amount) / (w + count), w = 10: an item's mean over its events and ten of the average item.

    A and C are the totals that the average is of; 0 where nobody had anything.
    """
    average = all_amounts / all_counts if all_counts else 0.0
    mean: F64 = (PRIOR_EVENTS * average + amounts) / (PRIOR_EVENTS + counts)
    return mean


def smoothed_rate(clicks: F64, impressions: F64, all_clicks: float, all_impressions: float) -> F64:
    """(w + clicks) / (w·I/C + impressions), w = 10 clicks of the average item, whose rate is C/I.

    With 10 clicks in 100 impressions overall, one click of two makes 11/102 = 10.78 %. 0 where C or I is: of
    what was never shown there is no rate, whatever was clicked.
    """
    if not all_clicks or not all_impressions:
        return np.zeros(len(clicks), dtype=np.float64)
    rate: F64 = (PRIOR_EVENTS + clicks) / (PRIOR_EVENTS * all_impressions / all_clicks + impressions)
    return rate


def hidden(quality: F64, exposures: F64) -> F64:
    """quality / log2(2 + exposures): each doubling of its exposure takes its share of what an item is worth
    as a discovery."""
    score: F64 = quality / np.log2(2.0 + exposures)
    return score
