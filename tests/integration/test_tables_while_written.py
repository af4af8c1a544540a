"""Tables read by another process while a worker writes them, changes files, is killed and starts again."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from materializers.tables.errors import TablesUnreadableError
from materializers.tables.feed import CHANGES_TABLE, change_key
from materializers.tables.layout import WORKER
from materializers.tables.secondary import WorkerTables
from tests.busy_tables import KEYS, NUMBER_BYTES, TABLE, key, keys_named

ROOT = Path(__file__).parents[2]
KILLS = 8
LOOKS_PER_LIFE = 40
OPEN_WITHIN_S = 30.0


def _start(folder: Path, memtable_bytes: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.busy_tables", str(folder), str(memtable_bytes)]
    return subprocess.Popen(command, cwd=ROOT)


def _open(folder: Path, secondary: Path) -> WorkerTables:
    deadline_s = time.monotonic() + OPEN_WITHIN_S
    while True:
        try:
            return WorkerTables(folder, secondary)
        except TablesUnreadableError:
            assert time.monotonic() < deadline_s, "the writer made no database"
            time.sleep(0.05)


class _Expected:
    """What the feed says of every key."""

    def __init__(self, tables: WorkerTables) -> None:
        self._tables = tables
        self.flush = tables.flush_number
        self.writer_of = self.stored(range(KEYS))

    def stored(self, numbers: range | list[int]) -> dict[int, int]:
        """The flush that wrote each key last, as the tables show it; 0 without a row."""
        rows = self._tables.get_many(TABLE.name, [(0, key(number)) for number in numbers])
        flushes = [0 if row is None else int.from_bytes(row[:NUMBER_BYTES], "big") for row in rows]
        return dict(zip(numbers, flushes, strict=True))

    def scanned(self) -> dict[int, int]:
        """The same of every key, from one scan."""
        found = dict.fromkeys(range(KEYS), 0)
        for name, row in self._tables.scan(TABLE.name, 0):
            found[int.from_bytes(name, "big")] = int.from_bytes(row[:NUMBER_BYTES], "big")
        return found

    def follow(self) -> None:
        found = list(self._tables.scan(CHANGES_TABLE, WORKER, change_key(self.flush + 1)))
        newest = self._tables.flush_number
        assert [int.from_bytes(flush, "big") for flush, _ in found] == list(range(self.flush + 1, newest + 1))
        for flush, row in found:
            self.writer_of.update(dict.fromkeys(keys_named(row), int.from_bytes(flush, "big")))
        self.flush = newest


@pytest.mark.slow
@pytest.mark.parametrize(("memtable_kib", "pauses"), [(200, False), (4096, True)])
def test_every_catch_up_shows_one_moment_of_all_tables(
    tmp_path: Path, memtable_kib: int, pauses: bool
) -> None:
    """No row is missing or old where the feed has told of it, and the feed has no hole.

    With small memtables files change all the time. With large ones, and a reader that is busy elsewhere
    around a kill, the log whose beginning it has read is in files when it comes back.
    """
    folder = tmp_path / "w0"
    chance = random.Random(20261121)
    writer = _start(folder, memtable_kib << 10)
    tables = None
    try:
        tables = _open(folder, tmp_path / "secondary")
        expected = _Expected(tables)
        for kill in range(KILLS + 1):
            for look in range(LOOKS_PER_LIFE):
                tables.catch_up()
                expected.follow()
                numbers = range(KEYS) if look % 8 == 0 else chance.sample(range(KEYS), 50)
                assert expected.stored(numbers) == {each: expected.writer_of[each] for each in numbers}
                assert look % 8 or expected.scanned() == expected.writer_of
                time.sleep(chance.choice([0.002, 0.01, 0.03]))
            if kill < KILLS:
                time.sleep(chance.uniform(0.05, 0.4) if pauses else 0)
                writer.send_signal(signal.SIGKILL)
                writer.wait()
                writer = _start(folder, memtable_kib << 10)
                time.sleep(chance.uniform(0, 1.5) if pauses else 0)
        assert expected.flush > 500
    finally:
        writer.kill()
        writer.wait()
        if tables is not None:
            tables.close()
