"""Reading request bodies within their limit, and turning decoding errors into field-level problems."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from queryd.http.problems import ProblemError, bad_fields
from queryd.http.shapes import FieldProblem

T = TypeVar("T")

_AT_PATH = re.compile(r"^(?P<message>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)
_PLAIN_WORDS = (
    ("truncated", "it is empty, or ends in the middle of a value, or of a surrogate pair"),
    ("recursion", "it is nested too deep"),
    ("codec can't decode", "a text in it is not UTF-8"),
)
_AT_BYTE = re.compile(r"\(byte (?P<byte>\d+)\)")


async def read_body(request: web.Request) -> bytes:
    """The whole body, bounded by the application's `client_max_size`; beyond that is a 413."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise body_too_large(request) from None


def body_too_large(request: web.Request) -> ProblemError:
    """The 413 of a body above `max_body_bytes`."""
    limit_bytes = request.client_max_size
    return ProblemError(
        413,
        "body_too_large",
        f"the body is larger than max_body_bytes = {limit_bytes:,}; send it in parts",
        limit="max_body_bytes",
        # The rest of the body is not read, so the connection cannot carry another request.
        headers={"Connection": "close"},
    )


def decode_json(body: bytes, shape: type[T] | Any = Any) -> Any:
    """`body` as `shape`.

    Raises ProblemError: 400 `malformed_json` when it is not JSON (with the byte at which it stops being so),
    422 `wrong_type` when it is JSON of another shape, with the path of the field.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise bad_fields("wrong_type", [_field(error)], status=422) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed_json(str(error)) from None


def malformed_json(why: str) -> ProblemError:
    """The 400 of a body that is not JSON, for what a decoder said of it."""
    why = next((told for said, told in _PLAIN_WORDS if said in why), why)
    at = _AT_BYTE.search(why)
    path = f"byte {at['byte']}" if at else ""
    return ProblemError(
        400,
        "malformed_json",
        f"the body is not valid JSON: {why}",
        errors=[FieldProblem(path=path, message=why)],
    )


def _field(error: msgspec.ValidationError) -> FieldProblem:
    match = _AT_PATH.match(str(error))
    if match is None:
        return FieldProblem(path="$", message=str(error))
    return FieldProblem(path=match["path"] or "$", message=match["message"])
