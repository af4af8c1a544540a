"""What a flush writes: changed rows, applied offsets, what is pending, and the change feed that tells of it.

One write batch for all partitions, on the event loop and without an await, so atomic with respect to folds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from materializers.stage_clock import StageClock
from materializers.tables.database import Database, PartitionWriter
from materializers.tables.errors import FlushBrokenError
from materializers.tables.feed import (
    CHANGES_TABLE,
    OWNERSHIP_SECTION,
    REPLACED_SECTION,
    Change,
    OwnershipChange,
    Section,
    change_key,
    encode_change,
    encode_ownership_change,
)
from materializers.tables.layout import WORKER
from materializers.tables.meta import META_TABLE, encode
from materializers.tables.partition import PartitionState
from materializers.tables.pending import put_pending

_FEED_TRIM_EVERY: Final = 64


class Flushes:
    """Of one worker."""

    def __init__(self, database: Database, feed_keep_s: float, clock: StageClock) -> None:
        """``feed_keep_s``: how long a reader of the change feed may sleep."""
        self._database = database
        self._feed_keep_s = feed_keep_s
        self._clock = clock
        self._feed_times: list[tuple[float, int]] = []
        self._feed_trimmed = 0
        self._broken_off = False

    def write(self, states: Sequence[PartitionState]) -> int:
        """Write what has changed in ``states``; the number of rows.

        After one that failed none is tried, not even at the end: it would write offsets whose rows are lost,
        where the worker's next start reads them from the log.

        Raises:
            FlushBrokenError: an earlier one failed.
        """
        if self._broken_off:
            raise FlushBrokenError("an earlier flush failed; the worker stops and folds those records again")
        self._broken_off = True
        rows = self._write(sorted(states, key=lambda state: state.partition))  # a sorted batch is quicker
        self._broken_off = False
        return rows

    def replace(self, state: PartitionState, rows: dict[str, dict[bytes, bytes | None]]) -> None:
        """Write rows of a held partition in place of all that it had, and tell readers to read it anew."""
        batch = self._database.begin_flush()
        flush = self._database.flush_number
        writer = PartitionWriter(self._database, batch, state.partition)
        for table, changed in rows.items():
            writer.changes.put_rows(table, changed)
        writer.feed(REPLACED_SECTION, b"")
        writer.finish()
        put_pending(self._database, batch, state.partition, flush, writer.changes.names(), [])
        self._write_feed(batch, flush, writer.sections)
        self._database.write(batch)
        state.merge_rows(rows)
        state.mark_flushed(flush)

    def announce(self, state: PartitionState, *, owned: bool) -> None:
        """Tell readers of the change feed that the partition's rows begin or cease to be ours."""
        batch = self._database.begin_flush()
        payload = encode_ownership_change(OwnershipChange(owned, state.ownership.generation))
        flush = self._database.flush_number
        self._write_feed(batch, flush, [Section(OWNERSHIP_SECTION, state.partition, payload)])
        self._database.write(batch)

    def trim_feed(self, through: int) -> None:
        """Forget what the change feed told up to flush number ``through``."""
        batch = self._database.batch()
        self._database.delete_rows(batch, CHANGES_TABLE, WORKER, change_key(0), change_key(through + 1))
        self._database.write(batch)
        self._feed_times = [entry for entry in self._feed_times if entry[1] > through]
        self._feed_trimmed = max(self._feed_trimmed, through + 1)

    def _write(self, states: Sequence[PartitionState]) -> int:
        batch = self._database.begin_flush()
        flush = self._database.flush_number
        writers = [self._partition(state, batch, flush) for state in states]
        self._write_feed(batch, flush, [section for writer in writers for section in writer.sections])
        self._clock.lap("flush: feed")
        self._database.write(batch)
        self._clock.lap("flush: RocksDB write")
        for state, writer in zip(states, writers, strict=True):
            state.take_changes(writer.changes)
            state.mark_flushed(flush)
        self._clock.lap("flush: keep for the checkpoint")
        return sum(len(writer.changes) for writer in writers)

    def _partition(self, state: PartitionState, batch: Any, flush: int) -> PartitionWriter:
        writer = PartitionWriter(self._database, batch, state.partition)
        letters = []
        for scope, shard in state.shards.items():
            meta = shard.flush(writer)
            writer.put(META_TABLE, scope.encode(), encode(meta))
            letters.extend(shard.take_letters())
        self._clock.lap("flush: rows of the shards")
        writer.finish()
        self._clock.lap("flush: fill the write batch")
        put_pending(self._database, batch, state.partition, flush, writer.changes.names(), letters)
        self._clock.lap("flush: names of pending rows")
        state.letters.extend(letters)
        return writer

    def _write_feed(self, batch: Any, flush: int, sections: list[Section]) -> None:
        change = Change(flush, int(time.time() * 1000), sections)
        self._database.put(batch, CHANGES_TABLE, WORKER, change_key(flush), encode_change(change))
        now_s = time.monotonic()
        self._feed_times.append((now_s, flush))
        if flush % _FEED_TRIM_EVERY:
            return
        kept = [entry for entry in self._feed_times if entry[0] > now_s - self._feed_keep_s]
        through = kept[0][1] if kept else flush
        self._database.delete_rows(
            batch, CHANGES_TABLE, WORKER, change_key(self._feed_trimmed), change_key(through)
        )
        self._feed_times, self._feed_trimmed = kept, through
