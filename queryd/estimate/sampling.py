"""A sample of cells of which the truth is counted: every item's joint over the classes of a cohort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from queryd.hot.arrays import F64, I64, U8
from queryd.hot.cells import Cells
from queryd.hot.windows import BucketRange

SAMPLE_CELLS: Final = 131_072
"""Two to four milliseconds of work."""
_HOURS_IN_DAY: Final = 24
_TURN: Final = 7  # hours: has no divisor in common with a day's 24, so that all times of day come up


@dataclass(frozen=True, slots=True)
class Sample:
    """Events of a sample.

    ``pooled`` f64[cells] are all of them by cell of the table, ``joint`` f64[cells, k] those of k items.
    """

    pooled: F64
    joint: F64


def spread(wanted: BucketRange, hours_max: int) -> list[BucketRange]:
    """About ``hours_max`` of the hours of a range: a stretch of each day, at another time of day each day."""
    first, last = wanted.low // _HOURS_IN_DAY, wanted.high // _HOURS_IN_DAY
    step = max(1, -(-(last - first + 1) // hours_max))
    days = range(first, last + 1, step)
    length = max(1, hours_max // len(days))
    parts = []
    for place, day in enumerate(days):
        low = max(wanted.low, day * _HOURS_IN_DAY)
        high = min(wanted.high, (day + 1) * _HOURS_IN_DAY - 1)
        start = low + (place * _TURN) % max(1, high - low + 2 - length)
        parts.append(BucketRange(False, start, min(high, start + length - 1)))
    return parts


def thinned(parts: Sequence[Cells], cells_max: int) -> list[Cells]:
    """Every so many-th cell, so that about ``cells_max`` are left."""
    total = sum(len(part) for part in parts)
    step = -(-total // cells_max) if total else 1
    if step == 1:
        return list(parts)
    taken = []
    begin = 0
    for part in parts:
        taken.append(part.take(np.arange(begin, len(part), step)))
        begin = (begin - len(part)) % step
    return [part for part in taken if len(part)]


def counted(parts: Sequence[Cells], codes: U8, cells: int, rows: I64, items: int) -> Sample:
    """The joints of the items ``rows`` i64[k] over a table of ``cells`` cells, and everybody's.

    Args:
        codes: the table's cell of each profile, u8[profiles].
        items: number of items, all ordinals are below it.
    """
    place = np.full(items, -1, dtype=np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    pooled = np.zeros(cells, dtype=np.float64)
    joint = np.zeros(cells * len(rows), dtype=np.float64)
    for part in parts:
        assert part.profile is not None, "cells by profile"
        code = codes[part.profile]
        pooled += np.bincount(code, part.count, cells)
        of_row = place[part.item]
        held = np.flatnonzero(of_row >= 0)
        joint += np.bincount(
            code[held].astype(np.int64) * len(rows) + of_row[held], part.count[held], len(joint)
        )
    return Sample(pooled, joint.reshape(cells, len(rows)))
