"""Rows that are events, but ones that the engine refuses: they go to the log as they are.

A row with a bad time is part of the data. Published as JSON it is refused by the engine, stands in
`tidal.dead-letter` with its reason, and can be sent again by `tidal dlq redrive` after a fix.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.model import Limits
from tidal.publishing import RawEvent

JSON_INT_MAX: Final = 2**63 - 1
UTF8_BYTES_MAX: Final = 4


class EventBounds(NamedTuple):
    """What the engine takes of events published now: times in ms, both ends included, and bytes of an id."""

    first_ms: int
    last_ms: int
    id_bytes_max: int

    @classmethod
    def of(cls, limits: Limits) -> EventBounds:
        """The bounds of a schema's limits at this moment."""
        last_ms = time.time_ns() // 1_000_000 + limits.future_skew_ms
        return cls(limits.ts_ms_min, last_ms, limits.max_id_bytes)

    def hold_times(self, ts_ms: npt.NDArray[np.int64]) -> bool:
        """Whether all times i64[n] lie inside."""
        return not len(ts_ms) or bool(ts_ms.min() >= self.first_ms and ts_ms.max() <= self.last_ms)

    def hold_ids(self, ids: Sequence[str]) -> bool:
        """Whether no id is empty or may be too long; one of many characters outside ASCII is looked at."""
        if not all(ids):
            return False
        longest = max(map(len, ids), default=0)
        return longest * UTF8_BYTES_MAX <= self.id_bytes_max or all(
            len(each.encode()) <= self.id_bytes_max for each in ids
        )

    def fault(self, item: str, user: str, ts_ms: int) -> str:
        """Why the engine will refuse an event; empty if it will not."""
        if not self.first_ms <= ts_ms <= self.last_ms:
            return f"{ts_ms} ms is a time that cannot be right"
        for name, text in (("item", item), ("user", user)):
            if len(text.encode()) > self.id_bytes_max:
                return f"{name} id of {len(text.encode())} bytes; {self.id_bytes_max} are allowed"
        return ""


class OddRow(NamedTuple):
    """A row that is an event which the engine will refuse."""

    line: int
    reason: str
    event: RawEvent


def raw_event(kind: str, item: str, user: str, ts: int | str, weight: float | None = None) -> RawEvent:
    """The event as JSON under its own key; `ts` in ms, or the text that should have been a time."""
    event: dict[str, Any] = {"kind": kind, "item": item}
    if user:
        event["user"] = user
    if weight is not None:
        event["weight"] = weight
    event["ts"] = str(ts) if isinstance(ts, int) and abs(ts) > JSON_INT_MAX else ts
    return RawEvent((user or item).encode(), msgspec.json.encode(event))
