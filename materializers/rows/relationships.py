"""Rows of ``relationships``: the weight of an implicit edge from a user.

Key: ``[user EntityId][0x00][RELATIONSHIP_TAG][type code u32 BE][target EntityId u64 BE]``. An edge to a
creator ends in the creator's id, so that a reader of a user's edges needs no second table. One to an item
does not: there are many more of them, and readers know every item that has a signal.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from materializers.rows.errors import RowFormatError
from materializers.rows.fixed import FixedRow
from schemas.keys import row_key, row_keys, split_row_key, suffix_of

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

TABLE: Final = "relationships"
RELATIONSHIP_TAG: Final = 3
VERSION: Final = 1
ROW: Final = FixedRow(TABLE, VERSION, [("updated_ms", "<i8"), ("weight", "<f8")], tailed=True)


class StoredWeight(NamedTuple):
    """``weight`` in [0, 1] as of ``updated_ms``; fade it with ``decay.faded`` to the time of reading.

    ``target`` is ``""`` where it is an item: the key has its EntityId.
    """

    weight: float
    updated_ms: int
    target: str


def relationship_key(user: int, type_code: int, target: int) -> bytes:
    """Key of one edge by EntityIds."""
    return row_key(user, RELATIONSHIP_TAG, type_code.to_bytes(4, "big") + target.to_bytes(8, "big"))


def relationship_keys(users: U64, type_codes: U32, targets: U64) -> list[bytes]:
    """Keys of n edges."""
    return row_keys(users, RELATIONSHIP_TAG, suffix_of(type_codes, targets))


def relationship_range(user: int, type_code: int | None = None) -> tuple[bytes, bytes]:
    """``(start, end)`` keys of all edges of a user, or of those of one type."""
    if type_code is None:
        return row_key(user, RELATIONSHIP_TAG), row_key(user, RELATIONSHIP_TAG + 1)
    prefix = row_key(user, RELATIONSHIP_TAG, type_code.to_bytes(4, "big"))
    return prefix + b"\x00" * 8, prefix + b"\xff" * 9


def split_relationship_key(key: bytes) -> tuple[int, int, int]:
    """``(user, type code, target)``.

    Raises:
        RowFormatError: not a key of this table.
    """
    user, tag, suffix = split_row_key(key)
    if tag != RELATIONSHIP_TAG or len(suffix) != 12:
        raise RowFormatError(TABLE, f"{key.hex()} is not a key of this table")
    return user, int.from_bytes(suffix[:4], "big"), int.from_bytes(suffix[4:], "big")


def decode_relationship(value: bytes) -> StoredWeight:
    """Raises:
    RowFormatError: damaged, or of another version.
    """
    fields = ROW.decode([value])[0]
    return StoredWeight(float(fields["weight"]), int(fields["updated_ms"]), ROW.tail(value).decode())
