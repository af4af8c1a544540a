"""How large each table of a worker is: counted row by row while that is cheap, then estimated from files.

RocksDB knows the size of its files, not of our tables, which share them. A small database is counted whole,
and so is a table of few rows. Of a large one each file tells its entries and its first and last key: a file
inside the table counts whole, one that spans several large tables is shared out evenly among them. Files hold
replaced and deleted rows too until they are compacted, so an estimate is rather too high; and it lacks what
is in memory only.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from materializers.tables.database import Database
from materializers.tables.layout import PREFIX_BYTES, STATE_TABLES, row_prefix

COUNTED_ROWS_MAX: Final = 2_000
"""Of one table in one partition; beyond it files tell. 100 large ones cost 0.2 s of CPU a look."""
DATABASE_ROWS_MAX: Final = 200_000
"""A database of fewer rows is counted whole, for about the same: most of it may be in memory only."""

_ROWS_AT_ONCE: Final = 500


@dataclass(slots=True)
class TableSize:
    """Rows and bytes (keys and values) of one table in all partitions of a worker."""

    rows: int = 0
    bytes: int = 0
    estimated: bool = False


async def table_sizes(database: Database, partitions: Iterable[int]) -> dict[str, TableSize]:
    """Sizes by table, largest first; gives the loop its turn every few hundred rows."""
    sizes: dict[str, TableSize] = defaultdict(TableSize)
    large: dict[bytes, str] = {}
    is_small = database.rows_estimated() <= DATABASE_ROWS_MAX
    rows_max = DATABASE_ROWS_MAX if is_small else COUNTED_ROWS_MAX
    for partition in sorted(partitions):
        for table in database.tables:
            if table in STATE_TABLES:
                continue
            counted = await _count(database, table, partition, rows_max)
            if counted.estimated:
                large[row_prefix(table, partition)] = table
                sizes[table].estimated = True
            elif counted.rows:
                sizes[table].rows += counted.rows
                sizes[table].bytes += counted.bytes
    for table, share in shares_of_files(database.files(), large).items():
        sizes[table].rows += share.rows
        sizes[table].bytes += share.bytes
    return dict(sorted(sizes.items(), key=lambda entry: -entry[1].bytes))


def shares_of_files(files: Iterable[Mapping[str, Any]], large: Mapping[bytes, str]) -> dict[str, TableSize]:
    """What files hold of large tables, of which `large` has the keys' prefix of each partition."""
    prefixes = sorted(large)
    shares: dict[str, TableSize] = {table: TableSize() for table in large.values()}
    for file in files:
        first, last = file["start_key"][:PREFIX_BYTES], file["end_key"][:PREFIX_BYTES]
        within = [prefix for prefix in prefixes if first <= prefix <= last]
        for prefix in within:
            share = shares[large[prefix]]
            share.rows += max(0, file["num_entries"] - 2 * file["num_deletions"]) // len(within)
            share.bytes += file["size"] // len(within)
    return shares


async def _count(database: Database, table: str, partition: int, rows_max: int) -> TableSize:
    """The size of a table of at most `rows_max` rows; of a larger one only that it is (``estimated``)."""
    size = TableSize()
    for key, value in database.scan(table, partition):
        size.rows += 1
        size.bytes += PREFIX_BYTES + len(key) + len(value)
        if size.rows > rows_max:
            return TableSize(estimated=True)
        if size.rows % _ROWS_AT_ONCE == 0:
            await asyncio.sleep(0)
    return size
