"""Rows of ``erasures``: what was erased of a user, without a word about who it was.

Key: ``[partition u16 BE][offset u64 BE][part u8]`` of the deleting record in ``tidal.users``; each partition
writes one row for each part that it has done. A part is *wiped* once the disk has no trace of it any more.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

import msgspec

from materializers.rows.errors import RowFormatError

TABLE: Final = "erasures"
OPEN_TABLE: Final = "open_erasures"
"""Keys of the parts that are not wiped yet, without values: the reports of years need not be read to find
them.
"""
VERSION: Final = 1
_KEY: Final = struct.Struct(">HQB")


class ErasurePart(IntEnum):
    """Who erases: the entity shard the record (in the user's partition) and the edges (in every partition);
    the user shard what signals have taught (in the user's partition); the item shard users counted by item.
    """

    RECORD = 0
    EDGES = 1
    USER = 2
    ITEM = 3


EVERYWHERE: Final = (ErasurePart.EDGES, ErasurePart.ITEM)
"""Parts that every partition has; the others only the user's."""


class ErasureRow(msgspec.Struct, frozen=True, array_like=True):
    """``at_ms``: log time of the deleting record. ``rows``: erased or rewritten, by table. ``wiped_ms``: when
    the disk was clean; 0 = it is not yet.
    """

    version: int
    at_ms: int
    rows: Mapping[str, int]
    wiped_ms: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(ErasureRow)


def erasure_key(source: tuple[int, int], part: ErasurePart) -> bytes:
    return _KEY.pack(*source, part)


def split_erasure_key(key: bytes) -> tuple[tuple[int, int], ErasurePart]:
    """``(source, part)``.

    Raises:
        RowFormatError: not a key of this table.
    """
    if len(key) != _KEY.size or key[-1] not in set(ErasurePart):
        raise RowFormatError(TABLE, f"{key.hex()} is not a key of this table")
    partition, offset, part = _KEY.unpack(key)
    return (partition, offset), ErasurePart(part)


def encode_erasure(at_ms: int, rows: Mapping[str, int], wiped_ms: int = 0) -> bytes:
    return _encode(ErasureRow(VERSION, at_ms, dict(rows), wiped_ms))


def decode_erasure(value: bytes) -> ErasureRow:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    try:
        row = _decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise RowFormatError(TABLE, str(error)) from error
    if row.version != VERSION:
        raise RowFormatError(TABLE, f"version {row.version}, this program reads {VERSION}")
    return row
