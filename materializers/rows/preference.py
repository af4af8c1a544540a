"""Rows of ``preference``: a user's long- and short-term vector in one embedding slot.

Key: ``[user EntityId][0x00][PREFERENCE_TAG][slot code u32 BE]``. A user without an update has no row.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from materializers.rows.errors import RowFormatError
from materializers.rows.fixed import Field, FixedRow
from schemas.ids import code_of
from schemas.keys import row_key, row_keys, suffix_of

F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]

TABLE: Final = "preference"
PREFERENCE_TAG: Final = 2
VERSION: Final = 1


class Preference(NamedTuple):
    """``updates`` so far; ``long`` and ``short``, f32[dim] at unit length."""

    updates: int
    long: F32
    short: F32


def preference_row(dim: int) -> FixedRow:
    """The layout of a row whose slot has ``dim`` dimensions."""
    vectors: list[Field] = [("long", "<f4", (dim,)), ("short", "<f4", (dim,))]
    return FixedRow(TABLE, VERSION, [("dim", "<u4"), ("updates", "<u4"), *vectors])


def preference_key(user: int, slot: str) -> bytes:
    """Key of one user's row for the slot of that name."""
    return row_key(user, PREFERENCE_TAG, code_of(slot).to_bytes(4, "big"))


def preference_keys(users: U64, slot: str) -> list[bytes]:
    """Keys of n users."""
    codes = np.full(len(users), code_of(slot), dtype=np.uint32)
    return row_keys(users, PREFERENCE_TAG, suffix_of(codes))


def decode_preference(value: bytes) -> Preference:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    head = preference_row(0)
    if len(value) < head.width:
        raise RowFormatError(TABLE, f"a row of {len(value)} bytes")
    dim = int(head.decode([value[: head.width]])["dim"][0])
    fields = preference_row(min(dim, len(value))).decode([value])[0]
    return Preference(int(fields["updates"]), fields["long"].copy(), fields["short"].copy())
