"""The items that lead a column of counts, without sorting or even listing the rest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from queryd.hot.arrays import I64, Counts, Mask

_SAMPLE = 4_096
_LISTED_MAX = 8_192
_SPARE = 2.0
_KEPT_MAX = 16_384


class Leaders(NamedTuple):
    """``rows`` i64[n] ascending: all that may be among the best; ``total`` that qualify."""

    rows: I64
    total: int


class KeptLeaders:
    """The leaders of a column, and for who asks again what was found out about it.

    Args:
        counts: int[items], which stay as they are.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._positive: Mask = counts > 0
        self._reaching: I64 | None = None

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def nbytes(self) -> int:
        """Bytes held besides the column's."""
        return int(self._positive.nbytes) + (0 if self._reaching is None else int(self._reaching.nbytes))

    def among(self, allowed: Mask, wanted: int) -> Leaders:
        """The items with a count of bool[items], restricted to a superset of the ``wanted`` largest with all
        their ties.

        A sample gives a threshold that somewhat more than ``wanted`` counts should reach; it is lowered until
        they do. So a million items cost a few passes over bytes and not a partition of the column.
        """
        qualifying = self._positive & allowed
        total = int(np.count_nonzero(qualifying))
        if total <= max(_LISTED_MAX, wanted):
            return Leaders(np.flatnonzero(qualifying), total)
        if self._reaching is not None:
            rows = self._reaching[allowed.take(self._reaching)]
            if len(rows) >= wanted:
                return Leaders(rows, total)
        threshold = _threshold(self._counts, qualifying, wanted)
        while threshold > 1:
            reaching = np.flatnonzero(self._counts >= threshold)
            if len(reaching) <= _KEPT_MAX:
                self._reaching = reaching
            rows = reaching[allowed.take(reaching)]
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
