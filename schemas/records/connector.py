"""What a Kafka Connect source writes, Debezium among them, as a plain record.

Understood, alone or inside one another: the JSON converter's envelope ``{"schema", "payload"}``; Debezium's
change event ``{"before", "after", "op", "source", …}``, of which ``after`` is the record and op ``d`` a
delete; the flattened form with its ``__deleted``, ``__op`` … fields. Where a schema is given, times that are
not in milliseconds and JSON in a text are converted by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from schemas.errors import RecordError, shown

Document = dict[str, Any]

_ENVELOPE: Final = frozenset({"schema", "payload"})
_CHANGE: Final = frozenset(
    {"before", "after", "source", "op", "ts_ms", "ts_us", "ts_ns", "transaction", "schema"}
)
_DELETE: Final = "d"
_ROW_OPS: Final = frozenset({"c", "u", "r"})
_MARK: Final = "__"
_MARKS: Final = ("__deleted", "__op")
_DAY_MS: Final = 86_400_000


def plain_document(document: Document) -> Document | None:
    """The record in ``document``: itself if no connector wrote it, None for a delete.

    Raises:
        RecordError: a change that is no row's, an envelope without a record, a text that should be JSON.
    """
    fields: list[Document] = []
    if document.keys() == _ENVELOPE and isinstance(document["schema"], dict | None):
        fields = _fields_of(document["schema"])
        payload = document["payload"]
        if payload is None:
            return None
        if not isinstance(payload, dict):
            raise _refused("payload", "a JSON object", payload)
        document = payload
    if _is_change(document):
        if document["op"] == _DELETE:
            return None
        document = _row(document)
        fields = next((_fields_of(each) for each in fields if each.get("field") == "after"), [])
    if any(mark in document for mark in _MARKS):
        if str(document.get("__deleted", "")).lower() == "true":
            return None
        document = {name: value for name, value in document.items() if not name.startswith(_MARK)}
    return _converted(document, fields) if fields else document


def key_id(document: Any) -> Any:
    """The id that a JSON key states, in whatever envelope; None if it states none."""
    if isinstance(document, dict) and document.keys() == _ENVELOPE:
        document = document["payload"]
    return document.get("id") if isinstance(document, dict) else document


def _is_change(document: Mapping[str, Any]) -> bool:
    return (
        isinstance(document.get("op"), str)
        and ("before" in document or "after" in document)
        and document.keys() <= _CHANGE
    )


def _row(change: Mapping[str, Any]) -> Document:
    if change["op"] not in _ROW_OPS:
        raise _refused("op", "a change of one row (c, u, r or d)", change["op"])
    row = change.get("after")
    if not isinstance(row, dict):
        raise _refused("after", "the row after the change", row)
    return row


def _fields_of(schema: Any) -> list[Document]:
    fields = schema.get("fields") if isinstance(schema, dict) else None
    return [each for each in fields if isinstance(each, dict)] if isinstance(fields, list) else []


def _converted(document: Document, fields: list[Document]) -> Document:
    converted = dict(document)
    for field in fields:
        name, kind = field.get("field"), field.get("name")
        convert = _CONVERSIONS.get(kind) if isinstance(kind, str) else None
        if convert is not None and isinstance(name, str) and converted.get(name) is not None:
            converted[name] = convert(name, converted[name])
    return converted


def _scaled(numerator: int, denominator: int) -> Callable[[str, Any], Any]:
    def convert(name: str, value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return value * numerator // denominator if whole else value

    return convert


def _json(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise RecordError("malformed_json", name, f"the column's text is no JSON: {error}") from error


def _refused(path: str, expected: str, value: object) -> RecordError:
    return RecordError("wrong_type", path, f"expected {expected}, got {shown(value)}")


_CONVERSIONS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "io.debezium.time.MicroTimestamp": _scaled(1, 1_000),
    "io.debezium.time.NanoTimestamp": _scaled(1, 1_000_000),
    "io.debezium.time.Date": _scaled(_DAY_MS, 1),
    "org.apache.kafka.connect.data.Date": _scaled(_DAY_MS, 1),
    "io.debezium.data.Json": _json,
}
