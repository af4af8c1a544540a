"""Records of ``tidal.signals`` to columns, a batch at a time, and what is refused with its reason.

All three forms – JSON event, JSON array, columnar batch – may be mixed; events keep the order of the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.errors import RecordError
from schemas.model import Schema
from schemas.records.columnar import decode_columnar, encode_columnar
from schemas.records.columns import I64, EventColumns, no_events
from schemas.records.dictionary import merge
from schemas.records.events_json import JsonEvents, diagnosis, element_bytes, event_columns
from schemas.records.framing import MAGIC_EVENTS
from schemas.weights import WEIGHT_MICRO_MAX, WEIGHT_SCALE

Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Reject:
    """An event or record that is refused.

    ``record`` is its index in the batch; ``event`` its index in the record (None: the record is one event,
    or is refused whole); ``raw`` bytes that can be published again as they are: the event's own bytes in an
    array, a columnar batch of this event alone, else the record's value.
    """

    record: int
    event: int | None
    error: RecordError
    raw: bytes


@dataclass(slots=True)
class Decoded:
    """The n accepted events in the order of the log, ``record`` i64[n] the index of each one's record, and
    ``rejects`` in the same order."""

    columns: EventColumns
    record: I64
    rejects: list[Reject]


class _Part(NamedTuple):
    """Events and where they stood: ``record`` i64[n], ``position`` i64[n] in it, -1 = alone in the record."""

    columns: EventColumns
    record: I64
    position: I64


def decode_records(
    values: Sequence[bytes],
    timestamps_ms: I64,
    schema: Schema,
    first_seen_ms: I64 | None = None,
    *,
    compact: bool = True,
) -> Decoded:
    """All events of a batch of records.

    Args:
        values: r record values; an empty one is refused like any other that holds no event.
        timestamps_ms: i64[r], the records' own times: the default of ``ts``, and where the future begins.
        first_seen_ms: i64[r], the default of ``ts`` where it is not that: records that are sent again.
        schema: signals (a kind that it lacks is refused) and limits.
        compact: items and users stand once in their dictionaries. Who looks each of them up anyway need not
            have that, and saves a third of the time.
    """
    rejects: list[Reject] = []
    starts = [value[:1] for value in values]
    default_ms = timestamps_ms if first_seen_ms is None else first_seen_ms
    parts = [
        part
        for part in (
            _read_json(values, starts, default_ms, rejects, compact=compact),
            _read_columnar(values, starts, rejects, compact=compact),
        )
        if len(part.record)
    ]
    if not parts:
        rejects.sort(key=_place)
        return Decoded(no_events(), np.empty(0, dtype=np.int64), rejects)
    part = parts[0] if len(parts) == 1 else _in_log_order(parts, compact=compact)
    fault = _faults(part, timestamps_ms, schema)
    if fault.any():
        rejects += [_reject(part, int(row), int(fault[row]), values, schema) for row in np.flatnonzero(fault)]
        kept = np.flatnonzero(fault == 0)
        part = _Part(part.columns.take(kept), part.record[kept], part.position[kept])
    rejects.sort(key=_place)
    return Decoded(part.columns, part.record, rejects)


def _read_json(
    values: Sequence[bytes],
    starts: Sequence[bytes],
    timestamps_ms: I64,
    rejects: list[Reject],
    *,
    compact: bool,
) -> _Part:
    read = JsonEvents()
    alone = starts.count(b"{") == len(values)
    if alone:
        read.read_events(range(len(values)), values)
    else:
        singles = [record for record, start in enumerate(starts) if start == b"{"]
        read.read_events(singles, [values[row] for row in singles])
        for record, start in enumerate(starts):
            if start not in (b"{", b"T"):
                _read_other(record, values[record], read)
    rejects += [Reject(row, _event(at), error, raw) for row, at, error, raw in read.refused]
    if not read.events:
        return _Part(no_events(), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    record_of = np.array(read.record, dtype=np.int64)
    position = np.array(read.position, dtype=np.int64)
    columns = event_columns(read.events, timestamps_ms[record_of], compact=compact)
    part = _Part(columns, record_of, position)
    return part if alone else _sorted(part)


def _read_other(record: int, value: bytes, read: JsonEvents) -> None:
    """A value that begins with neither ``{`` nor our magic: an array, white space before either, or trash."""
    text = value.lstrip(b" \t\r\n")
    if text[:1] == b"[":
        read.read_array(record, value)
    elif text[:1] == b"{":
        read.read_events([record], [value])
    else:
        read.refused.append((record, -1, diagnosis(value), value))


def _read_columnar(
    values: Sequence[bytes], starts: Sequence[bytes], rejects: list[Reject], *, compact: bool
) -> _Part:
    batches: list[EventColumns] = []
    records: list[int] = []
    marked = [record for record, start in enumerate(starts) if start == b"T"] if b"T" in starts else []
    for record in marked:
        try:
            batches.append(decode_columnar(values[record]))
            records.append(record)
        except RecordError as error:
            rejects.append(Reject(record, None, error, values[record]))
    if not batches:
        return _Part(no_events(), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    counts = [len(batch) for batch in batches]
    position = np.concatenate([np.arange(count, dtype=np.int64) for count in counts])
    return _Part(
        merge(batches, compact=compact), np.repeat(np.array(records, dtype=np.int64), counts), position
    )


def _in_log_order(parts: Sequence[_Part], *, compact: bool) -> _Part:
    columns = merge([part.columns for part in parts], compact=compact)
    record = np.concatenate([part.record for part in parts])
    position = np.concatenate([part.position for part in parts])
    return _sorted(_Part(columns, record, position))


def _sorted(part: _Part) -> _Part:
    order = np.argsort(part.record, kind="stable")
    return _Part(part.columns.take(order), part.record[order], part.position[order])


# What can be wrong with an event that could be read, in the order in which it is said.
_KIND: Final = 1
_ITEM: Final = 2
_USER: Final = 3
_FUTURE: Final = 4
_PAST: Final = 5
_WEIGHT: Final = 6


def _faults(part: _Part, timestamps_ms: I64, schema: Schema) -> npt.NDArray[np.uint8]:
    """The first fault of each event, u8[n]; 0 = none."""
    columns, limits = part.columns, schema.limits
    low, high = _weight_ranges(columns.kinds, schema)
    limit_ms = timestamps_ms[part.record] + limits.future_skew_ms
    tests = (
        (_WEIGHT, (columns.weight < low[columns.kind]) | (columns.weight > high[columns.kind])),
        (_PAST, columns.ts_ms < limits.ts_ms_min),
        (_FUTURE, columns.ts_ms > limit_ms),
        (_USER, _bad_ids(columns.users, limits.max_id_bytes, empty=False)[columns.user]),
        (_ITEM, _bad_ids(columns.items, limits.max_id_bytes, empty=True)[columns.item]),
        (_KIND, np.array([kind not in schema.signals for kind in columns.kinds], dtype=bool)[columns.kind]),
    )
    fault = np.zeros(len(columns), dtype=np.uint8)
    for code, bad in tests:
        fault[bad] = code
    return fault


def _weight_ranges(kinds: Sequence[str], schema: Schema) -> tuple[I64, I64]:
    """Lowest and highest weight of each kind of the dictionary, i64[kinds] in micro-units."""
    low = np.full(len(kinds), -WEIGHT_MICRO_MAX, dtype=np.int64)
    high = np.full(len(kinds), WEIGHT_MICRO_MAX, dtype=np.int64)
    for index, kind in enumerate(kinds):
        signal = schema.signals.get(kind)
        if signal is not None and signal.value_range is not None:
            low[index], high[index] = (round(end * WEIGHT_SCALE) for end in signal.value_range)
    return low, high


def _bad_ids(ids: Sequence[str], bytes_max: int, empty: bool) -> Bools:
    """Which entries of a dictionary are too long, or empty where ``empty`` is a fault."""
    # A character has at most 4 bytes, so most ids need no encoding to be known short enough.
    short = bytes_max // 4
    bad = np.zeros(len(ids), dtype=bool)
    if max(map(len, ids), default=0) > short:
        bad[:] = [len(text) > short and len(text.encode()) > bytes_max for text in ids]
    if empty and "" in ids:
        bad[ids.index("")] = True
    return bad


def _reject(part: _Part, row: int, fault: int, values: Sequence[bytes], schema: Schema) -> Reject:
    record, position = int(part.record[row]), int(part.position[row])
    raw = values[record]
    if raw[:1] == MAGIC_EVENTS[:1]:
        raw = encode_columnar(part.columns.take(np.array([row], dtype=np.int64)))
    elif position >= 0:
        raw = element_bytes(raw, position)
    return Reject(record, _event(position), _error(part.columns, row, fault, schema), raw)


def _error(columns: EventColumns, row: int, fault: int, schema: Schema) -> RecordError:
    id_bytes_max = schema.limits.max_id_bytes
    match fault:
        case 1:
            kind = columns.kinds[columns.kind[row]]
            return RecordError("unknown_kind", "kind", f"no signal is called {kind[:80]!r} in the schema")
        case 2:
            return _id_error("item", columns.items[columns.item[row]], id_bytes_max)
        case 3:
            return _id_error("user", columns.users[columns.user[row]], id_bytes_max)
        case 4:
            ts = int(columns.ts_ms[row])
            return RecordError("timestamp_in_future", "ts", f"{ts} lies too far after the record's own time")
        case 5:
            ts = int(columns.ts_ms[row])
            return RecordError(
                "timestamp_out_of_range", "ts", f"{ts} is before the earliest time (ts_ms_min)"
            )
        case _:
            return _weight_error(columns, row, schema)


def _weight_error(columns: EventColumns, row: int, schema: Schema) -> RecordError:
    micro = int(columns.weight[row])
    kind = columns.kinds[columns.kind[row]]
    low, high = (int(ends[0]) / WEIGHT_SCALE for ends in _weight_ranges([kind], schema))
    # What lies beyond the widest range was cut to its end when it was read.
    given = "it" if abs(micro) > WEIGHT_MICRO_MAX else f"{micro / WEIGHT_SCALE:g}"
    return RecordError(
        "weight_out_of_range", "weight", f"{given} is outside the range of {kind!r}, {low:g} to {high:g}"
    )


def _id_error(field: str, text: str, bytes_max: int) -> RecordError:
    if not text:
        return RecordError("id_empty", field, "an id has at least one byte")
    told = f"{len(text.encode())} bytes, beginning with {text[:40]!r}; at most {bytes_max} (max_id_bytes)"
    return RecordError("id_too_long", field, told)


def _event(position: int) -> int | None:
    return position if position >= 0 else None


def _place(reject: Reject) -> tuple[int, int]:
    return reject.record, -1 if reject.event is None else reject.event
