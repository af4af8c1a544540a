"""Accepted events of one source partition between the steps of the user shard: wids and numbers, no
strings.
"""

from __future__ import annotations

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

    def take(self, rows: npt.NDArray[np.generic]) -> Events:
        """The events at positions, or under a mask, ``rows``."""
        return Events(*(getattr(self, column.name)[rows] for column in fields(self)))


def join(parts: list[Events]) -> Events:
    """All events, ordered by offset; inside one offset as they came."""
    if len(parts) == 1:
        return parts[0]
    joined = Events(
        *(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(Events))
    )
    return joined.take(np.argsort(joined.offset, kind="stable"))
