"""Keys of table rows: ``[EntityId u64 BE][0x00][tag u8][suffix]``, so that one entity's rows are one range.

In RocksDB the partition stands before it as u16 BE; in a changelog topic it is the topic's own partition.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

SEPARATOR: Final = 0
HEADER_BYTES: Final = 10
PARTITION_BYTES: Final = 2


def row_key(entity_id: int, tag: int, suffix: bytes = b"") -> bytes:
    """The key of one row. ``entity_id`` is a u64, ``tag`` a u8."""
    return entity_id.to_bytes(8, "big") + bytes((SEPARATOR, tag)) + suffix


def split_row_key(key: bytes) -> tuple[int, int, bytes]:
    """``(entity_id, tag, suffix)`` of a row key.

    Raises:
        ValueError: the key is too short or has no separator; the table holds something else.
    """
    if len(key) < HEADER_BYTES or key[8] != SEPARATOR:
        raise ValueError(f"{key.hex()} is not a row key: expected 8 bytes, 0x00, a tag and a suffix")
    return int.from_bytes(key[:8], "big"), key[9], key[HEADER_BYTES:]


def row_keys(
    entity_ids: npt.NDArray[np.uint64], tag: int, suffix: npt.NDArray[np.uint8] | None = None
) -> list[bytes]:
    """``row_key`` of many entities at once.

    Args:
        entity_ids: u64[n].
        tag: one tag for all.
        suffix: u8[n, k], or None for no suffix.
    """
    width = 0 if suffix is None else suffix.shape[1]
    table = np.empty((len(entity_ids), HEADER_BYTES + width), dtype=np.uint8)
    table[:, :8] = entity_ids.astype(">u8").view(np.uint8).reshape(-1, 8)
    table[:, 8] = SEPARATOR
    table[:, 9] = tag
    if suffix is not None:
        table[:, HEADER_BYTES:] = suffix
    return _rows(table)


def suffix_of(*columns: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Unsigned integer columns, each [n], as the bytes of a suffix u8[n, k]: big endian, so they sort."""
    parts = [
        column.astype(column.dtype.newbyteorder(">"))
        .view(np.uint8)
        .reshape(len(column), column.dtype.itemsize)
        for column in columns
    ]
    return np.concatenate(parts, axis=1)


def partition_key(partition: int, key: bytes) -> bytes:
    """A row key as RocksDB holds it: ``[partition u16 BE]`` before it."""
    return partition.to_bytes(PARTITION_BYTES, "big") + key


def split_partition_key(key: bytes) -> tuple[int, bytes]:
    """``(partition, row key)``, the inverse of ``partition_key``."""
    if len(key) < PARTITION_BYTES:
        raise ValueError(f"{key.hex()} is not a partition's key: expected at least {PARTITION_BYTES} bytes")
    return int.from_bytes(key[:PARTITION_BYTES], "big"), key[PARTITION_BYTES:]


def entity_range(entity_id: int) -> tuple[bytes, bytes]:
    """``(start, end)`` with start <= every row key of the entity < end."""
    start = entity_id.to_bytes(8, "big")
    return start + bytes((SEPARATOR,)), start + bytes((SEPARATOR + 1,))


def _rows(table: npt.NDArray[np.uint8]) -> list[bytes]:
    width = table.shape[1]
    blob = table.tobytes()
    return [blob[at : at + width] for at in range(0, len(blob), width)]
