"""The items that lead a column of counts, without sorting or even listing the rest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from queryd.hot.arrays import I64, Counts, Mask

_SAMPLE = 4_096
_LISTED_MAX = 8_192
_SPARE = 2.0


class Leaders(NamedTuple):
    """``rows`` i64[n] ascending: all that may be among the best; ``total`` that qualify."""

    rows: I64
    total: int


def leaders(counts: Counts, allowed: Mask, wanted: int) -> Leaders:
    """The allowed items with a count, restricted to a superset of the ``wanted`` largest with all their ties.

    A sample gives a threshold that somewhat more than ``wanted`` counts should reach; it is lowered until
    they do. So a million items cost three passes over bytes and not a partition of the column.

    Args:
        counts: int[items]. allowed: bool[items].
    """
    qualifying = counts > 0
    qualifying &= allowed
    total = int(np.count_nonzero(qualifying))
    if total <= max(_LISTED_MAX, wanted):
        return Leaders(np.flatnonzero(qualifying), total)
    threshold = _threshold(counts, qualifying, wanted)
    while threshold > 1:
        reaching = counts >= threshold
        reaching &= qualifying
        rows = np.flatnonzero(reaching)
        if len(rows) >= wanted:
            return Leaders(rows, total)
        threshold //= 2
    return Leaders(np.flatnonzero(qualifying), total)


def _threshold(counts: Counts, qualifying: Mask, wanted: int) -> int:
    every = max(1, len(counts) // _SAMPLE)
    sample = counts[::every][qualifying[::every]]
    rank = int(wanted * _SPARE / every) + 4
    if rank >= len(sample):
        return 1
    return int(np.partition(sample, len(sample) - rank)[len(sample) - rank])
