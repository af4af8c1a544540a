"""The N-th newest time of a user, after each of many events: what a count over a sliding window needs.

Everything works on n events laid out by group (a user), inside a group in log order, so that a batch is a
handful of array operations. Groups whose times do not rise are few, and walked one event at a time.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]


class Newest(NamedTuple):
    """``values`` i64[n + groups, wanted]: the row ``starts[g] + k`` holds the wanted newest times of group g
    after the first k of its events. ``kept`` i64[groups, K]: the newest after all of them, newest first.
    """

    values: I64
    starts: I64
    kept: I64


def newest_after(prior: I64, group: I64, ts_ms: I64, wanted: Sequence[int]) -> Newest:
    """Insert events one after the other.

    Args:
        prior: i64[groups, K], times known before, newest first, padded with a time before all others.
        group: i64[n] in [0, groups), ascending. ts_ms: i64[n], in log order inside a group.
        wanted: which newest times to tell, each from 1 to K.
    """
    groups, kept = prior.shape
    counts = np.bincount(group, minlength=groups)
    ends = np.cumsum(counts)
    # Of each group, in order of time: what was known, then its events.
    base = np.arange(groups) * kept + ends - counts
    ordered = np.empty(groups * kept + len(ts_ms), dtype=np.int64)
    ordered[base[:, None] + np.arange(kept)] = prior[:, ::-1]
    ordered[np.arange(len(ts_ms)) + (group + 1) * kept] = ts_ms
    starts = np.arange(groups) + ends - counts
    owner = np.repeat(np.arange(groups), counts + 1)
    after = np.arange(len(owner)) - starts[owner]
    places = (base[owner] + kept + after)[:, None] - np.array(wanted, dtype=np.int64)
    found = Newest(
        ordered[places], starts, ordered[(base + kept + counts - 1)[:, None] - np.arange(kept)].copy()
    )
    for each in _falling(ordered, base, base + kept + counts):
        times = ts_ms[ends[each] - counts[each] : ends[each]]
        _walk(found, each, prior[each], times, wanted)
    return found


def _falling(ordered: I64, starts: I64, ends: I64) -> list[int]:
    """Groups whose times fall somewhere between ``starts`` and ``ends`` i64[groups]."""
    falls = np.flatnonzero(ordered[1:] < ordered[:-1])
    of_group = np.searchsorted(starts, falls, side="right") - 1
    inside = falls + 1 < ends[of_group]
    return np.unique(of_group[inside]).tolist()  # type: ignore[no-any-return]


def _walk(found: Newest, group: int, prior: I64, ts_ms: I64, wanted: Sequence[int]) -> None:
    times = prior[::-1].tolist()
    row = int(found.starts[group])
    for at_ms in ts_ms.tolist():
        insort(times, at_ms)
        del times[0]
        row += 1
        found.values[row] = [times[-nth] for nth in wanted]
    found.kept[group] = times[::-1]


def running_max(group: I64, values: I64) -> I64:
    """Of each event the largest value of its group up to it, itself included; ``group`` i64[n] ascending."""
    distinct, rank = np.unique(values, return_inverse=True)
    span = len(distinct)
    highest: I64 = distinct[np.maximum.accumulate(group * span + rank) - group * span]
    return highest


def sum_before(group: I64, values: I64) -> I64:
    """Of each event the sum of the values before it in its group; ``group`` i64[n] ascending."""
    if not len(group):
        return values.copy()
    before = np.cumsum(values) - values
    starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    lengths = np.diff(np.append(starts, len(group)))
    total: I64 = before - np.repeat(before[starts], lengths)
    return total
