"""Bucket blocks: counts and sums of one time bucket as columns, and the deltas that feed readers.

A block's key is ``[resolution u8][bucket start in minutes u32 BE][seq u32 BE]``, so that a table's minute
buckets, then its hour buckets, then its day buckets follow each other in time order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from materializers.rows.errors import RowFormatError
from materializers.rows.packing import Packer, Unpacker
from schemas.weights import WEIGHT_SCALE

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]

VERSION: Final = 1
_KEY: Final = struct.Struct(">BII")
_WITH_PROFILES: Final = 1
_UNIT_WEIGHTS: Final = 2  # every sum is its count: weights of 1.0, the usual case, take no bytes


class Resolution(IntEnum):
    """Length of a bucket."""

    MINUTE = 0
    HOUR = 1
    DAY = 2

    @property
    def minutes(self) -> int:
        return (1, 60, 1440)[self]


@dataclass(slots=True, frozen=True)
class BlockColumns:
    """Counters of one bucket, n rows.

    ``item`` u32 is the partition's ordinal, ``signal`` u32 the signal's code, ``profile`` u32 the partition's
    ordinal of a cohort profile or None where the table has none; ``count`` i64, ``sum`` i64 in micro-units.
    The same cell may stand in several blocks of a bucket: its value is their total.
    """

    item: U32
    signal: U32
    profile: U32 | None
    count: I64
    sum: I64

    def __len__(self) -> int:
        return len(self.item)


@dataclass(slots=True, frozen=True)
class BlockDeltas:
    """What one flush added, n rows: ``resolution`` u8, ``bucket`` u32 (start, minutes since 1970), cells."""

    resolution: U8
    bucket: U32
    cells: BlockColumns

    def __len__(self) -> int:
        return len(self.bucket)


def block_key(resolution: int, bucket: int, seq: int) -> bytes:
    """Key of block ``seq`` of the bucket that starts at minute ``bucket``."""
    return _KEY.pack(resolution, bucket, seq)


def split_block_key(key: bytes) -> tuple[Resolution, int, int]:
    """``(resolution, bucket, seq)``.

    Raises:
        RowFormatError: not a block's key.
    """
    if len(key) != _KEY.size or key[0] > Resolution.DAY:
        raise RowFormatError("block key", f"{key.hex()} is not [resolution][bucket][seq]")
    resolution, bucket, seq = _KEY.unpack(key)
    return Resolution(resolution), bucket, seq


def block_range(resolution: int, first_bucket: int, end_bucket: int) -> tuple[bytes, bytes]:
    """``(start, end)`` keys of all blocks whose bucket b has first_bucket <= b < end_bucket."""
    return _KEY.pack(resolution, first_bucket, 0), _KEY.pack(resolution, end_bucket, 0)


def resolution_range(resolution: int) -> tuple[bytes, bytes]:
    """``(start, end)`` keys of all blocks of one resolution."""
    return bytes((resolution,)), bytes((resolution + 1,))


def encode_block(block: BlockColumns) -> bytes:
    packer = Packer(VERSION, len(block))
    _pack_cells(packer, block)
    return packer.done()


def decode_block(value: bytes) -> BlockColumns:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    reader = Unpacker("block", value, VERSION)
    block = _unpack_cells(reader)
    reader.end()
    return block


def encode_deltas(deltas: BlockDeltas) -> bytes:
    """Feed sections ``global_blocks`` and ``cohort_blocks``."""
    packer = Packer(VERSION, len(deltas)).ints(deltas.resolution).ints(deltas.bucket)
    _pack_cells(packer, deltas.cells)
    return packer.done()


def decode_deltas(payload: bytes) -> BlockDeltas:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    reader = Unpacker("block deltas", payload, VERSION)
    resolution = reader.ints().astype(np.uint8)
    bucket = reader.ints().astype(np.uint32)
    deltas = BlockDeltas(resolution, bucket, _unpack_cells(reader))
    reader.end()
    return deltas


def _pack_cells(packer: Packer, cells: BlockColumns) -> None:
    unit = bool(np.array_equal(cells.sum, cells.count * WEIGHT_SCALE))
    packer.flags((_UNIT_WEIGHTS if unit else 0) | (0 if cells.profile is None else _WITH_PROFILES))
    codes, signal = np.unique(cells.signal, return_inverse=True)
    packer.list_of_ints(codes).ints(cells.item).ints(signal)
    if cells.profile is not None:
        packer.ints(cells.profile)
    packer.ints(cells.count)
    if not unit:
        packer.ints(cells.sum)


def _unpack_cells(reader: Unpacker) -> BlockColumns:
    flags = reader.flags()
    codes = reader.list_of_ints().astype(np.uint32)
    item = reader.ints().astype(np.uint32)
    signal = codes[reader.ints()]
    profile = reader.ints().astype(np.uint32) if flags & _WITH_PROFILES else None
    count = reader.ints()
    total = count * WEIGHT_SCALE if flags & _UNIT_WEIGHTS else reader.ints()
    return BlockColumns(item, signal, profile, count, total)
