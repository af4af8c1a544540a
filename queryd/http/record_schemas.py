"""JSON Schemas of entity records and of events, as this site's schema declares them, for OpenAPI."""

from __future__ import annotations

from typing import Any, Final

from schemas.model import STATUSES, EntityDef, Schema

_TEXT: Final = {"type": "string"}
_INTEGER: Final = {"type": "integer"}
_NULL: Final = {"type": "null"}
_TYPES: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "text": (_TEXT,),
    "keyword": (_TEXT,),
    "tags": ({"type": "array", "items": _TEXT},),
    "int": (_INTEGER,),
    "float": ({"type": "number"},),
    "bool": ({"type": "boolean"},),
    "time": ({**_INTEGER, "description": "ms since the epoch"}, {**_TEXT, "description": "ISO 8601"}),
}


def record_schema_name(kind: str) -> str:
    """Under which name the components hold the record of a kind of entity."""
    return f"{kind.capitalize()}Record"


def record_schemas(schema: Schema) -> dict[str, Any]:
    """A component for each kind of entity, by name."""
    return {record_schema_name(kind): _record(entity) for kind, entity in schema.entities.items()}


def _record(entity: EntityDef) -> dict[str, Any]:
    """Reserved names and declared fields, null being as good as absent; of a bucketed field also the labels.

    Any others come along as they are, unless the site is strict. A creator is answered with a catalog.
    """
    status = {"type": "string", "enum": list(STATUSES)}
    fields: dict[str, Any] = {"id": _TEXT, "status": {"anyOf": [status, _NULL]}}
    if entity.kind == "item":
        fields["creator"] = {"anyOf": [_TEXT, _NULL]}
    labels = {each.field: {"enum": sorted(each.labels)} for each in entity.dimensions.values() if each.labels}
    for name, declared in entity.fields.items():
        also = [labels[name]] if name in labels else []
        fields[name] = {"anyOf": [*_TYPES[declared.type], *also, _NULL]}
    if entity.embeddings:
        slots = {
            name: {"type": "array", "items": {"type": "number"}, "minItems": slot.dim, "maxItems": slot.dim}
            for name, slot in entity.embeddings.items()
        }
        fields["embeddings"] = {"type": "object", "properties": slots, "additionalProperties": True}
    return {
        "title": record_schema_name(entity.kind),
        "description": f"The record of one {entity.kind}, as this site's schema declares it.",
        "type": "object",
        "properties": fields,
        "additionalProperties": not entity.strict or entity.kind == "creator",
    }
