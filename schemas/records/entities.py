"""Records of the compacted entity topics, from plain JSON to typed fields.

The key is the id (as text, or as the JSON that a connector writes: ``"item_I"``, ``{"id": "item_I"}``), the
value one JSON object, perhaps in a connector's envelope (``connector``); no value deletes the entity.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.epoch import epoch_ms
from schemas.errors import RecordError, shown
from schemas.model import STATUSES, EmbeddingSlot, EntityDef, FieldDef, Schema
from schemas.nearest import nearest
from schemas.records.connector import key_id, plain_document
from schemas.records.edge_key import parse_edge_key
from schemas.records.events_json import REFUSALS

F32 = npt.NDArray[np.float32]
Status: TypeAlias = Literal["active", "archived", "deleted"]

_RESERVED: Final = frozenset({"id", "status", "creator", "embeddings"})
_NULL: Final = b"null"
_INT_MAX: Final = 2**63 - 1


@dataclass(slots=True)
class EntityRecord:
    """One valid entity record.

    ``fields`` holds declared fields in their types (time in ms) and, without ``strict``, the others as they
    came; ``embeddings`` f32[dim] by slot as they are stored (unit length where the metric is cosine);
    ``raw`` the record's own bytes, or the JSON object that a connector's envelope held.
    """

    kind: str
    id: str
    status: Status = "active"
    creator: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    embeddings: dict[str, F32] = field(default_factory=dict)
    raw: bytes = b""


@dataclass(slots=True)
class EdgeRecord:
    """One valid explicit edge; ``ts_ms`` is when it was written by its source, None = the record's time."""

    type: str
    source: str
    target: str
    weight: float = 1.0
    ts_ms: int | None = None
    raw: bytes = b""


def decode_entity(
    kind: str, key: bytes, value: bytes | None, schema: Schema, timestamp_ms: int | None = None
) -> EntityRecord | None:
    """The record of an entity, None if it deletes it.

    Args:
        kind: item, user or creator.
        key: the record's key.
        value: the record's value; None, empty and JSON ``null`` are a delete.
        schema: declared fields, embedding slots, strictness, limits.
        timestamp_ms: the record's own time; ``created_at`` may lie a bounded time after it (None: unchecked).

    Raises:
        RecordError: with the field that is wrong.
    """
    entity_id = parse_entity_key(key, schema.limits.max_id_bytes)
    if value is None or value.strip() in (b"", _NULL):
        return None
    written = _object(value, schema.limits.entity_record_max_bytes)
    document = plain_document(written)
    if document is None:
        return None
    entity = schema.entities[kind]
    if document.get("id") not in (None, entity_id):
        raise _wrong("id", f"the record's key, {entity_id!r}", document["id"])
    return EntityRecord(
        kind=kind,
        id=entity_id,
        status=_status(document.get("status")),
        creator=_creator(document.get("creator"), schema.limits.max_id_bytes) if kind == "item" else None,
        fields=_fields(entity, document, schema, timestamp_ms),
        embeddings=_embeddings(entity, document.get("embeddings")),
        raw=value if document is written else msgspec.json.encode({"id": entity_id, **document}),
    )


def decode_edge(key: bytes, value: bytes | None, schema: Schema) -> EdgeRecord | None:
    """The record of an explicit edge, None if it deletes it. ``parse_edge_key`` tells which one.

    The value is ``{"weight": 1.0, "ts": ms}``, both optional.

    Raises:
        RecordError: an unknown type, an implicit one, a bad id, a value of the wrong type.
    """
    type_name, source, target = parse_edge_key(key)
    declared = schema.relationships.get(type_name)
    if declared is None or not declared.explicit:
        explicit = [name for name, edge in schema.relationships.items() if edge.explicit]
        raise _wrong("type", f"a declared explicit relationship ({', '.join(explicit)})", type_name)
    for path, entity_id in (("from", source), ("to", target)):
        check_id(path, entity_id, schema.limits.max_id_bytes)
    if value is None or value.strip() in (b"", _NULL):
        return None
    document = plain_document(_object(value, schema.limits.entity_record_max_bytes))
    if document is None:
        return None
    weight, ts = document.get("weight"), document.get("ts")
    return EdgeRecord(
        type=type_name,
        source=source,
        target=target,
        weight=1.0 if weight is None else _float("weight", weight),
        ts_ms=None if ts is None else _time("ts", ts),
        raw=value,
    )


def parse_entity_key(key: bytes, id_bytes_max: int = 256) -> str:
    """The id that a record's key states.

    Raises:
        RecordError: ``id_empty``, ``id_too_long``; ``wrong_type`` for a key that is no UTF-8 or whose id is
            no text; ``missing_field`` for a JSON object without an id.
    """
    try:
        text = key.decode()
    except UnicodeDecodeError as error:
        raise RecordError("wrong_type", "id", "the key is no UTF-8 text") from error
    if text[:1] in ('"', "{"):
        text = _connector_key(text)
    check_id("id", text, id_bytes_max)
    return text


def check_id(path: str, entity_id: str, id_bytes_max: int = 256) -> None:
    """Refuses an id that is empty or too long, with ``path`` as its field.

    Raises:
        RecordError: ``id_empty`` or ``id_too_long``.
    """
    if not entity_id:
        raise RecordError("id_empty", path, "an id has at least one byte")
    size = len(entity_id.encode())
    if size > id_bytes_max:
        raise RecordError("id_too_long", path, f"{size} bytes, at most {id_bytes_max}")


def _connector_key(text: str) -> str:
    """A key as Kafka Connect's JSON converter writes it, with or without its schema envelope."""
    try:
        document = msgspec.json.decode(text)
    except REFUSALS:
        return text  # an id may begin with a quote or a brace
    stated = key_id(document)
    if stated is None:
        raise RecordError(
            "missing_field", "id", f"the key {text[:80]} has no id; have the connector name its key column so"
        )
    if not isinstance(stated, str):
        raise RecordError(
            "wrong_type",
            "id",
            f"the key's id is {shown(stated)}, and an id is a text; have the connector cast it, "
            'or "7" and 7 would be two entities',
        )
    return stated


def _object(value: bytes, bytes_max: int) -> dict[str, Any]:
    if len(value) > bytes_max:
        raise RecordError("wrong_type", "", f"{len(value)} bytes, a record has at most {bytes_max}")
    try:
        document = msgspec.json.decode(value)
    except REFUSALS as error:
        raise _non_finite(value) or RecordError("malformed_json", "", str(error)) from error
    if not isinstance(document, dict):
        raise _wrong("", "a JSON object", document)
    return document


def _non_finite(value: bytes) -> RecordError | None:
    """NaN and Infinity are no JSON, but Python and others write them: say which vector holds one."""
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return None
    embeddings = document.get("embeddings") if isinstance(document, dict) else None
    for name, vector in embeddings.items() if isinstance(embeddings, dict) else ():
        entries = vector if isinstance(vector, list) else []
        if any(isinstance(entry, float) and not math.isfinite(entry) for entry in entries):
            return RecordError("embedding_non_finite", f"embeddings.{name}", "NaN or an infinity is in it")
    return None


def _status(value: Any) -> Status:
    if value is None:
        return "active"
    if value not in STATUSES:
        raise _wrong("status", f"one of {', '.join(STATUSES)}", value)
    return cast(Status, value)


def _creator(value: Any, id_bytes_max: int) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _wrong("creator", "the id of a creator", value)
    check_id("creator", value, id_bytes_max)
    return value


def _fields(
    entity: EntityDef, document: Mapping[str, Any], schema: Schema, timestamp_ms: int | None
) -> dict[str, Any]:
    labels = {dimension.field: dimension.labels for dimension in entity.dimensions.values()}
    fields: dict[str, Any] = {}
    for name, value in document.items():
        declared = entity.fields.get(name)
        if name in _RESERVED or value is None:
            continue
        if declared is None:
            if entity.strict:
                near = nearest(name, entity.fields)
                hint = f"; did you mean {near!r}?" if near else ""
                raise RecordError(
                    "unknown_field", name, f"no such field is declared for {entity.kind}s{hint}"
                )
            fields[name] = value
        elif isinstance(value, str) and value in labels.get(name, ()):
            fields[name] = value
        else:
            fields[name] = _CONVERSIONS[declared.type](name, value)
    _check_dimensions(entity, fields, schema.limits.max_id_bytes)
    _check_created_at(entity.fields.get("created_at"), fields, schema, timestamp_ms)
    return fields


def _check_dimensions(entity: EntityDef, fields: Mapping[str, Any], bytes_max: int) -> None:
    """A dimension's value is part of every counter's key: it is as short as an id."""
    for dimension in entity.dimensions.values():
        value = fields.get(dimension.field)
        if isinstance(value, str) and len(value.encode()) > bytes_max:
            raise RecordError(
                "id_too_long", dimension.field, f"a dimension's value has at most {bytes_max} bytes"
            )


def _check_created_at(
    declared: FieldDef | None, fields: Mapping[str, Any], schema: Schema, timestamp_ms: int | None
) -> None:
    if declared is None or declared.type != "time" or timestamp_ms is None or "created_at" not in fields:
        return
    ahead_ms = fields["created_at"] - timestamp_ms
    if ahead_ms > schema.limits.created_at_future_ms:
        raise RecordError(
            "created_at_in_future",
            "created_at",
            f"{fields['created_at']} lies {ahead_ms // 1000} s after the record; is it in milliseconds?",
        )


def _embeddings(entity: EntityDef, value: Any) -> dict[str, F32]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong("embeddings", "an object of vectors by slot", value)
    embeddings = {}
    for name, vector in value.items():
        slot = entity.embeddings.get(name)
        path = f"embeddings.{name}"
        if slot is not None and vector is not None:
            embeddings[name] = stored_vector(path, vector, slot)
        elif slot is None and entity.strict:
            raise RecordError(
                "unknown_field", path, f"slots are {', '.join(entity.embeddings) or 'not declared'}"
            )
    return embeddings


def stored_vector(path: str, vector: Any, slot: EmbeddingSlot) -> F32:
    """A JSON list as the f32[dim] that is stored: unit length where the metric is cosine.

    Raises:
        RecordError: ``wrong_type``, ``embedding_dimension``, ``embedding_non_finite``, ``embedding_zero``.
    """
    if not isinstance(vector, list) or not all(type(entry) in (int, float) for entry in vector):
        raise _wrong(path, f"a list of {slot.dim} numbers", vector)
    if len(vector) != slot.dim:
        raise RecordError("embedding_dimension", path, f"{len(vector)} numbers, the slot has {slot.dim}")
    exact = _float64(vector)
    with np.errstate(over="ignore"):
        stored = exact.astype(np.float32)
    if not np.isfinite(stored).all():
        raise RecordError("embedding_non_finite", path, "a number is too large for float32")
    if slot.metric != "cosine":
        return stored
    norm = float(np.linalg.norm(exact))
    if norm < _NORM_MIN:
        raise RecordError("embedding_zero", path, "a vector of zeros has no direction; leave the slot out")
    return (exact / norm).astype(np.float32)


def _float64(vector: list[int | float]) -> npt.NDArray[np.float64]:
    try:
        return np.array(vector, dtype=np.float64)
    except OverflowError:  # an integer of more than 1,024 bits
        return np.full(len(vector), np.inf)


_NORM_MIN: Final = 1e-30  # below it, squares vanish and the direction is noise


def _text(path: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(path, "a text", value)
    return value


def _tags(path: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise _wrong(path, "a list of texts", value)
    return value


def _int(path: str, value: Any) -> int:
    whole = isinstance(value, float) and value.is_integer()
    if isinstance(value, bool) or not (isinstance(value, int) or whole) or abs(value) > _INT_MAX:
        raise _wrong(path, "a whole number of 64 bits", value)
    return int(value)


def _float(path: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _FLOAT_MAX:
        raise _wrong(path, "a finite number", value)
    return float(value)


_FLOAT_MAX: Final = math.nextafter(math.inf, 0.0)


def _bool(path: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(path, "true or false", value)
    return value


def _time(path: str, value: Any) -> int:
    """Epoch milliseconds, or a time of ISO 8601 (UTC unless it says otherwise)."""
    if isinstance(value, str):
        try:
            return epoch_ms(datetime.fromisoformat(value))
        except ValueError:
            raise _wrong(path, "milliseconds since the epoch, or an ISO 8601 time", value) from None
    return _int(path, value)


def _wrong(path: str, expected: str, value: object) -> RecordError:
    return RecordError("wrong_type", path, f"expected {expected}, got {shown(value)}")


_CONVERSIONS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "text": _text,
    "keyword": _text,
    "tags": _tags,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "time": _time,
}
