"""Where a table's row is in RocksDB: few column families, tables told apart by the key.

A reader's catch-up costs about half a millisecond *for each column family*, with the GIL held (measured: 22
families 10 ms, 6 families 2.4 ms), and it runs every few milliseconds. So there are two, and the tables of
the views share one:

* ``default``: ``[partition u16 BE][code of the table u32 BE][row key]``; what follows the partition is also
  the key in the changelog. A partition is one range.
* ``state``: ``[code u32 BE][partition u16 BE][row key]``: what the runtime keeps of each partition, and the
  change feed. A table is one range, so that a reader finds all partitions at once, and short-lived rows stay
  out of the way of long-lived ones.
"""

from __future__ import annotations

from typing import Final

from materializers.tables.feed import CHANGES_TABLE
from materializers.tables.meta import META_TABLE
from schemas.ids import code_of
from schemas.keys import PARTITION_BYTES

DEFAULT_FAMILY: Final = "default"
STATE_FAMILY: Final = "state"

PENDING_TABLE: Final = "pending"
STATE_TABLES: Final = frozenset((META_TABLE, PENDING_TABLE, CHANGES_TABLE))

CODE_BYTES: Final = 4
PREFIX_BYTES: Final = PARTITION_BYTES + CODE_BYTES
WORKER: Final = 0xFFFF
"""In place of a partition: a row of the worker as a whole."""
PARTITIONS_MAX: Final = WORKER - 1
PARTITION_END: Final = b"\xff" * 9
"""Above every row key: none begins with nine such bytes (an EntityId is followed by a zero)."""


def table_code(table: str) -> bytes:
    return code_of(table).to_bytes(CODE_BYTES, "big")


def family_of(table: str) -> str:
    return STATE_FAMILY if table in STATE_TABLES else DEFAULT_FAMILY


def row_prefix(table: str, partition: int) -> bytes:
    """What stands before a row key."""
    number = partition.to_bytes(PARTITION_BYTES, "big")
    return table_code(table) + number if table in STATE_TABLES else number + table_code(table)


def row_range(table: str, partition: int, start: bytes, end: bytes | None) -> tuple[bytes, bytes]:
    """``(first, after)``: the full keys of rows with ``start <= key < end``."""
    prefix = row_prefix(table, partition)
    return prefix + start, prefix + (PARTITION_END if end is None else end)


def partition_range(partition: int) -> tuple[bytes, bytes]:
    """All rows of a partition in the default family."""
    return partition.to_bytes(PARTITION_BYTES, "big"), (partition + 1).to_bytes(PARTITION_BYTES, "big")
