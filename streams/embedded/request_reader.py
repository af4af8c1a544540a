"""Reads the body of every request but Produce and Fetch, driven by kio's message schemas.

Written in Python on purpose: kio's own, native readers make room for as many elements as an array claims to
have and end the process when there is no such memory; and they refuse the tagged fields that a newer client
may add to any struct of any request. Here an array's length is checked against the bytes that are left,
and tags are stepped over: no request in a version that is served has one of its own.
"""

from __future__ import annotations

import dataclasses
import datetime
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from uuid import UUID

from kio.index import load_request_schema

from streams.embedded.codec import APIS, field_shape, read_uvarint, skip_tags
from streams.embedded.errors import RequestError

_Read = Callable[[bytes, int], tuple[Any, int]]

_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_NUMBERS = {
    "int8": struct.Struct(">b"),
    "bool": struct.Struct(">?"),
    "int16": _I16,
    "int32": _I32,
    "int64": struct.Struct(">q"),
    "timedelta_i32": _I32,
    "timedelta_i64": struct.Struct(">q"),
}


def read_request(api_key: int, version: int, frame: bytes, position: int) -> Any:
    """The request's body from `position` on as an entity of kio's. Raises RequestError."""
    try:
        entity, end = _reader(api_key, version)(frame, position)
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise RequestError(f"{APIS[api_key].name} v{version} cannot be read: {error}") from error
    if end > len(frame):
        raise RequestError(f"{APIS[api_key].name} v{version} ends at byte {end} of {len(frame)}")
    return entity


@lru_cache(maxsize=256)
def _reader(api_key: int, version: int) -> _Read:
    return _struct_reader(load_request_schema(api_key, version))


def _struct_reader(entity: Any) -> _Read:
    is_flexible = bool(entity.__flexible__)
    fields = [(field.name, _field_reader(field, is_flexible)) for field in dataclasses.fields(entity)]

    def read(frame: bytes, position: int) -> tuple[Any, int]:
        values = {}
        for name, read_field in fields:
            values[name], position = read_field(frame, position)
        if is_flexible:
            position = skip_tags(frame, position)
        return entity(**values), position

    return read


def _field_reader(field: dataclasses.Field[Any], is_flexible: bool) -> _Read:
    inner, is_array, optional = field_shape(field.type)
    if dataclasses.is_dataclass(inner):
        read = _struct_reader(inner)
    else:
        read = _plain_reader(field.metadata["kafka_type"], is_flexible, optional and not is_array)
    return _array_reader(read, is_flexible, optional) if is_array else read


def _array_reader(read: _Read, is_flexible: bool, optional: bool) -> _Read:
    size = _compact_size if is_flexible else _long_size

    def read_array(frame: bytes, position: int) -> tuple[Any, int]:
        count, position = size(frame, position)
        if count < 0:
            _check_null(optional)
            return None, position
        # Every element has a byte at least.
        if count > len(frame) - position:
            raise ValueError(f"an array of {count} with {len(frame) - position} bytes left")
        values = []
        for _ in range(count):
            value, position = read(frame, position)
            values.append(value)
        return tuple(values), position

    return read_array


def _plain_reader(kind: str, is_flexible: bool, optional: bool) -> _Read:
    if kind in _NUMBERS:
        return _number_reader(_NUMBERS[kind], is_duration=kind.startswith("timedelta"))
    if kind == "uuid":
        return _read_uuid
    size = _compact_size if is_flexible else _short_size if kind == "string" else _long_size

    def read(frame: bytes, position: int) -> tuple[Any, int]:
        length, position = size(frame, position)
        if length < 0:
            _check_null(optional)
            return None, position
        end = position + length
        if end > len(frame):
            raise ValueError(f"a field ends at byte {end} of {len(frame)}")
        raw = frame[position:end]
        return raw.decode() if kind == "string" else raw, end

    return read


def _number_reader(layout: struct.Struct, *, is_duration: bool) -> _Read:
    unpack, size = layout.unpack_from, layout.size

    def read(frame: bytes, position: int) -> tuple[Any, int]:
        value = unpack(frame, position)[0]
        return datetime.timedelta(milliseconds=value) if is_duration else value, position + size

    return read


def _read_uuid(frame: bytes, position: int) -> tuple[UUID | None, int]:
    number = int.from_bytes(frame[position : position + 16], "big")
    return UUID(int=number) if number else None, position + 16


def _check_null(optional: bool) -> None:
    if not optional:
        raise ValueError("null where a value has to be")


def _compact_size(frame: bytes, position: int) -> tuple[int, int]:
    """A length plus one; -1 for null."""
    length, position = read_uvarint(frame, position)
    return length - 1, position


def _short_size(frame: bytes, position: int) -> tuple[int, int]:
    return int(_I16.unpack_from(frame, position)[0]), position + 2


def _long_size(frame: bytes, position: int) -> tuple[int, int]:
    return int(_I32.unpack_from(frame, position)[0]), position + 4
