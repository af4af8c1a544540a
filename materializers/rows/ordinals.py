"""Rows of the ordinal dictionaries (``item_ids``, ``item_profiles``, ``user_items``) and their feed sections.

Key: the ordinal, u32 BE. Value: a version byte and the string in UTF-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from materializers.rows.errors import RowFormatError, check_version
from materializers.rows.packing import Packer, Unpacker

VERSION: Final = 1
ITEM_IDS: Final = "item_ids"
ITEM_PROFILES: Final = "item_profiles"
USER_ITEMS: Final = "user_items"
_KEY_BYTES: Final = 4
_VERSION_BYTE: Final = bytes((VERSION,))


class NewOrdinals(NamedTuple):
    """Feed section: ``strings[i]`` has the ordinal ``first + i``."""

    first: int
    strings: list[str]


def ordinal_keys(first: int, count: int) -> list[bytes]:
    """Keys of the ordinals first, first + 1, …"""
    blob = np.arange(first, first + count, dtype=">u4").tobytes()
    return [blob[at : at + _KEY_BYTES] for at in range(0, len(blob), _KEY_BYTES)]


def decode_ordinal_key(key: bytes) -> int:
    if len(key) != _KEY_BYTES:
        raise RowFormatError("ordinal key", f"{key.hex()} is not a u32")
    return int.from_bytes(key, "big")


def encode_ordinals(strings: Sequence[str]) -> list[bytes]:
    """One value for each string."""
    return [_VERSION_BYTE + string.encode() for string in strings]


def decode_ordinal(value: bytes) -> str:
    """Raises:
    RowFormatError: of another version.
    """
    check_version("ordinal", value[0] if value else -1, VERSION)
    return value[1:].decode()


def encode_new_ordinals(first: int, strings: Sequence[str]) -> bytes:
    return Packer(VERSION, len(strings)).scalar(first).strings(strings).done()


def decode_new_ordinals(payload: bytes) -> NewOrdinals:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    reader = Unpacker("new ordinals", payload, VERSION)
    fresh = NewOrdinals(reader.scalar(), reader.strings())
    reader.end()
    return fresh
