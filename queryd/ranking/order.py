"""The one order of results: score descending, then id ascending by code point; no tie is left to chance."""

from __future__ import annotations

import numpy as np

from queryd.hot.arrays import F64, I64, U32, Mask, edges
from queryd.hot.ordinals import ORDER_WORDS, Ordinals


def top(ordinals: U32, scores: F64, k: int, ids: Ordinals) -> I64:
    """Positions i64[min(k, n)] of the ``k`` best of n candidates, in the order of results.

    Costs one partition of the scores; only candidates tied at the threshold are compared by id.
    """
    count = len(ordinals)
    if k <= 0 or count == 0:
        return np.zeros(0, dtype=np.int64)
    chosen = np.arange(count) if count <= k else _best(ordinals, scores, k, ids)
    return chosen[_ordering(ordinals[chosen], scores[chosen], ids)]


def _best(ordinals: U32, scores: F64, k: int, ids: Ordinals) -> I64:
    count = len(scores)
    threshold = np.partition(scores, count - k)[count - k]
    above = np.flatnonzero(scores > threshold)
    tied = np.flatnonzero(scores == threshold)
    return np.concatenate([above, tied[smallest_ids(ordinals[tied], k - len(above), ids)]])


def smallest_ids(ordinals: U32, k: int, ids: Ordinals) -> I64:
    """Positions i64[min(k, n)] of the ``k`` ordinals with the smallest ids, in no particular order."""
    remaining = np.arange(len(ordinals) if k > 0 else 0)
    taken: list[I64] = []
    for word in range(ORDER_WORDS):
        if len(remaining) <= k:
            break
        column = ids.words[ordinals[remaining], word]
        threshold = np.partition(column, k - 1)[k - 1]
        below = remaining[column < threshold]  # fewer than k: the k-th is the threshold
        taken.append(below)
        k -= len(below)
        remaining = remaining[column == threshold]
    if len(remaining) > k:  # ids that share their first 32 bytes
        remaining = _by_id(remaining, ordinals, ids)[:k]
    return np.concatenate([*taken, remaining])


def _ordering(ordinals: U32, scores: F64, ids: Ordinals) -> I64:
    words = ids.words[ordinals]
    order = np.lexsort((*words.T[::-1], -scores))  # the last key counts first
    held, spelt = scores[order], words[order]
    same: Mask = (held[1:] == held[:-1]) & (spelt[1:] == spelt[:-1]).all(axis=1)
    if same.any():
        _sort_runs_by_id(order, same, ordinals, ids)
    return order


def _sort_runs_by_id(order: I64, same: Mask, ordinals: U32, ids: Ordinals) -> None:
    """In place, each run that score and the first 32 bytes leave tied: ``same`` bool[n − 1], as the next."""
    bounds = edges(same).tolist()
    for start, stop in zip(bounds[::2], bounds[1::2], strict=True):
        order[start : stop + 1] = _by_id(order[start : stop + 1], ordinals, ids)


def _by_id(positions: I64, ordinals: U32, ids: Ordinals) -> I64:
    """The positions, by the whole ids of what they stand for."""
    return np.array(sorted(positions.tolist(), key=lambda position: ids.ids[int(ordinals[position])]))
