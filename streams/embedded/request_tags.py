"""Requests with tagged fields that the log does not know.

A newer client may add such fields to any struct of any request, and a server must step over them; kio's
readers refuse them. No request in a version that is served has a tagged field of its own (Fetch has one,
it is read by hand), so emptying every tag section loses nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from kio.index import load_request_schema

from streams.embedded.codec import decode, field_shape, is_flexible, read_uvarint, skip_tags
from streams.embedded.errors import RequestError

_Skip = Callable[[bytes, int, list[bytes]], int]

_FIXED_BYTES = {"int8": 1, "bool": 1, "int16": 2, "int32": 4, "timedelta_i32": 4, "int64": 8, "uuid": 16}
_NO_TAGS = b"\x00"


def decode_request(api_key: int, version: int, frame: bytes, position: int) -> Any:
    """The request's body as kio's entity, without what newer clients add to it. Raises RequestError."""
    try:
        return decode(api_key, version, frame, position)
    except RequestError as error:
        if not is_flexible(api_key, version):
            raise
        try:
            known = without_tags(api_key, version, frame, position)
        except IndexError:
            raise error from None
        return decode(api_key, version, known, 0)


def without_tags(api_key: int, version: int, frame: bytes, position: int) -> bytes:
    """The body from `position` on, of a version with tagged fields, with all of them left out.

    Raises IndexError when the frame ends early.
    """
    out: list[bytes] = []
    _skipper(api_key, version)(frame, position, out)
    return b"".join(out)


@lru_cache(maxsize=256)
def _skipper(api_key: int, version: int) -> _Skip:
    return _struct_skipper(load_request_schema(api_key, version))


def _struct_skipper(entity: Any) -> _Skip:
    fields = [_field_skipper(field) for field in dataclasses.fields(entity)]

    def skip(frame: bytes, position: int, out: list[bytes]) -> int:
        for skip_field in fields:
            position = skip_field(frame, position, out)
        out.append(_NO_TAGS)
        return skip_tags(frame, position)

    return skip


def _field_skipper(field: dataclasses.Field[Any]) -> _Skip:
    inner, is_array, _ = field_shape(field.type)
    skip = _struct_skipper(inner) if dataclasses.is_dataclass(inner) else _plain_skipper(field)
    return _array_skipper(skip) if is_array else skip


def _array_skipper(skip: _Skip) -> _Skip:
    def skip_array(frame: bytes, position: int, out: list[bytes]) -> int:
        count, elements = read_uvarint(frame, position)
        out.append(frame[position:elements])
        position = elements
        # Every element has a byte at least, so a count beyond the frame soon meets its end.
        for _ in range(count - 1):
            position = skip(frame, position, out)
        return position

    return skip_array


def _plain_skipper(field: dataclasses.Field[Any]) -> _Skip:
    size = _FIXED_BYTES.get(field.metadata["kafka_type"])

    def skip_plain(frame: bytes, position: int, out: list[bytes]) -> int:
        end = position
        if size is not None:
            end += size
        else:
            # Strings and bytes: their length plus one, nothing behind the zero of a null.
            length, end = read_uvarint(frame, position)
            end += max(length - 1, 0)
        if end > len(frame):
            raise IndexError(f"a field ends at byte {end} of a frame of {len(frame)}")
        out.append(frame[position:end])
        return end

    return skip_plain
