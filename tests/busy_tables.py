"""A process that writes tables without pause, for tests of what reads them.

``python -m tests.busy_tables DIR MEMTABLE_BYTES``. Every flush gives some of the keys its own number and
names them in the change feed. The smaller the memtables, the more often files change.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from materializers.materializer import TableSpec
from materializers.tables.database import Database, DatabaseSettings
from materializers.tables.feed import CHANGES_TABLE, change_key
from materializers.tables.layout import WORKER

TABLE = TableSpec("cells", "number")
KEYS = 3000
NUMBER_BYTES = 8
_KEY_BYTES = 2
_LOG_OF_MEMTABLES = 4


def key(number: int) -> bytes:
    return number.to_bytes(_KEY_BYTES, "big")


def keys_named(row: bytes) -> list[int]:
    """The keys that a row of the feed says were written."""
    return [int.from_bytes(row[at : at + _KEY_BYTES], "big") for at in range(0, len(row), _KEY_BYTES)]


def write_until_killed(folder: Path, memtable_bytes: int) -> None:
    settings = DatabaseSettings(
        memtable_bytes=memtable_bytes, wal_bytes_max=_LOG_OF_MEMTABLES * memtable_bytes
    )
    database = Database(folder / "db", (TABLE,), settings)
    chance = random.Random()
    while True:
        batch = database.begin_flush()
        flush = database.flush_number.to_bytes(NUMBER_BYTES, "big")
        chosen = chance.sample(range(KEYS), chance.choice([1, 5, 60]))
        for number in chosen:
            value = flush + chance.randbytes(chance.randrange(300))
            database.put(batch, TABLE.name, 0, key(number), value)
        named = b"".join(map(key, chosen))
        database.put(batch, CHANGES_TABLE, WORKER, change_key(database.flush_number), named)
        database.write(batch)
        time.sleep(chance.choice([0, 0.001, 0.003]))


if __name__ == "__main__":
    write_until_killed(Path(sys.argv[1]), int(sys.argv[2]))
