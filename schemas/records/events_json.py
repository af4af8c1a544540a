"""Events as JSON: one event a record, or an array of them.

The typed decoder reads whole batches; only when it refuses one is each record (or element) read by itself,
and only what is refused there is looked at in Python, to say exactly what is wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from schemas.errors import RecordError, shown
from schemas.records.columns import I64, EventColumns
from schemas.records.dictionary import as_dictionary, to_dictionary
from schemas.weights import WEIGHT_MAX, to_micro

_NO_CONTEXT: Final = msgspec.Raw()
_NULL: Final = b"null"
_TS_MAX: Final = 2**63 - 1


class JsonEvent(msgspec.Struct, gc=False):
    """One event as it stands in JSON; keys that are not listed are ignored."""

    kind: str
    item: str
    user: str | None = None
    weight: float = 1.0
    ts: int | None = None
    request_id: str | None = None
    context: msgspec.Raw = _NO_CONTEXT


# What a decoder raises for bytes that are not what it wants. RecursionError: JSON nested 1,000 deep.
REFUSALS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_decode_event = msgspec.json.Decoder(JsonEvent).decode
_decode_events = msgspec.json.Decoder(list[JsonEvent]).decode
_decode_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


class JsonEvents:
    """Events read from JSON: ``record[i]`` and ``position[i]`` (-1 = alone in its record) say where event i
    stood; ``refused`` holds ``(record, position, error, raw bytes)`` of what could not be read."""

    def __init__(self) -> None:
        self.events: list[JsonEvent] = []
        self.record: list[int] = []
        self.position: list[int] = []
        self.refused: list[tuple[int, int, RecordError, bytes]] = []

    def read_events(self, records: Sequence[int], values: Sequence[bytes]) -> None:
        """One event in each value."""
        try:
            events = list(map(_decode_event, values))
        except REFUSALS:
            self._read_one_by_one(records, values)
            return
        self.events += events
        self.record += records
        self.position += [-1] * len(events)

    def read_array(self, record: int, value: bytes) -> None:
        """An array of events; a bad one does not spoil the others."""
        try:
            events = _decode_events(value)
        except REFUSALS:
            self._read_elements(record, value)
            return
        self.events += events
        self.record += [record] * len(events)
        self.position += range(len(events))

    def _read_one_by_one(self, records: Sequence[int], values: Sequence[bytes]) -> None:
        for record, value in zip(records, values, strict=True):
            self._read_one(record, -1, value)

    def _read_elements(self, record: int, value: bytes) -> None:
        try:
            elements = _decode_elements(value)
        except REFUSALS:
            self.refused.append((record, -1, diagnosis(value), value))
            return
        for position, element in enumerate(elements):
            self._read_one(record, position, bytes(element))

    def _read_one(self, record: int, position: int, value: bytes) -> None:
        try:
            event = _decode_event(value)
        except REFUSALS:
            self.refused.append((record, position, diagnosis(value), value))
            return
        self.events.append(event)
        self.record.append(record)
        self.position.append(position)


def element_bytes(value: bytes, position: int) -> bytes:
    """The bytes of one element of an array that is known to be one."""
    return bytes(_decode_elements(value)[position])


def event_columns(events: Sequence[JsonEvent], default_ts_ms: I64, *, compact: bool = True) -> EventColumns:
    """Columns of events; ``default_ts_ms`` i64[n] stands in where an event has no time.

    Unless ``compact``, items and users stand as often in their dictionaries as in the events.

    Weights and times beyond any limit are clipped to just beyond it: the caller refuses them.
    """
    kinds, kind = to_dictionary([event.kind for event in events])
    dictionary = to_dictionary if compact else as_dictionary
    items, item = dictionary([event.item for event in events])
    users, user = dictionary([event.user or "" for event in events])
    weights = np.array([event.weight for event in events], dtype=np.float64)
    return EventColumns(
        kinds=kinds,
        items=items,
        users=users,
        kind=kind.astype(np.uint16),
        item=item.astype(np.uint32),
        user=user.astype(np.uint32),
        weight=to_micro(np.clip(weights, -WEIGHT_MAX - 1, WEIGHT_MAX + 1)),
        ts_ms=_times([event.ts for event in events], default_ts_ms),
        request_ids=_request_ids(events),
        contexts=_contexts(events),
    )


def _times(times: list[int | None], default_ts_ms: I64) -> I64:
    if None in times:
        given = zip(times, default_ts_ms.tolist(), strict=True)
        times = [default if time is None else time for time, default in given]
    try:
        return np.array(times, dtype=np.int64)
    except OverflowError:  # a time of more than 63 bits: far away is far enough
        return np.array([max(-1, min(time or 0, _TS_MAX)) for time in times], dtype=np.int64)


def _request_ids(events: Sequence[JsonEvent]) -> list[str] | None:
    ids = [event.request_id for event in events]
    return None if ids.count(None) == len(ids) else [text or "" for text in ids]


def _contexts(events: Sequence[JsonEvent]) -> list[bytes] | None:
    raws = [event.context for event in events]
    if raws.count(_NO_CONTEXT) == len(raws):
        return None
    contexts = [bytes(raw) for raw in raws]
    return [b"" if context == _NULL else context for context in contexts]


def diagnosis(value: bytes) -> RecordError:
    """Why ``value`` is no event (or no array of events)."""
    try:
        document = msgspec.json.decode(value)
    except RecursionError:
        return RecordError("malformed_json", "", "nested too deep")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return _non_finite(value) or RecordError("malformed_json", "", str(error))
    if not isinstance(document, dict):
        return RecordError("wrong_type", "", f"expected an event (a JSON object), got {shown(document)}")
    return _field_fault(document) or RecordError("malformed_json", "", "a field holds text that is no UTF-8")


def _non_finite(value: bytes) -> RecordError | None:
    """NaN, Infinity and 1e999 are no JSON, but Python and others write them: say which field it is."""
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return None
    for event in document if isinstance(document, list) else [document]:
        weight = event.get("weight") if isinstance(event, dict) else None
        if isinstance(weight, float) and not math.isfinite(weight):
            return RecordError("non_finite_weight", "weight", f"expected a finite number, got {weight}")
    return None


def _field_fault(document: dict[str, Any]) -> RecordError | None:
    for name in ("kind", "item"):
        if name not in document:
            return RecordError("missing_field", name, f"every event has the field {name}, this one has not")
    for name, (expected, types) in _FIELD_TYPES.items():
        value = document.get(name)
        absent = name not in document or (value is None and name in _NULLABLE)
        # bool is an int to isinstance, and true is no weight.
        if not absent and (not isinstance(value, types) or isinstance(value, bool)):
            return RecordError("wrong_type", name, f"expected {expected}, got {shown(value)}")
    return None


_NULLABLE: Final = ("user", "ts", "request_id")
_FIELD_TYPES: Final[dict[str, tuple[str, type | tuple[type, ...]]]] = {
    "kind": ("a text", str),
    "item": ("a text", str),
    "user": ("a text", str),
    "weight": ("a number", (int, float)),
    "ts": ("whole milliseconds since the epoch", int),
    "request_id": ("a text", str),
}
