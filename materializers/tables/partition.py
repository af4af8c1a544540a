"""The state of one owned partition: its three shards, what they have applied and what no checkpoint holds
yet.

One object for each acquisition. A rebalance that takes the partition away drops the object; work that was in
flight for it finds that it is no longer the current one and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from uuid import uuid4

import msgspec

from materializers.materializer import RowReader, RowWriter, Scope
from materializers.tables.changelog import ChangelogWriter, Checkpoint
from materializers.tables.changes import RowChanges
from materializers.tables.database import Rows
from materializers.tables.meta import Ownership, ShardMeta
from materializers.tables.pending import Letter
from streams.records import AnyRecords

ROW_BYTES: Final = 144
"""Memory of a row beside the bytes of its key and its value: two objects of 33 bytes, rounded up to 16, and
30 to 60 bytes of the dict.
"""


class Shard(Protocol):
    """One scope of one partition: folds records of its topics and keeps its own applied offsets."""

    scope: Scope

    def applied(self, topic: str) -> int:
        """Last offset applied, -1 if none."""
        ...

    def fold(self, topic: str, records: AnyRecords) -> int:
        """Fold consecutive records of one topic, skipping those already applied; the count of events."""
        ...

    def flush(self, writer: RowWriter) -> ShardMeta:
        """Hand over every row changed since the last call, and what the shard has applied."""
        ...

    def take_letters(self) -> list[Letter]:
        """Records refused since the last call."""
        ...

    def restore(self, reader: RowReader, meta: ShardMeta) -> None:
        """Load what must be in memory, once, before the first record."""
        ...


@dataclass(slots=True)
class PartitionState:
    """What a worker holds of one partition. Used on the event loop only.

    Attributes:
        ready: records may be folded, unless it is held: its rows are being replaced.
        lost_s: monotonic time at which its writer turned out to be fenced; None while it is not.
        rows, letters: flushed, in no checkpoint yet. row_bytes: memory of ``rows``, a value counted at each
            flush that changes it. committing_bytes: of the rows that a checkpoint under way has taken.
        flushed: number of the last flush that ``rows`` contain.
        batches: Faust events folded whole since the last flush, and those flushed: to acknowledge.
        events_unflushed, dirty: folded since the last flush.
        gap: the last hole in a topic that made us seek back; the same one twice is real.
    """

    partition: int
    shards: Mapping[Scope, Shard]
    writer: ChangelogWriter
    ownership: Ownership
    ready: bool = False
    held: bool = False
    lost_s: float | None = None
    rows: Rows = field(default_factory=dict)
    row_bytes: int = 0
    committing_bytes: int = 0
    letters: list[Letter] = field(default_factory=list)
    flushed: int = 0
    folded_batches: list[Any] = field(default_factory=list)
    flushed_batches: list[Any] = field(default_factory=list)
    events_unflushed: int = 0
    dirty: bool = False
    gap: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.row_bytes = sum(row_memory(changed, len(changed)) for changed in self.rows.values())

    @property
    def bytes_uncheckpointed(self) -> int:
        """Memory of all rows that no checkpoint holds for certain, rather too much than too little."""
        return self.row_bytes + self.committing_bytes

    def needs_checkpoint(self) -> bool:
        return bool(self.rows or self.letters or self.flushed_batches)

    def merge_rows(self, rows: Rows) -> None:
        """Take in rows; a later value of a row replaces an earlier one."""
        for table, changed in rows.items():
            known = self.rows.setdefault(table, {})
            before = len(known)
            known.update(changed)
            self.row_bytes += row_memory(changed, len(known) - before)

    def take_changes(self, changes: RowChanges) -> None:
        """Take in the rows of a flush as they were written."""
        for table, parts in changes.tables():
            known = self.rows.setdefault(table, {})
            for keys, values, _ in parts:
                before = len(known)
                known.update(zip(keys, values, strict=True))
                self.row_bytes += _memory(keys, values, len(known) - before)

    def mark_flushed(self, flush: int) -> None:
        """The rows, positions and folded batches are on the disk as of flush number ``flush``."""
        self.flushed = flush
        self.events_unflushed = 0
        self.dirty = False
        self.flushed_batches.extend(self.folded_batches)
        self.folded_batches.clear()

    def begin_checkpoint(self, *, claim: bool = False) -> tuple[Checkpoint, list[Any]]:
        """Take everything flushed out of the state: one transaction, and the batches that it acknowledges.

        ``claim``: the first checkpoint of an owner. Its generation is on the disk only once it is committed,
        or two workers could hold the same one.
        """
        generation = self.ownership.generation + claim
        attempt = f"{generation}-{uuid4().hex}"
        self.ownership = msgspec.structs.replace(self.ownership, attempt=attempt, attempt_flush=self.flushed)
        record = msgspec.structs.replace(self.ownership, lineage=attempt, generation=generation)
        checkpoint = Checkpoint(
            partition=self.partition, rows=self.rows, letters=self.letters, ownership=record
        )
        batches = self.flushed_batches
        self.rows, self.letters, self.flushed_batches = {}, [], []
        self.committing_bytes, self.row_bytes = self.row_bytes, 0
        return checkpoint, batches

    def checkpoint_committed(self, checkpoint: Checkpoint) -> None:
        self.ownership = checkpoint.ownership
        self.committing_bytes = 0

    def checkpoint_aborted(self, checkpoint: Checkpoint, batches: list[Any]) -> None:
        """Put back what was taken; rows flushed meanwhile are newer and win."""
        newer, self.rows = self.rows, checkpoint.rows
        self.row_bytes, self.committing_bytes = self.committing_bytes, 0
        self.merge_rows(newer)
        self.letters[:0] = checkpoint.letters
        self.flushed_batches[:0] = batches

    def mark_lost(self) -> None:
        self.ready = False
        self.lost_s = time.monotonic()
        self.committing_bytes = 0


def row_memory(changed: Mapping[bytes, bytes | None], new: int) -> int:
    """Bytes of memory that ``changed`` adds to a dict of rows, of which ``new`` keys are new to it."""
    return _memory(changed.keys(), changed.values(), new)


def _memory(keys: Collection[bytes], values: Collection[bytes | None], new: int) -> int:
    held = sum(map(len, filter(None, values)))
    return held + (sum(map(len, keys)) * new // len(keys) if new else 0) + new * ROW_BYTES
