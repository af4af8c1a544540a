"""The rows that a partition's changelog would restore, by key.

A damaged disk may lack rows that the changelog has. Where the new rows lack them too, nothing on the disk
says that they have to be deleted, and a restore would bring them back.
"""

from __future__ import annotations

from collections.abc import Iterable

from materializers.refold.log_reader import LogReader, Place, Span
from materializers.tables.changelog import split_changelog_key
from materializers.tables.layout import table_code


class ChangelogKeys:
    """Keys of some tables in one partition of one changelog topic. Holds them in memory."""

    def __init__(self, log: LogReader, place: Place, tables: Iterable[str]) -> None:
        self._log = log
        self._place = place
        self._table_of = {table_code(table): table for table in tables}
        self._next: int | None = None
        self.keys: dict[str, set[bytes]] = {table: set() for table in self._table_of.values()}

    def read_on(self) -> None:
        """Take in what was committed since the last call.

        Raises:
            LogUnreadableError: the log does not answer.
        """
        bounds = self._log.bounds(self._place)
        start = bounds.start if self._next is None else self._next
        self._next = bounds.end
        for batch in self._log.read({self._place: Span(start, bounds.end)}):
            for records in batch:
                for key, value in zip(records.key, records.value, strict=True):
                    self._take(key or b"", value)

    def _take(self, changelog_key: bytes, value: bytes | None) -> None:
        code, key = split_changelog_key(changelog_key)
        table = self._table_of.get(code)
        if table is None:
            return
        if value is None:
            self.keys[table].discard(key)
        else:
            self.keys[table].add(key)
