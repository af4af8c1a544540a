"""`tidal import events|items|users|creators FILE`: CSV with a header, JSON objects one a line, or Parquet.

events: `kind`, `item`; optional `user`, `weight` (1.0 without it), `ts` (ms or ISO 8601; else the time of the
import). items, users, creators: `id` and any field; in CSV a declared field is read as its type, tags split
at |.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from schemas.epoch import epoch_ms
from schemas.errors import RecordError, TidalError
from schemas.model import EntityDef, EntityKind, FieldType, Schema
from schemas.records.columns import EventColumns
from schemas.records.decode import decode_records
from schemas.records.entities import decode_entity
from tidal.importers.parquet import parquet_rows
from tidal.importers.rows import ImporterError, Refusals, open_text
from tidal.publishing import ROWS_PER_STEP, Entry, Step

TAG_DELIMITER: Final = "|"
TRUE_WORDS: Final = frozenset({"true", "yes", "1"})
EVENT_COLUMNS: Final = ("kind", "item")
HEADER_SHOWN_MAX: Final = 200
FALSE_WORDS: Final = frozenset({"false", "no", "0"})


class _RowError(TidalError):
    """A row that cannot be used; its text is the reason that is listed."""


def read_records(path: Path, kind: EntityKind, schema: Schema, refusals: Refusals) -> Iterator[Entry]:
    """Entity records of a file, each with its `id`; what the running schema would refuse is refused here."""
    entity = schema.entities[kind]
    for line, row in _rows(path, refusals, ("id",)):
        try:
            record = _typed(row, entity) if _is_csv(path) else row
            decode_entity(kind, _id_of(record).encode(), msgspec.json.encode(record), schema)
        except (_RowError, RecordError) as error:
            refusals.add(path, line, str(error))
        else:
            yield Entry(line, record)


def event_steps(path: Path, schema: Schema, shift_ms: int, refusals: Refusals, first: int) -> Iterator[Step]:
    """The events of a file in steps, beginning at row `first`, every time moved by `shift_ms`.

    Rows that the running schema would refuse are refused here.
    """
    rows = enumerate(_rows(path, refusals, EVENT_COLUMNS), start=1)
    waiting = islice(rows, first, None)
    while batch := list(islice(waiting, ROWS_PER_STEP)):
        events = _decoded(path, [row for _, row in batch], schema, refusals)
        events.ts_ms = events.ts_ms + shift_ms
        yield Step(batch[-1][0], events)


def newest_ms(path: Path, schema: Schema) -> int | None:
    """The time of the newest event that the schema takes, None when there is none."""
    steps = event_steps(path, schema, 0, Refusals(), 0)
    return max((int(step.events.ts_ms.max()) for step in steps if len(step.events)), default=None)


def count_rows(path: Path) -> int:
    """How many rows a file has, also those that will be refused."""
    return sum(1 for _ in _rows(path, Refusals(), ()))


def _decoded(
    path: Path, rows: list[tuple[int, dict[str, Any]]], schema: Schema, refusals: Refusals
) -> EventColumns:
    """The events of some rows, through the codec that reads the log: it refuses what the log would."""
    lines, values = [], []
    for line, row in rows:
        try:
            values.append(msgspec.json.encode(_event(row)))
            lines.append(line)
        except _RowError as error:
            refusals.add(path, line, str(error))
    now_ms = time.time_ns() // 1_000_000
    decoded = decode_records(values, np.full(len(values), now_ms, dtype=np.int64), schema)
    for reject in decoded.rejects:
        refusals.add(path, lines[reject.record], str(reject.error))
    return decoded.columns


def _is_csv(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".csv")


def _rows(path: Path, refusals: Refusals, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file with their lines; `needed` are columns that a table must have."""
    if not path.is_file():
        raise ImporterError(f"{path} does not exist, or is not a file")
    if path.suffix == ".parquet":
        return parquet_rows(path, needed)
    return _csv_rows(path, refusals, needed) if _is_csv(path) else _json_rows(path, refusals)


def _csv_rows(path: Path, refusals: Refusals, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path) as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        missing = [name for name in needed if header and name not in header]
        if missing:
            shown = ", ".join(map(repr, header))[:HEADER_SHOWN_MAX]
            raise ImporterError(f"{path}: the header lacks {', '.join(missing)}; it has {shown}")
        for row in reader:
            if None in row or None in row.values():
                refusals.add(path, reader.line_num, "more or fewer fields than the header has")
            else:
                yield reader.line_num, {name: value for name, value in row.items() if value != ""}


def _json_rows(path: Path, refusals: Refusals) -> Iterator[tuple[int, dict[str, Any]]]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    with open_text(path) as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                yield line, decoder.decode(text)
            except msgspec.MsgspecError as error:
                refusals.add(path, line, f"not a JSON object: {error}")


def _event(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the event that the log's codec reads: numbers as numbers, the time in ms."""
    event = dict(row)
    if "weight" in event:
        event["weight"] = _float("weight", event["weight"])
    if "ts" in event:
        event["ts"] = _time_ms(event["ts"])
    return event


def _id_of(record: dict[str, Any]) -> str:
    entity_id = record.get("id")
    if not isinstance(entity_id, str) or not entity_id:
        raise _RowError("no id, which must be a text that is not empty")
    return entity_id


def _typed(row: dict[str, Any], entity: EntityDef) -> dict[str, Any]:
    return {
        name: _value(name, text, entity.fields[name].type) if name in entity.fields else text
        for name, text in row.items()
    }


def _value(name: str, text: str, kind: FieldType) -> Any:
    if kind == "tags":
        return [tag.strip() for tag in text.split(TAG_DELIMITER) if tag.strip()]
    if kind == "float":
        return _float(name, text)
    if kind == "int":
        number = _float(name, text)
        if number != int(number):
            raise _RowError(f"{name} {text!r} is not a whole number")
        return int(number)
    if kind == "bool":
        if text.lower() not in TRUE_WORDS | FALSE_WORDS:
            raise _RowError(f"{name} {text!r} is neither true nor false")
        return text.lower() in TRUE_WORDS
    return _time_ms(text) if kind == "time" else text


def _float(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise _RowError(f"{name} {value!r} is not a finite number")
    return number


def _time_ms(value: Any) -> int:
    if isinstance(value, int | float):
        return int(value)
    try:
        return int(value)
    except (TypeError, ValueError):
        pass
    try:
        parsed = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise _RowError(f"time {value!r} is neither milliseconds since 1970 nor ISO 8601") from error
    return epoch_ms(parsed)
