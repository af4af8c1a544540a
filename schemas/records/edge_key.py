"""Keys of ``tidal.relationships``: one for each (type, source, target), so compaction keeps the newest."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.errors import RecordError

_decoder = msgspec.json.Decoder(tuple[str, str, str])
_FIELDS = ("type", "from", "to")


def edge_key(type_name: str, source: str, target: str) -> bytes:
    """The record key ``["follows","user_U","creator_C"]``: JSON, so any client can write it.

    The partition is that of the *source*, not of this key: give it explicitly when producing.
    """
    return msgspec.json.encode((type_name, source, target))


def parse_edge_key(key: bytes) -> tuple[str, str, str]:
    """``(type, source, target)`` of a record key.

    A connector's object ``{"type", "from", "to"}`` is understood too, with or without its schema envelope.

    Raises:
        RecordError: ``wrong_type``, the key is no JSON array of three strings.
    """
    try:
        return _decoder.decode(key)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        columns = _columns(key)
        if columns is not None:
            return columns
        raise RecordError(
            "wrong_type", "key", 'an edge\'s key is the JSON array ["type","from","to"], this one is not'
        ) from error


def _columns(key: bytes) -> tuple[str, str, str] | None:
    try:
        document: Any = msgspec.json.decode(key)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(document, dict) and document.keys() == {"schema", "payload"}:
        document = document["payload"]
    if not isinstance(document, dict):
        return None
    type_name, source, target = (document.get(name) for name in _FIELDS)
    if isinstance(type_name, str) and isinstance(source, str) and isinstance(target, str):
        return type_name, source, target
    return None
