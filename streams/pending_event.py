"""One event between `publish` and its record: checked, in fixed point, with the future of its caller.

The checks are those that the log's readers make; making them here gives the caller the error instead of the
dead-letter topic. A lone surrogate is refused too: it has no UTF-8 form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from schemas.errors import RecordError, shown
from schemas.model import Limits, Schema
from schemas.records.columns import EventColumns
from schemas.weights import WEIGHT_MAX, WEIGHT_SCALE
from streams.settled import Settled

# What one pending event takes in memory besides its texts: the tuple, its numbers, its future.
EVENT_OVERHEAD_BYTES = 256
TS_MS_MAX = 2**63 - 1


class PendingEvent(NamedTuple):
    """An accepted event. `weight_micro` in micro-units; `request_id` and `context` are empty when absent."""

    kind: str
    item: str
    user: str
    weight_micro: int
    ts_ms: int
    request_id: str
    context: bytes
    cost_bytes: int
    accepted_s: float
    future: Settled

    @property
    def key(self) -> str:
        """What decides the partition: the user, or the item of an anonymous event."""
        return self.user or self.item


class EventRules:
    """What an event must satisfy. Without a schema any kind is accepted here and judged by the reader."""

    def __init__(self, schema: Schema | None, record_bytes_max: int) -> None:
        self._limits = Limits() if schema is None else schema.limits
        self._signals = None if schema is None else schema.signals
        self._record_bytes_max = record_bytes_max

    def accept(
        self,
        kind: str,
        item: str,
        user: str | None,
        weight: float,
        ts: int | None,
        request_id: str | None,
        context: Mapping[str, Any] | None,
        *,
        now_ms: int,
        accepted_s: float,
        future: Settled,
    ) -> PendingEvent:
        """The event in its internal form; raises RecordError naming the field that is wrong."""
        self._check_kind(kind)
        self.check_id("item", item)
        if user is not None:
            self.check_id("user", user)
        if request_id is not None:
            self.check_id("request_id", request_id)
        encoded = b"" if context is None else self._encode_context(context)
        cost_bytes = EVENT_OVERHEAD_BYTES + len(kind) + len(item) + len(user or "") + len(encoded)
        return PendingEvent(
            kind,
            item,
            user or "",
            self._checked_micro(kind, weight),
            now_ms if ts is None else self._checked_ts(ts, now_ms),
            request_id or "",
            encoded,
            cost_bytes,
            accepted_s,
            future,
        )

    def check_id(self, path: str, value: object) -> None:
        """Raises RecordError unless `value` is 1 to `max_id_bytes` bytes of UTF-8."""
        if not isinstance(value, str):
            raise RecordError("wrong_type", path, f"must be a string, not {shown(value)}")
        if not value:
            raise RecordError("id_empty", path, f"must be 1 to {self._limits.max_id_bytes} bytes, is empty")
        if value.isascii() and len(value) <= self._limits.max_id_bytes:
            return
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            raise RecordError("wrong_type", path, f"{shown(value)} is not valid Unicode text") from error
        if size > self._limits.max_id_bytes:
            raise RecordError(
                "id_too_long", path, f"must be 1 to {self._limits.max_id_bytes} bytes of UTF-8, is {size}"
            )

    def check_columns(self, columns: EventColumns, now_ms: int) -> None:
        """Raises RecordError for a rule that the batch breaks, ValueError for arrays that do not fit."""
        _check_shapes(columns)
        for kind in columns.kinds:
            self._check_kind(kind)
        for item in columns.items:
            self.check_id("item", item)
        for user in columns.users:
            if user:
                self.check_id("user", user)
        if not len(columns):
            return
        self._check_weights(columns)
        self._checked_ts(int(columns.ts_ms.min()), now_ms)
        self._checked_ts(int(columns.ts_ms.max()), now_ms)

    def _check_kind(self, kind: object) -> None:
        if self._signals is None:
            self.check_id("kind", kind)
        elif not isinstance(kind, str) or kind not in self._signals:
            raise RecordError(
                "unknown_kind",
                "kind",
                f"{shown(kind)} is no signal of the schema: {', '.join(self._signals)}",
            )

    def _checked_micro(self, kind: str, weight: object) -> int:
        if not isinstance(weight, (int, float)) or isinstance(weight, bool):
            raise RecordError("wrong_type", "weight", f"must be a number, not {shown(weight)}")
        if not math.isfinite(weight):
            raise RecordError("non_finite_weight", "weight", f"must be finite, is {weight}")
        low, high = self._weight_range(kind)
        if not low <= weight <= high:
            raise _weight_out_of_range(kind, weight, low, high)
        return round(weight * WEIGHT_SCALE)

    def _weight_range(self, kind: str) -> tuple[float, float]:
        declared = None if self._signals is None else self._signals[kind].value_range
        return declared or (-WEIGHT_MAX, WEIGHT_MAX)

    def _check_weights(self, columns: EventColumns) -> None:
        for index, kind in enumerate(columns.kinds):
            weights = columns.weight[columns.kind == index]
            if not len(weights):
                continue
            low, high = self._weight_range(kind)
            for micro in (int(weights.min()), int(weights.max())):
                if not round(low * WEIGHT_SCALE) <= micro <= round(high * WEIGHT_SCALE):
                    raise _weight_out_of_range(kind, micro / WEIGHT_SCALE, low, high)

    def _checked_ts(self, ts: object, now_ms: int) -> int:
        if not isinstance(ts, int) or isinstance(ts, bool):
            raise RecordError("wrong_type", "ts", f"must be whole milliseconds since 1970, not {shown(ts)}")
        if not self._limits.ts_ms_min <= ts <= TS_MS_MAX:
            raise RecordError(
                "timestamp_out_of_range", "ts", f"must be at least {self._limits.ts_ms_min} ms, is {ts}"
            )
        if ts > now_ms + self._limits.future_skew_ms:
            raise RecordError(
                "timestamp_in_future",
                "ts",
                f"{ts} is {ts - now_ms} ms ahead of the clock; {self._limits.future_skew_ms} are allowed",
            )
        return ts

    def _encode_context(self, context: object) -> bytes:
        if not isinstance(context, Mapping):
            raise RecordError("wrong_type", "context", f"must be an object, not {shown(context)}")
        try:
            encoded = msgspec.json.encode(context)
        except (TypeError, ValueError, UnicodeEncodeError, RecursionError) as error:
            raise RecordError("wrong_type", "context", f"cannot be written as JSON: {error}") from error
        if len(encoded) > self._record_bytes_max // 2:
            raise RecordError(
                "wrong_type",
                "context",
                f"must be at most {self._record_bytes_max // 2} bytes of JSON, is {len(encoded)}",
            )
        return encoded


def columns_of(events: Sequence[PendingEvent]) -> EventColumns:
    """The events as columns, in their order; each distinct text once."""
    kinds: dict[str, int] = {}
    items: dict[str, int] = {}
    users: dict[str, int] = {}
    count = len(events)
    return EventColumns(
        kind=np.fromiter((kinds.setdefault(e.kind, len(kinds)) for e in events), np.uint16, count),
        item=np.fromiter((items.setdefault(e.item, len(items)) for e in events), np.uint32, count),
        user=np.fromiter((users.setdefault(e.user, len(users)) for e in events), np.uint32, count),
        weight=np.fromiter((e.weight_micro for e in events), np.int64, count),
        ts_ms=np.fromiter((e.ts_ms for e in events), np.int64, count),
        kinds=list(kinds),
        items=list(items),
        users=list(users),
        request_ids=[e.request_id for e in events] if any(e.request_id for e in events) else None,
        contexts=[e.context for e in events] if any(e.context for e in events) else None,
    )


def _weight_out_of_range(kind: str, weight: float, low: float, high: float) -> RecordError:
    return RecordError(
        "weight_out_of_range", "weight", f"must be {low:g} to {high:g} for {kind!r}, is {weight:g}"
    )


def _check_shapes(columns: EventColumns) -> None:
    count = len(columns)
    for name in ("item", "user", "weight", "ts_ms"):
        found = len(getattr(columns, name))
        if found != count:
            raise ValueError(
                f"{name} has {found} entries, kind has {count}; every column has one for each event"
            )
    for name, dictionary in (("kind", columns.kinds), ("item", columns.items), ("user", columns.users)):
        highest = int(getattr(columns, name).max(initial=0)) if count else -1
        if highest >= len(dictionary):
            raise ValueError(f"{name} has index {highest}, its dictionary {len(dictionary)} entries")
    for name in ("request_ids", "contexts"):
        values = getattr(columns, name)
        if values is not None and len(values) != count:
            raise ValueError(f"{name} has {len(values)} entries, kind has {count}")
