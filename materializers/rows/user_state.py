"""Rows of ``user_state``: which items a user has in a state, as Roaring bitmaps of the partition's ordinals.

Key: ``[user EntityId][0x00][STATE_TAG][state code u32 BE][chunk u16 BE]``; a row holds the ordinals whose
high 16 bits are ``chunk``, so that one event rewrites one container and not a user's whole history.
Value: a version byte and the bitmap of 32-bit ordinals in Roaring's portable form. No items, no row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from materializers.rows.errors import RowFormatError, check_version
from schemas.keys import row_key, row_keys, split_row_key, suffix_of

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

TABLE: Final = "user_state"
STATE_TAG: Final = 4
VERSION: Final = 1
CHUNK_BITS: Final = 16
_VERSION_BYTE: Final = bytes((VERSION,))


def state_key(user: int, state_code: int, chunk: int) -> bytes:
    """Key of one container."""
    return row_key(user, STATE_TAG, state_code.to_bytes(4, "big") + chunk.to_bytes(2, "big"))


def state_keys(users: U64, state_codes: U32, chunks: U16) -> list[bytes]:
    """Keys of n containers."""
    return row_keys(users, STATE_TAG, suffix_of(state_codes, chunks))


def state_range(user: int, state_code: int | None = None) -> tuple[bytes, bytes]:
    """``(start, end)`` keys of all states of a user, or of one."""
    if state_code is None:
        return row_key(user, STATE_TAG), row_key(user, STATE_TAG + 1)
    prefix = row_key(user, STATE_TAG, state_code.to_bytes(4, "big"))
    return prefix + b"\x00\x00", prefix + b"\xff\xff\xff"


def split_state_key(key: bytes) -> tuple[int, int, int]:
    """``(user, state code, chunk)``.

    Raises:
        RowFormatError: not a key of this table.
    """
    user, tag, suffix = split_row_key(key)
    if tag != STATE_TAG or len(suffix) != 6:
        raise RowFormatError(TABLE, f"{key.hex()} is not a key of this table")
    return user, int.from_bytes(suffix[:4], "big"), int.from_bytes(suffix[4:], "big")


def encode_container(ordinals: BitMap) -> bytes:
    """One row's value."""
    return _VERSION_BYTE + ordinals.serialize()


def decode_container(value: bytes) -> BitMap:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    check_version(TABLE, value[0] if value else -1, VERSION)
    try:
        return BitMap.deserialize(value[1:])
    except (ValueError, IndexError) as error:
        raise RowFormatError(TABLE, f"not a Roaring bitmap ({error})") from error


def decode_state(values: Iterable[bytes]) -> BitMap:
    """All items of a state from its rows."""
    return BitMap.union(BitMap(), *(decode_container(value) for value in values))
