"""Rows of ``global_cells``: the hot value of one item and signal, and the feed section that carries them.

Key: ``[item EntityId][0x00][CELL_TAG][signal code u32 BE]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from materializers.grouping import distinct
from materializers.rows.errors import RowFormatError, check_version
from materializers.rows.fixed import FixedRow
from materializers.rows.packing import Packer, Unpacker
from schemas.keys import row_key, row_keys, suffix_of

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

TABLE: Final = "global_cells"
SECTION: Final = "global_cells"
CELL_TAG: Final = 1
VERSION: Final = 1


@dataclass(slots=True, frozen=True)
class Cells:
    """n cells. ``ref_ms`` i64 is the newest timestamp seen, ``count`` i64, ``sum`` i64 in micro-units,
    ``acc`` f64[n, k] the decay accumulators at ``ref_ms`` (see ``materializers.decay``)."""

    ref_ms: I64
    count: I64
    sum: I64
    acc: F64

    def __len__(self) -> int:
        return len(self.ref_ms)


@dataclass(slots=True, frozen=True)
class CellChanges:
    """Feed section: the new absolute values of n cells, by the partition's item ordinal and signal code."""

    item: U32
    signal: U32
    cells: Cells


def cell_row(accumulators: int) -> FixedRow:
    """The layout of a row with this many decay accumulators (the schema's largest number of half-lives)."""
    return FixedRow(
        TABLE,
        VERSION,
        [
            ("accumulators", "u1"),
            ("ref_ms", "<i8"),
            ("count", "<i8"),
            ("sum", "<i8"),
            ("acc", "<f8", (accumulators,)),
        ],
    )


def cell_key(item: int, signal_code: int) -> bytes:
    """Key of one cell by EntityId and code."""
    return row_key(item, CELL_TAG, signal_code.to_bytes(4, "big"))


def cell_keys(items: U64, signal_codes: U32) -> list[bytes]:
    """Keys of n cells."""
    return row_keys(items, CELL_TAG, suffix_of(signal_codes))


def decode_cells(values: list[bytes]) -> Cells:
    """Rows of any mixture of cells of one schema version.

    Raises:
        RowFormatError: rows of another version, or with differing numbers of accumulators.
    """
    if not values:
        nothing = np.empty(0, dtype=np.int64)
        return Cells(nothing, nothing, nothing, np.empty((0, 0), dtype=np.float64))
    head = values[0]
    if len(head) < 2:
        raise RowFormatError(TABLE, f"a row of {len(head)} bytes")
    check_version(TABLE, head[0], VERSION)
    rows = cell_row(head[1]).decode(values)
    if (rows["accumulators"] != head[1]).any():
        raise RowFormatError(TABLE, "rows with different numbers of accumulators")
    return Cells(
        rows["ref_ms"].astype(np.int64),
        rows["count"].astype(np.int64),
        rows["sum"].astype(np.int64),
        rows["acc"].astype(np.float64),
    )


def encode_changes(changes: CellChanges) -> bytes:
    cells = changes.cells
    codes = distinct(changes.signal)
    signal = np.searchsorted(codes, changes.signal)
    packer = Packer(VERSION, len(cells)).flags(cells.acc.shape[1]).list_of_ints(codes)
    packer.ints(changes.item).ints(signal).ints(cells.ref_ms).ints(cells.count).ints(cells.sum)
    return packer.floats(cells.acc).done()


def decode_changes(payload: bytes) -> CellChanges:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    reader = Unpacker(SECTION, payload, VERSION)
    width = reader.flags()
    codes = reader.list_of_ints().astype(np.uint32)
    item = reader.ints().astype(np.uint32)
    signal = codes[reader.ints()]
    cells = Cells(reader.ints(), reader.ints(), reader.ints(), reader.floats(width))
    reader.end()
    return CellChanges(item, signal, cells)
