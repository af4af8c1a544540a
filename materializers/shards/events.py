"""Accepted events of one source partition between the steps of the user shard: wids and numbers, no
strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class Events:
    """n events. ``item`` and ``user`` are wids, ``signal`` the dense index, ``offset`` that of the source
    record, ``record_ts_ms`` the log's time at which the event was first acknowledged.
    """

    item: U32
    user: U32
    signal: U16
    weight: I64
    ts_ms: I64
    record_ts_ms: I64
    offset: I64

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: npt.NDArray[np.generic] | slice) -> Events:
        """The events at positions, or under a mask, ``rows``; of a slice the columns are views."""
        return Events(
            self.item[rows],
            self.user[rows],
            self.signal[rows],
            self.weight[rows],
            self.ts_ms[rows],
            self.record_ts_ms[rows],
            self.offset[rows],
        )


def concatenate(parts: Sequence[Events]) -> Events:
    """All events, part after part; at least one part."""
    if len(parts) == 1:
        return parts[0]
    return Events(
        *(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(Events))
    )


def join(parts: Sequence[Events]) -> Events:
    """All events, ordered by offset; inside one offset as they came."""
    joined = concatenate(parts)
    return joined if len(parts) == 1 else joined.take(np.argsort(joined.offset, kind="stable"))


def no_events() -> Events:
    """Zero events."""
    nothing = np.empty(0, dtype=np.int64)
    return Events(
        item=nothing.astype(np.uint32),
        user=nothing.astype(np.uint32),
        signal=nothing.astype(np.uint16),
        weight=nothing,
        ts_ms=nothing,
        record_ts_ms=nothing,
        offset=nothing,
    )
