"""As much of JSON Schema as the OpenAPI document uses, for tests that hold its examples and replies true."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_TYPES: Mapping[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}
_KNOWN = {
    *("$ref", "anyOf", "type", "enum", "const", "minimum", "maximum", "items", "properties", "required"),
    *("additionalProperties", "minItems", "maxItems", "title", "description", "default", "example"),
}


def faults(
    value: Any, schema: Mapping[str, Any], document: Mapping[str, Any], at: str = "$"
) -> Iterator[str]:
    """Where a value is not as its schema says, a field that the schema does not name included."""
    unknown = schema.keys() - _KNOWN
    assert not unknown, f"the validator does not know {unknown}"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from faults(value, document["components"]["schemas"][name], document, at)
        return
    if "anyOf" in schema:
        found = [list(faults(value, one, document, at)) for one in schema["anyOf"]]
        if all(found):
            yield from min(found, key=len)
        return
    yield from _scalar_faults(value, schema, at)
    if isinstance(value, list) and schema.get("minItems", len(value)) != len(value):
        yield f"{at}: {len(value)} entries, expected {schema['minItems']}"
    if isinstance(value, list) and "items" in schema:
        for index, one in enumerate(value):
            yield from faults(one, schema["items"], document, f"{at}[{index}]")
    if isinstance(value, dict):
        yield from _object_faults(value, schema, document, at)


def _scalar_faults(value: Any, schema: Mapping[str, Any], at: str) -> Iterator[str]:
    wanted = schema.get("type")
    if wanted is not None:
        fits = isinstance(value, _TYPES[wanted]) and not (isinstance(value, bool) and wanted != "boolean")
        if not fits:
            yield f"{at}: {json.dumps(value)[:80]} is no {wanted}"
            return
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        yield f"{at}: {value!r} is not among {schema.get('enum', schema.get('const'))}"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{at}: {value} is below {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"{at}: {value} is above {schema['maximum']}"


def _object_faults(
    value: Mapping[str, Any], schema: Mapping[str, Any], document: Mapping[str, Any], at: str
) -> Iterator[str]:
    named = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield f"{at}: {name} is missing"
    for name, one in value.items():
        if name in named:
            yield from faults(one, named[name], document, f"{at}.{name}")
        elif isinstance(schema.get("additionalProperties"), dict):
            yield from faults(one, schema["additionalProperties"], document, f"{at}.{name}")
        elif named and not schema.get("additionalProperties", False):
            yield f"{at}: {name} is not described"
