"""The OpenAPI 3.1 document, generated from the route table and the msgspec types so that it cannot drift."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from queryd.http.examples import ENTITIES, PARAMETERS, PATHS, PROBLEM, REPLIES
from queryd.http.problems import PROBLEM_CONTENT_TYPE
from queryd.http.record_schemas import record_schema_name, record_schemas
from queryd.http.route import Parameter, RecordShape, Role, Route
from queryd.http.shapes import ProblemDocument
from schemas.model import Schema

_TEMPLATE = re.compile(r"\{(\w+)\}")
_JSON_TYPES = {str: "string", int: "integer", bool: "boolean"}
_ABOUT = (
    "Signals and records in, ranked pages out. Every write answers a position; a read with `after=POSITION` "
    "reflects it. Errors are RFC 9457 problem documents: what, where, which value, what to do."
)
_ALWAYS_POSSIBLE = (400, 500)


def openapi_document(routes: Iterable[Route], version: str, schema: Schema) -> dict[str, Any]:
    """The document for these routes; records of entities are as `schema` declares them."""
    routes = tuple(routes)
    types = [ProblemDocument, *_types_of(routes)]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = _Schemas(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidal queryd",
            "version": version,
            "description": _ABOUT,
        },
        "paths": paths,
        "components": {
            "schemas": components | record_schemas(schema),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Off while bound to loopback only.",
                }
            },
        },
    }


class _Schemas:
    """The schema of each type that a route names; a tuple of types means any one of them."""

    def __init__(self, pairs: Iterable[tuple[Any, dict[str, Any]]]) -> None:
        self._by_identity = {id(type_): schema for type_, schema in pairs}

    def of(self, shape: Any) -> dict[str, Any]:
        """The schema of `shape`."""
        if isinstance(shape, tuple):
            return {"anyOf": [self.of(alternative) for alternative in shape]}
        if isinstance(shape, RecordShape):
            one = {"$ref": f"#/components/schemas/{record_schema_name(shape.kind)}"}
            return {"type": "array", "items": one} if shape.many else one
        return self._by_identity[id(shape)]


def _types_of(routes: Iterable[Route]) -> list[Any]:
    found: dict[int, Any] = {}
    for route in routes:
        bodies = route.body.types.values() if route.body is not None else ()
        for shape in (*bodies, route.reply, *route.other_replies.values()):
            for type_ in shape if isinstance(shape, tuple) else (shape,):
                if type_ is not None and not isinstance(type_, RecordShape):
                    found[id(type_)] = type_
    return list(found.values())


def _operation(route: Route, schema_of: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation_id,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [*_path_parameters(route), *(_query_parameter(p) for p in route.parameters)],
        "responses": _responses(route, schema_of),
    }
    if route.role is not Role.OPEN:
        operation["security"] = [{"key": []}]
        operation["description"] = (
            f"Needs a key of role {route.role.name.lower()} or above, where keys are in use."
        )
    if route.body is not None:
        operation["requestBody"] = {
            "required": route.body.required,
            "content": {
                media: _with_example({"schema": schema_of.of(type_)}, route.body.examples.get(media))
                for media, type_ in route.body.types.items()
            },
        }
    return operation


def _with_example(content: dict[str, Any], example: Any) -> dict[str, Any]:
    return content if example is None else {**content, "example": example}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, **_part_of_path(route, name)}
        for name in _TEMPLATE.findall(route.path)
    ]


def _part_of_path(route: Route, name: str) -> dict[str, Any]:
    plural = route.path.split("/")[2]
    if name in PATHS:
        doc, example = PATHS[name]
    else:
        doc, example = f"id of the {plural[:-1]}", ENTITIES[plural]["id"]
    return {"description": doc, "schema": {"type": "string"}, "example": example}


def _query_parameter(parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": _JSON_TYPES[parameter.type]}
    if parameter.choices:
        schema["enum"] = list(parameter.choices)
    if parameter.low is not None:
        schema["minimum"] = parameter.low
    if parameter.high is not None:
        schema["maximum"] = parameter.high
    described: dict[str, Any] = {
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "description": parameter.doc,
        "schema": schema,
        "example": PARAMETERS[parameter.name],
    }
    if parameter.many:
        described |= {"schema": {"type": "array", "items": schema}, "style": "form", "explode": False}
    return described


def _responses(route: Route, schema_of: _Schemas) -> dict[str, Any]:
    good: dict[str, Any] = {"description": HTTPStatus(route.status).phrase}
    if route.reply is not None:
        content = {"schema": schema_of.of(route.reply)}
        good["content"] = {route.reply_media: _with_example(content, REPLIES.get(route.operation_id))}
    elif route.reply_media != "application/json":
        good["content"] = {route.reply_media: {"schema": {"type": "string"}}}
    responses = {str(route.status): good}
    for status, reply in route.other_replies.items():
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": schema_of.of(reply)}},
        }
    for status in sorted(
        {*route.problems, *_access_problems(route), *_ALWAYS_POSSIBLE} - {int(s) for s in responses}
    ):
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_CONTENT_TYPE: {"schema": schema_of.of(ProblemDocument), "example": PROBLEM}},
        }
    return responses


def _access_problems(route: Route) -> tuple[int, ...]:
    return () if route.role is Role.OPEN else (401, 403, 429, 503)
