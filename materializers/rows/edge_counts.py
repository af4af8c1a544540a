"""Rows of ``edge_counts``: how many explicit edges of a type leave an entity, or lead to it.

Key: ``[EntityId][0x00][EDGE_OUT_TAG or EDGE_IN_TAG][type code u32 BE]``. Edges stand in their source's
partition, so the count of edges into an entity is the sum of its rows in all partitions. No edges, no row.
"""

from __future__ import annotations

import struct
from typing import Final

from materializers.rows.entities import EDGE_IN_TAG, EDGE_OUT_TAG
from materializers.rows.errors import RowFormatError, check_version
from schemas.ids import code_of, entity_id
from schemas.keys import row_key

TABLE: Final = "edge_counts"
VERSION: Final = 1
_COUNT: Final = struct.Struct("<BQ")


def edge_count_key(external_id: str, type_name: str, *, outgoing: bool) -> bytes:
    """Key of the count of one type's edges from an entity (or to it)."""
    tag = EDGE_OUT_TAG if outgoing else EDGE_IN_TAG
    return row_key(entity_id(external_id), tag, code_of(type_name).to_bytes(4, "big"))


def encode_edge_count(count: int) -> bytes:
    return _COUNT.pack(VERSION, count)


def decode_edge_count(value: bytes | None) -> int:
    """The count; 0 where there is no row.

    Raises:
        RowFormatError: damaged, or of another version.
    """
    if value is None:
        return 0
    if len(value) != _COUNT.size:
        raise RowFormatError(TABLE, f"a row of {len(value)} bytes")
    version, count = _COUNT.unpack(value)
    check_version(TABLE, version, VERSION)
    return int(count)
