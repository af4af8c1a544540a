"""Limits of a page by group: what exceeds one is demoted to the end, in its order, and never lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from queryd.hot.arrays import I32, I64

_NO_GROUP = -1


def demote(order: I64, groups: Sequence[tuple[I32, int, Counter[int]]], k: int) -> I64:
    """The first ``k`` of ``order`` after demoting what exceeds a limit.

    Args:
        order: candidate positions i64[n], best first.
        groups: for each rule the group of every candidate i32[candidates] (−1 = none, never limited), the
            most that one group may have, and how many it has on earlier pages (not changed).

    Greedy: walking down the order, a candidate that would exceed any limit is set aside; those set aside
    follow after all others. So a limit reorders a page and never makes it shorter.
    """
    counts = [Counter(had) for _, _, had in groups]
    kept: list[int] = []
    demoted: list[int] = []
    for position in order.tolist():
        held = [int(group[position]) for group, _, _ in groups]
        full = any(
            value != _NO_GROUP and count[value] >= most
            for value, count, (_, most, _) in zip(held, counts, groups, strict=True)
        )
        if full:
            demoted.append(position)
            continue
        for value, count in zip(held, counts, strict=True):
            count[value] += 1
        kept.append(position)
        if len(kept) == k:
            break
    return np.array((kept + demoted)[:k], dtype=np.int64)
