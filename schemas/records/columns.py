"""Events as columns: the one form that every codec decodes to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class EventColumns:
    """n events; strings stand in a dictionary (once, unless said otherwise), each event holds their index.

    ``kinds``, ``items``, ``users`` are the dictionaries (a user ``""`` is anonymous); ``kind`` u16[n],
    ``item`` u32[n], ``user`` u32[n] index them. ``weight`` is i64[n] in micro-units, ``ts_ms`` i64[n].
    ``request_ids`` (``""`` = none) and ``contexts`` (JSON bytes, ``b""`` = none) are lists of n, or None
    when no event has one.
    """

    kinds: list[str]
    items: list[str]
    users: list[str]
    kind: U16
    item: U32
    user: U32
    weight: I64
    ts_ms: I64
    request_ids: list[str] | None = None
    contexts: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, rows: npt.NDArray[np.int64]) -> EventColumns:
        """The events at ``rows`` i64[m], in that order; dictionaries keep only what is used."""
        kinds, kind = _compact(self.kinds, self.kind[rows])
        items, item = _compact(self.items, self.item[rows])
        users, user = _compact(self.users, self.user[rows])
        picked = rows.tolist()
        return EventColumns(
            kinds=kinds,
            items=items,
            users=users,
            kind=kind.astype(np.uint16),
            item=item.astype(np.uint32),
            user=user.astype(np.uint32),
            weight=self.weight[rows],
            ts_ms=self.ts_ms[rows],
            request_ids=None if self.request_ids is None else [self.request_ids[row] for row in picked],
            contexts=None if self.contexts is None else [self.contexts[row] for row in picked],
        )


def no_events() -> EventColumns:
    """Columns of zero events."""
    return EventColumns(
        kinds=[],
        items=[],
        users=[],
        kind=np.empty(0, dtype=np.uint16),
        item=np.empty(0, dtype=np.uint32),
        user=np.empty(0, dtype=np.uint32),
        weight=np.empty(0, dtype=np.int64),
        ts_ms=np.empty(0, dtype=np.int64),
    )


def _compact(dictionary: list[str], index: U16 | U32) -> tuple[list[str], npt.NDArray[np.intp]]:
    used, compacted = np.unique(index, return_inverse=True)
    return [dictionary[entry] for entry in used.tolist()], compacted
