"""The engine's own records in ``tidal.signals``: a user's cohort profile changes at this place of the log.

Marked by the header ``tidal-type: profile``; every other consumer skips them. ``source`` is the position of
the user record that caused it, so that a repeated one changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from schemas.cohort_profile import encode_profile
from schemas.errors import RecordError

TYPE_HEADER: Final = "tidal-type"
"""Header of records that are not plain events; its value says what they are."""

PROFILE_TYPE: Final = b"profile"
REROUTED_TYPE: Final = b"rerouted"
MOVED_TYPE: Final = b"moved"
"""Of a delete of a record whose copy was folded in its place: it takes the other key out of the log
and changes nothing.
"""
SOURCE_HEADER: Final = "tidal-source"
"""Of a copied entity record: what and where the original is."""

PROFILE_HEADERS: Final = ((TYPE_HEADER, PROFILE_TYPE),)


class ProfileRecord(msgspec.Struct, frozen=True):
    """``user`` has the cohort profile ``profile`` from here on. ``source`` = (partition, offset) in
    ``tidal.users``."""

    user: str
    profile: dict[str, str]
    source: tuple[int, int]

    @property
    def profile_string(self) -> str:
        """The profile in its canonical form."""
        return encode_profile(self.profile)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ProfileRecord).decode


def encode_profile_record(record: ProfileRecord) -> bytes:
    """The record's value; its key is the user, its headers ``PROFILE_HEADERS``."""
    return _encode(record)


def decode_profile_record(value: bytes) -> ProfileRecord:
    """The record in ``value``.

    Raises:
        RecordError: ``malformed_json``, the value is none.
    """
    try:
        return _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError("malformed_json", "", f"no profile record: {error}") from error


def record_type(headers: Iterable[tuple[str, bytes | None]] | None) -> bytes:
    """What the header says that a record of ``tidal.signals`` is; ``b""`` = events."""
    for name, value in headers or ():
        if name == TYPE_HEADER:
            return value or b""
    return b""
