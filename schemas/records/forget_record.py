"""The engine's own records that carry an erasure to everybody who holds something of the user.

All have the header ``tidal-type: forget``; every other consumer skips them. A deleted user's record causes
one ``ForgetRecord`` in the user's partition of ``tidal.signals``, where it has its place among the user's
events; from there, and from ``tidal.relationships``, a ``ForgottenRecord`` reaches every partition. It names
the user by EntityId alone. ``source`` is always the position of the deleting record in ``tidal.users``: it
makes a repeated record harmless, and it is the erasure's name.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from schemas.errors import RecordError
from schemas.records.profile_record import TYPE_HEADER

FORGET_TYPE: Final = b"forget"
FORGET_HEADERS: Final = ((TYPE_HEADER, FORGET_TYPE),)
_SEPARATOR: Final = "-"


class ForgetRecord(msgspec.Struct, frozen=True):
    """``user`` was deleted by the record at ``source`` = (partition, offset) of ``tidal.users``, written at
    ``at_ms``. What comes after this record belongs to somebody new.
    """

    user: str
    source: tuple[int, int]
    at_ms: int


class ForgottenRecord(msgspec.Struct, frozen=True):
    """The same for those who know users by EntityId. ``signals`` is the position of the ``ForgetRecord``; of
    a record in ``tidal.relationships``, which is not forwarded from there, it is None.
    """

    entity_id: int
    source: tuple[int, int]
    at_ms: int
    signals: tuple[int, int] | None = None


_encode = msgspec.json.Encoder().encode
_forget = msgspec.json.Decoder(ForgetRecord)
_forgotten = msgspec.json.Decoder(ForgottenRecord)
_Record = TypeVar("_Record", ForgetRecord, ForgottenRecord)


def encode_forget(record: ForgetRecord | ForgottenRecord) -> bytes:
    """The record's value."""
    return _encode(record)


def decode_forget(value: bytes) -> ForgetRecord:
    """Raises:
    RecordError: ``malformed_json``, the value is none.
    """
    return _decoded(_forget, value)


def decode_forgotten(value: bytes) -> ForgottenRecord:
    """Raises:
    RecordError: ``malformed_json``, the value is none.
    """
    return _decoded(_forgotten, value)


def erasure_name(source: tuple[int, int]) -> str:
    """The public name of an erasure: where in ``tidal.users`` it was asked for, and nothing of the user."""
    return f"{source[0]}{_SEPARATOR}{source[1]}"


def parse_erasure(name: str) -> tuple[int, int] | None:
    """The source of an erasure by its name; None if it is none."""
    parts = name.split(_SEPARATOR)
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        return None
    return int(parts[0]), int(parts[1])


def _decoded(decoder: msgspec.json.Decoder[_Record], value: bytes) -> _Record:
    try:
        return decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError("malformed_json", "", f"no forget record: {error}") from error
