"""Which APIs are served, headers, and the answers of every API but Produce and Fetch.

Answers are written from plain dicts, driven by kio's message schemas: a field that the version does not have
is dropped, one that the dict does not have gets its default, so a handler describes its answer once for
all versions.
"""

from __future__ import annotations

import dataclasses
import struct
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from kio.index import KioIndexError, load_request_schema, load_response_schema
from kio.schema.errors import ErrorCode

from streams.embedded.errors import RequestError

ResponseBody = Mapping[str, Any]
_Write = Callable[[list[bytes], Any], None]


class Api(NamedTuple):
    """An API with the range of versions that is served."""

    key: int
    name: str
    version_min: int
    version_max: int


# The highest versions are those before topic ids and multi-group shapes came in. The lowest are what
# kio still describes; Produce is advertised from 0, because older librdkafka silently sends
# uncompressed batches when it does not see 0 (the versions below 3 are answered with an error).
APIS: dict[int, Api] = {
    api.key: api
    for api in (
        Api(0, "Produce", 0, 9),
        Api(1, "Fetch", 4, 12),
        Api(2, "ListOffsets", 1, 7),
        # Not 9: librdkafka asks for all topics with three bytes too many there, which read as an unknown tag.
        Api(3, "Metadata", 0, 8),
        Api(8, "OffsetCommit", 2, 8),
        Api(9, "OffsetFetch", 1, 7),
        Api(10, "FindCoordinator", 0, 3),
        Api(11, "JoinGroup", 0, 7),
        Api(12, "Heartbeat", 0, 4),
        Api(13, "LeaveGroup", 0, 5),
        Api(14, "SyncGroup", 0, 5),
        Api(15, "DescribeGroups", 0, 5),
        Api(16, "ListGroups", 0, 4),
        # Not 0: what follows it has no frame of a request.
        Api(17, "SaslHandshake", 1, 1),
        Api(18, "ApiVersions", 0, 3),
        Api(19, "CreateTopics", 2, 6),
        Api(20, "DeleteTopics", 1, 5),
        Api(21, "DeleteRecords", 0, 2),
        Api(22, "InitProducerId", 0, 4),
        Api(24, "AddPartitionsToTxn", 0, 3),
        Api(25, "AddOffsetsToTxn", 0, 3),
        Api(26, "EndTxn", 0, 3),
        Api(28, "TxnOffsetCommit", 0, 3),
        Api(32, "DescribeConfigs", 1, 4),
        Api(33, "AlterConfigs", 0, 2),
        Api(36, "SaslAuthenticate", 0, 2),
        Api(37, "CreatePartitions", 0, 2),
        Api(42, "DeleteGroups", 0, 2),
        Api(44, "IncrementalAlterConfigs", 0, 1),
        Api(47, "OffsetDelete", 0, 0),
        Api(60, "DescribeCluster", 0, 1),
        # Listed to be refused, as by a Kafka without this protocol: clients that do not see it wait for ever.
        Api(68, "ConsumerGroupHeartbeat", 0, 1),
    )
}
# First version with compact strings and tagged fields, where not told by kio (hot paths).
PRODUCE_FLEXIBLE = 9
FETCH_FLEXIBLE = 12

_HEADER = struct.Struct(">hhih")


class RequestHeader(NamedTuple):
    """Decoded request header; the body starts at `body` in the frame."""

    api_key: int
    version: int
    correlation_id: int
    client_id: str | None
    body: int


@lru_cache(maxsize=256)
def is_flexible(api_key: int, version: int) -> bool:
    """Does this version use compact strings and tagged fields?"""
    if api_key == 0:
        return version >= PRODUCE_FLEXIBLE
    if api_key == 1:
        return version >= FETCH_FLEXIBLE
    return bool(load_request_schema(api_key, version).__flexible__)


def read_request_header(frame: bytes | bytearray | memoryview) -> RequestHeader:
    """Read the header of a frame without its length. Raises RequestError."""
    try:
        api_key, version, correlation_id, id_length = _HEADER.unpack_from(frame, 0)
        position = _HEADER.size
        client_id = None
        if id_length >= 0:
            client_id = bytes(frame[position : position + id_length]).decode("utf-8", "replace")
            position += id_length
        api = APIS.get(api_key)
        if (
            api is not None
            and api.version_min <= version <= api.version_max
            and is_flexible(api_key, version)
        ):
            position = skip_tags(frame, position)
    except (struct.error, IndexError) as error:
        raise RequestError(f"{len(frame)} bytes are no request header") from error
    if position > len(frame):
        raise RequestError(f"a request header of {position} bytes in a frame of {len(frame)}")
    return RequestHeader(api_key, version, correlation_id, client_id, position)


def read_uvarint(buffer: bytes | bytearray | memoryview, position: int) -> tuple[int, int]:
    """(value, position after it). Raises IndexError at the end of the buffer."""
    value = shift = 0
    while True:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 35:
            raise IndexError("an endless number")


def write_uvarint(value: int) -> bytes:
    """An unsigned varint."""
    if value < 0x80:
        return _ONE_BYTE[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_ONE_BYTE = [bytes((value,)) for value in range(0x80)]


def skip_tags(buffer: bytes | bytearray | memoryview, position: int) -> int:
    """Position after a tagged-field section."""
    count, position = read_uvarint(buffer, position)
    for _ in range(count):
        _, position = read_uvarint(buffer, position)
        size, position = read_uvarint(buffer, position)
        position += size
    return position


def response_header(api_key: int, version: int, correlation_id: int) -> bytes:
    """ApiVersions keeps the old header in all versions, so that any client can read it."""
    tags = b"\x00" if api_key != 18 and is_flexible(api_key, version) else b""
    return correlation_id.to_bytes(4, "big", signed=True) + tags


def encode(api_key: int, version: int, body: ResponseBody) -> bytes:
    """The body of a response."""
    out: list[bytes] = []
    _writer(api_key, version)(out, body)
    return b"".join(out)


@lru_cache(maxsize=256)
def _writer(api_key: int, version: int) -> _Write:
    return _entity_writer(load_response_schema(api_key, version))


# -- writers compiled from kio's dataclasses -----------------------------------------------------


class _Field(NamedTuple):
    name: str
    write: _Write
    default: Any


def _entity_writer(entity: Any) -> _Write:
    flexible = bool(entity.__flexible__)
    plain: list[_Field] = []
    tagged: list[tuple[int, _Field]] = []
    for field in dataclasses.fields(entity):
        compiled = _Field(field.name, _field_writer(field, flexible), _default(field))
        if "tag" in field.metadata:
            tagged.append((field.metadata["tag"], compiled))
        else:
            plain.append(compiled)
    tagged.sort(key=lambda item: item[0])

    def write(out: list[bytes], value: Mapping[str, Any]) -> None:
        get = value.get
        for name, write_field, default in plain:
            write_field(out, get(name, default))
        if flexible:
            _write_tags(out, value, tagged)

    return write


def _write_tags(out: list[bytes], value: Mapping[str, Any], tagged: list[tuple[int, _Field]]) -> None:
    present = [(tag, field) for tag, field in tagged if field.name in value]
    out.append(write_uvarint(len(present)))
    for tag, field in present:
        content: list[bytes] = []
        field.write(content, value[field.name])
        body = b"".join(content)
        out += (write_uvarint(tag), write_uvarint(len(body)), body)


def _default(field: dataclasses.Field[Any]) -> Any:
    inner, is_array, optional = field_shape(field.type)
    if is_array:
        return None if optional else ()
    default = field.default
    # Numbers and strings say what they are; durations, times and ids default to zero.
    if isinstance(default, int | str | bytes):
        return default
    if optional:
        return None
    if isinstance(inner, type) and issubclass(inner, str):
        return ""
    if isinstance(inner, type) and issubclass(inner, bytes):
        return b""
    return {} if dataclasses.is_dataclass(inner) else 0


def field_shape(annotation: Any) -> tuple[Any, bool, bool]:
    """(inner type, is it an array, may it be null) of a field of kio's entities."""
    optional = False
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        options = [option for option in typing.get_args(annotation) if option is not types.NoneType]
        annotation, optional = options[0], True
    if typing.get_origin(annotation) is tuple:
        return typing.get_args(annotation)[0], True, optional
    return annotation, False, optional


def _field_writer(field: dataclasses.Field[Any], flexible: bool) -> _Write:
    inner, is_array, optional = field_shape(field.type)
    write = _entity_writer(inner) if dataclasses.is_dataclass(inner) else _primitive(field, flexible)
    if dataclasses.is_dataclass(inner) and optional and not is_array:
        return _optional_entity_writer(write)
    return _array_writer(write, flexible) if is_array else write


def _optional_entity_writer(write: _Write) -> _Write:
    def write_optional(out: list[bytes], value: Mapping[str, Any] | None) -> None:
        out.append(b"\xff" if value is None else b"\x01")
        if value is not None:
            write(out, value)

    return write_optional


def _array_writer(write: _Write, flexible: bool) -> _Write:
    def write_array(out: list[bytes], values: Sequence[Any] | None) -> None:
        if values is None:
            out.append(b"\x00" if flexible else b"\xff\xff\xff\xff")
            return
        out.append(write_uvarint(len(values) + 1) if flexible else len(values).to_bytes(4, "big"))
        for value in values:
            write(out, value)

    return write_array


def _number(layout: str) -> _Write:
    pack = struct.Struct(layout).pack

    def write(out: list[bytes], value: Any) -> None:
        out.append(pack(value))

    return write


_NUMBERS: dict[str, _Write] = {
    "int8": _number(">b"),
    "int16": _number(">h"),
    "int32": _number(">i"),
    "int64": _number(">q"),
    "uint16": _number(">H"),
    "uint32": _number(">I"),
    "float64": _number(">d"),
    "bool": _number(">?"),
    "error_code": _number(">h"),
    "timedelta_i32": _number(">i"),
    "timedelta_i64": _number(">q"),
    "datetime_i64": _number(">q"),
}


def _primitive(field: dataclasses.Field[Any], flexible: bool) -> _Write:
    kind = field.metadata["kafka_type"]
    if kind in _NUMBERS:
        return _NUMBERS[kind]
    if kind == "uuid":
        return lambda out, value: out.append(value or bytes(16))
    return _compact_bytes if flexible else _long_bytes if kind in ("bytes", "records") else _short_bytes


def _compact_bytes(out: list[bytes], value: str | bytes | None) -> None:
    if value is None:
        out.append(b"\x00")
        return
    raw = value.encode() if isinstance(value, str) else value
    out += (write_uvarint(len(raw) + 1), raw)


def _short_bytes(out: list[bytes], value: str | bytes | None) -> None:
    if value is None:
        out.append(b"\xff\xff")
        return
    raw = value.encode() if isinstance(value, str) else value
    out += (len(raw).to_bytes(2, "big"), raw)


def _long_bytes(out: list[bytes], value: bytes | None) -> None:
    if value is None:
        out.append(b"\xff\xff\xff\xff")
        return
    out += (len(value).to_bytes(4, "big"), value)


def encode_refusal(api_key: int, version: int, error: int) -> bytes | None:
    """A response with nothing but an error, for an API or version that is not served.

    None when no such response exists: the version is not known, or has errors for its parts only.
    """
    try:
        entity = load_response_schema(api_key, version)
        load_request_schema(api_key, version)
    except KioIndexError:
        return None
    if all(field.name != "error_code" for field in dataclasses.fields(entity)):
        return None
    return encode(api_key, version, {"error_code": error})


ERRORS: dict[str, int] = {code.name: int(code) for code in ErrorCode}
"""The number of each error by kio's name for it."""
