"""Bucket blocks: counts and sums of one time bucket as columns, and the deltas that feed readers.

A block's key is ``[resolution u8][bucket start in minutes u32 BE][seq u32 BE]``, so that a table's minute
buckets, then its hour buckets, then its day buckets follow each other in time order. The blocks of a bucket
are numbered from 0 without a gap.

A block has one of two layouts: columns, each as narrow as it can be, or for a few cells plain rows, which
are written by the thousand at once: 10,000 buckets that get a cell each cost 10 ms instead of a second.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from materializers.grouping import distinct
from materializers.rows.errors import RowFormatError, check_version
from materializers.rows.packing import Packer, Unpacker, packed_runs
from schemas.weights import WEIGHT_SCALE

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

VERSION: Final = 2
ROWS_LAYOUT_MAX: Final = 24
"""Up to so many cells a block is written as rows: columns have a fixed cost of as many bytes."""
_KEY: Final = struct.Struct(">BII")
_HEADER: Final = struct.Struct("<BIB")  # version, cells, flags: as a ``Packer`` begins
_WITH_PROFILES: Final = 1
_UNIT_WEIGHTS: Final = 2  # every sum is its count: weights of 1.0, the usual case, take no bytes
_WITH_MOMENTS: Final = 4
_ROWS: Final = 8
_COUNT_MAX: Final = (1 << 32) - 1


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
    ``moment`` f64 is Σ weight · (ts − start of its UTC day) in micro-units · ms for signals that decay
    linearly, 0 for others, None where no row has one; it is counted from the day whatever the bucket, so
    that buckets merge by adding. The same cell may stand in several blocks of a bucket: its value is their
    total.
    """

    item: U32
    signal: U32
    profile: U32 | None
    count: I64
    sum: I64
    moment: F64 | None = None

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: I64) -> BlockColumns:
        """Some rows, as copies."""
        return BlockColumns(
            self.item[rows],
            self.signal[rows],
            None if self.profile is None else self.profile[rows],
            self.count[rows],
            self.sum[rows],
            None if self.moment is None else self.moment[rows],
        )


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
    """One block, whatever its size."""
    if len(block) <= ROWS_LAYOUT_MAX and fits_rows(block):
        return encode_few(block, [0, len(block)])[0]
    packer = Packer(VERSION, len(block))
    _pack_cells(packer, block)
    return packer.done()


def encode_few(cells: BlockColumns, edges: Sequence[int]) -> list[bytes]:
    """Many small blocks at once, as rows: block i holds the cells ``edges[i]`` to ``edges[i + 1]``.

    Raises:
        ValueError: a count that takes more than 32 bits.
    """
    if not fits_rows(cells):
        raise ValueError("a count of more than 32 bits: encode it with encode_block")
    timed = cells.moment is not None and bool(cells.moment.any())
    flags = _ROWS | (0 if cells.profile is None else _WITH_PROFILES) | (_WITH_MOMENTS if timed else 0)
    rows = np.empty(len(cells), dtype=_row_dtype(flags))
    rows["item"], rows["signal"] = cells.item, cells.signal
    rows["count"], rows["sum"] = cells.count, cells.sum
    if cells.profile is not None:
        rows["profile"] = cells.profile
    if timed:
        rows["moment"] = cells.moment
    blob, width = rows.tobytes(), rows.itemsize
    return [
        _HEADER.pack(VERSION, end - start, flags) + blob[start * width : end * width]
        for start, end in pairwise(edges)
    ]


def encode_many(cells: BlockColumns, edges: Sequence[int]) -> list[bytes]:
    """Many blocks at once, each as ``encode_block`` writes it: block i holds the cells ``edges[i]`` to
    ``edges[i + 1]``, at least one.
    """
    lengths = np.diff(np.asarray(edges))
    is_long = lengths > (ROWS_LAYOUT_MAX if fits_rows(cells) else 0)
    if is_long.all():
        return _encode_columns(cells, edges)
    blocks = encode_few(cells, edges) if fits_rows(cells) else []
    if is_long.any():
        rows = np.flatnonzero(np.repeat(is_long, lengths))
        long_edges = np.concatenate([[0], np.cumsum(lengths[is_long])]).tolist()
        columns = _encode_columns(cells.take(rows), long_edges)
        for run, block in zip(np.flatnonzero(is_long).tolist(), columns, strict=True):
            blocks[run] = block
    return blocks


def decode_block(value: bytes) -> BlockColumns:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    if len(value) >= _HEADER.size and value[_HEADER.size - 1] & _ROWS:
        return _decode_rows(value)
    reader = Unpacker("block", value, VERSION)
    block = _unpack_cells(reader)
    reader.end()
    return block


def block_rows(value: bytes) -> int:
    """How many cells a block holds.

    Raises:
        RowFormatError: damaged, or of another version.
    """
    if len(value) < _HEADER.size:
        raise RowFormatError("block", f"{len(value)} bytes")
    version, rows, _ = _HEADER.unpack_from(value)
    check_version("block", version, VERSION)
    return int(rows)


def decode_many(values: Sequence[bytes]) -> list[tuple[list[int], BlockColumns]]:
    """Blocks in bulk: groups of positions in ``values``, and the cells of those blocks one after another.

    Blocks in the layout of rows are read together, a thousand in the time of a few.

    Raises:
        RowFormatError: one is damaged, or of another version.
    """
    alike: dict[int, list[int]] = {}
    groups: list[tuple[list[int], BlockColumns]] = []
    for position, value in enumerate(values):
        block_rows(value)
        flags = value[_HEADER.size - 1]
        if flags & _ROWS:
            alike.setdefault(flags, []).append(position)
        else:
            groups.append(([position], decode_block(value)))
    for flags, positions in alike.items():
        bodies = b"".join([values[position][_HEADER.size :] for position in positions])
        rows = sum(block_rows(values[position]) for position in positions)
        groups.append((positions, _decode_rows(_HEADER.pack(VERSION, rows, flags) + bodies)))
    return groups


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
    timed = np.flatnonzero(cells.moment) if cells.moment is not None else _NO_ROWS
    packer.flags(
        (_UNIT_WEIGHTS if unit else 0)
        | (0 if cells.profile is None else _WITH_PROFILES)
        | (_WITH_MOMENTS if len(timed) else 0)
    )
    codes = distinct(cells.signal)
    signal = np.searchsorted(codes, cells.signal)
    packer.list_of_ints(codes).ints(cells.item).ints(signal)
    if cells.profile is not None:
        packer.ints(cells.profile)
    packer.ints(cells.count)
    if not unit:
        packer.ints(cells.sum)
    if cells.moment is not None and len(timed):
        # Only the rows that have one, as the bits of the floats.
        packer.list_of_ints(timed).list_of_ints(cells.moment[timed].view(np.int64))


def _encode_columns(cells: BlockColumns, edges: Sequence[int]) -> list[bytes]:
    """``_pack_cells`` of each run, with a header before it. A column of all runs is narrowed at once."""
    unit = np.logical_and.reduceat(cells.sum == cells.count * WEIGHT_SCALE, edges[:-1]).tolist()
    code_counts, codes, signals = _signals_of(cells.signal, edges)
    items, counts, sums = (packed_runs(column, edges) for column in (cells.item, cells.count, cells.sum))
    profiles = None if cells.profile is None else packed_runs(cells.profile, edges)
    moments = _moments_of(cells.moment, edges)
    blocks = []
    for run, (start, end) in enumerate(pairwise(edges)):
        flags = _UNIT_WEIGHTS if unit[run] else 0
        parts = [code_counts[run].to_bytes(4, "little"), codes[run], items[run], signals[run]]
        if profiles is not None:
            flags |= _WITH_PROFILES
            parts.append(profiles[run])
        parts.append(counts[run])
        if not unit[run]:
            parts.append(sums[run])
        if run in moments:
            flags |= _WITH_MOMENTS
            parts.append(moments[run])
        blocks.append(b"".join([_HEADER.pack(VERSION, end - start, flags), *parts]))
    return blocks


def _signals_of(signal: U32, edges: Sequence[int]) -> tuple[list[int], list[bytes], list[bytes]]:
    """Of each run how many different codes it has, these ascending, and which of them each cell has."""
    lengths = np.diff(np.asarray(edges))
    runs = np.arange(len(lengths))
    codes = distinct(signal)
    pairs = np.repeat(runs, lengths) * len(codes) + np.searchsorted(codes, signal)
    present = distinct(pairs)
    first = np.searchsorted(present, np.arange(len(lengths) + 1) * len(codes))
    index = np.searchsorted(present, pairs) - np.repeat(first[:-1], lengths)
    return (
        np.diff(first).tolist(),
        packed_runs(codes[present % len(codes)], first.tolist()),
        packed_runs(index, edges),
    )


def _moments_of(moment: F64 | None, edges: Sequence[int]) -> dict[int, bytes]:
    """The moments of each run that has some: which rows, and the bits of the floats."""
    timed = _NO_ROWS if moment is None else np.flatnonzero(moment)
    if moment is None or not len(timed):
        return {}
    bounds = np.searchsorted(timed, edges)
    filled = np.flatnonzero(np.diff(bounds))
    starts = np.asarray(edges)[:-1]
    counts = np.diff(bounds)[filled]
    rows = timed - np.repeat(starts[filled], counts)
    ends = [0, *np.cumsum(counts).tolist()]
    packed = zip(packed_runs(rows, ends), packed_runs(moment[timed].view(np.int64), ends), strict=True)
    return {
        run: b"".join([size, row, size, value])
        for run, (row, value), size in zip(
            filled.tolist(), packed, [count.to_bytes(4, "little") for count in counts.tolist()], strict=True
        )
    }


def _unpack_cells(reader: Unpacker) -> BlockColumns:
    flags = reader.flags()
    codes = reader.list_of_ints().astype(np.uint32)
    item = reader.ints().astype(np.uint32)
    signal = codes[reader.ints()]
    profile = reader.ints().astype(np.uint32) if flags & _WITH_PROFILES else None
    count = reader.ints()
    total = count * WEIGHT_SCALE if flags & _UNIT_WEIGHTS else reader.ints()
    moment = _unpack_moments(reader) if flags & _WITH_MOMENTS else None
    return BlockColumns(item, signal, profile, count, total, moment)


def _unpack_moments(reader: Unpacker) -> F64:
    rows, values = reader.list_of_ints(), reader.list_of_ints()
    if len(rows) != len(values) or (len(rows) and not 0 <= rows.min() <= rows.max() < reader.n):
        raise RowFormatError("block", "moments of rows that it does not have")
    moment = np.zeros(reader.n, dtype=np.float64)
    moment[rows] = values.view(np.float64)
    return moment


def _row_dtype(flags: int) -> np.dtype[np.void]:
    fields = [("item", "<u4"), ("signal", "<u4"), ("count", "<u4"), ("sum", "<i8")]
    if flags & _WITH_PROFILES:
        fields.append(("profile", "<u4"))
    if flags & _WITH_MOMENTS:
        fields.append(("moment", "<f8"))
    return np.dtype(fields)


def fits_rows(cells: BlockColumns) -> bool:
    """Whether the layout of rows can hold these cells: its counts have 32 bits."""
    return not len(cells) or bool(cells.count.min() >= 0 and cells.count.max() <= _COUNT_MAX)


def _decode_rows(value: bytes) -> BlockColumns:
    version, n, flags = _HEADER.unpack_from(value)
    check_version("block", version, VERSION)
    dtype = _row_dtype(flags)
    if len(value) != _HEADER.size + n * dtype.itemsize:
        raise RowFormatError("block", f"{len(value)} bytes, {n} rows take {n * dtype.itemsize}")
    rows = np.frombuffer(value, dtype=dtype, offset=_HEADER.size)
    return BlockColumns(
        rows["item"].astype(np.uint32),
        rows["signal"].astype(np.uint32),
        rows["profile"].astype(np.uint32) if flags & _WITH_PROFILES else None,
        rows["count"].astype(np.int64),
        rows["sum"].astype(np.int64),
        rows["moment"].astype(np.float64) if flags & _WITH_MOMENTS else None,
    )


_NO_ROWS: Final = np.empty(0, dtype=np.int64)
