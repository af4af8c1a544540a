"""Order inside one key, none across keys: round k applies the k-th event of every key at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from materializers.grouping import Groups, composite_key

I64 = npt.NDArray[np.int64]


@dataclass(slots=True, frozen=True)
class Rounds:
    """n events of m keys laid out by round.

    ``keys`` i64[m] are ordered by falling number of events, so the keys with a k-th event are the first
    ones; ``events`` i64[n] are positions in the batch, those of round 0 first, inside a round in the order
    of ``keys``; ``rank`` i64[n] is the round of each; ``sizes`` i64[rounds] says how many keys each has.
    """

    keys: I64
    counts: I64
    events: I64
    rank: I64
    sizes: I64

    def __iter__(self) -> Iterator[tuple[int, slice]]:
        """For each round the number of keys that take part, and its part of ``events``."""
        start = 0
        for size in self.sizes.tolist():
            yield size, slice(start, start + size)
            start += size


def rounds_of(keys: I64) -> Rounds:
    """Rounds of a batch in log order; ``keys`` i64[n], non-negative."""
    groups = Groups(keys)
    counts = groups.counts
    if len(counts) == len(keys):  # few events, or users with one each: one round in the order of the keys
        alone = np.zeros(len(keys), dtype=np.int64)
        return Rounds(groups.keys, counts, groups.order, alone, counts[:1] * len(keys))
    by_count = np.argsort(-counts, kind="stable")
    position = np.empty(len(counts), dtype=np.int64)
    position[by_count] = np.arange(len(counts))
    rank = groups.ranks()
    events = np.argsort(composite_key([rank, position[groups.group_of_rows()]]))
    ordered = rank[events]
    sizes = np.bincount(ordered) if len(ordered) else np.empty(0, dtype=np.int64)
    return Rounds(groups.keys[by_count], counts[by_count], events, ordered, sizes)
