"""The one order of results: score descending, then id ascending by code point; no tie is left to chance."""

from __future__ import annotations

import numpy as np

from queryd.hot.arrays import F64, I64, U32, U64
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
    remaining = np.arange(len(ordinals))
    taken: list[I64] = []
    for word in range(ORDER_WORDS):
        if len(remaining) <= k:
            break
        column = ids.words[ordinals[remaining], word]
        threshold = np.partition(column, k - 1)[k - 1] if k > 0 else np.uint64(0)
        below = remaining[column < threshold] if k > 0 else remaining[:0]
        taken.append(below)
        k -= len(below)
        remaining = remaining[column == threshold] if k > 0 else remaining[:0]
    if len(remaining) > k:  # ids that share their first 32 bytes
        by_id = sorted(remaining.tolist(), key=lambda position: ids.ids[int(ordinals[position])])
        remaining = np.array(by_id[:k], dtype=np.int64)
    return np.concatenate([*taken, remaining])


def _ordering(ordinals: U32, scores: F64, ids: Ordinals) -> I64:
    words = ids.words[ordinals]
    order = np.lexsort((words[:, 3], words[:, 2], words[:, 1], words[:, 0], -scores))
    same = (np.diff(scores[order]) == 0) & _equal_rows(words[order])
    return _by_whole_id(order, same, ordinals, ids) if same.any() else order


def _equal_rows(words: U64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray((words[1:] == words[:-1]).all(axis=1))


def _by_whole_id(
    order: I64, same: np.ndarray[tuple[int], np.dtype[np.bool_]], ordinals: U32, ids: Ordinals
) -> I64:
    """Sort each run that score and the first 32 bytes leave tied by the whole id."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        run = order[start : stop + 1].tolist()
        order[start : stop + 1] = sorted(run, key=lambda position: ids.ids[int(ordinals[position])])
    return order
