"""Rows of ``co_engagement``: of an item and a state, a sample of the partition's users who ever had it.

Key: ``[item EntityId][0x00][CO_ENGAGEMENT_TAG][state code u32 BE]``. Value: a version byte, the
number of users u16 LE and their EntityIds u64 LE, ascending: the smallest of all, at most ``USERS_MAX``.
EntityIds are hashes, so a full row is a uniform sample, and the same users are in the samples of all items
that they share.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from materializers.rows.errors import RowFormatError, check_version
from schemas.keys import row_key, row_keys, split_row_key, suffix_of

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

TABLE: Final = "co_engagement"
CO_ENGAGEMENT_TAG: Final = 12
VERSION: Final = 1
USERS_MAX: Final = 128
"""Users of one row. A row of 1 KB; with 8 partitions an item's users are complete up to about a thousand."""
_HEAD: Final = struct.Struct("<BH")
_USER: Final = np.dtype("<u8")


def co_engagement_key(item: int, state_code: int) -> bytes:
    """Key of one item and state by EntityId and code."""
    return row_key(item, CO_ENGAGEMENT_TAG, state_code.to_bytes(4, "big"))


def co_engagement_keys(items: U64, state_codes: U32) -> list[bytes]:
    """Keys of n items and states."""
    return row_keys(items, CO_ENGAGEMENT_TAG, suffix_of(state_codes))


def split_co_engagement_key(key: bytes) -> tuple[int, int]:
    """``(item, state code)``.

    Raises:
        RowFormatError: not a key of this table.
    """
    item, tag, suffix = split_row_key(key)
    if tag != CO_ENGAGEMENT_TAG or len(suffix) != 4:
        raise RowFormatError(TABLE, f"{key.hex()} is not a key of this table")
    return item, int.from_bytes(suffix, "big")


def encode_users(users: U64) -> bytes:
    """One row's value; ``users`` u64[n] ascending."""
    return _HEAD.pack(VERSION, len(users)) + users.astype(_USER).tobytes()


def decode_users(value: bytes) -> U64:
    """EntityIds u64[n], ascending.

    Raises:
        RowFormatError: damaged, or of another version.
    """
    if len(value) < _HEAD.size:
        raise RowFormatError(TABLE, f"a row of {len(value)} bytes")
    version, count = _HEAD.unpack_from(value)
    check_version(TABLE, version, VERSION)
    if len(value) != _HEAD.size + count * _USER.itemsize:
        raise RowFormatError(TABLE, f"a row of {len(value)} bytes for {count} users")
    return np.frombuffer(value, dtype=_USER, offset=_HEAD.size).astype(np.uint64)
