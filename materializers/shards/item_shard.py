"""The item shard of one partition: forwarded entries become one batch of events, each once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from materializers.batches import ItemBatch
from materializers.interner import IdCollisionError
from materializers.materializer import Forgotten, RowReader, RowWriter, Scope
from materializers.rows.erasures import ErasurePart
from materializers.shards.context import WorkerContext
from materializers.shards.erasure_rows import ErasureRows
from materializers.shards.erasures import ErasureLog, total
from materializers.shards.rejects import Rejects
from materializers.tables.meta import ShardMeta
from materializers.tables.pending import Letter
from schemas.records.forget_record import FORGET_TYPE, decode_forgotten
from schemas.records.profile_record import record_type
from schemas.records.rekeyed import RekeyedColumns, decode_rekeyed
from streams.records import AnyRecords, records_of
from streams.topics import BY_ITEM

I64 = npt.NDArray[np.int64]

_NOTHING = -1
_GATHERED_MAX: Final = 4_096
"""Entries that wait for a flush; see the user shard."""


class ItemShard:
    """``Shard`` of scope item."""

    scope = Scope.ITEM

    def __init__(self, context: WorkerContext, partition: int, rows: RowReader, rejects: Rejects) -> None:
        self._context = context
        self._rejects = rejects
        self._rows = ErasureRows(rows)
        self._views = context.build_views(Scope.ITEM, partition, self._rows)
        self._erasures = ErasureLog(ErasurePart.ITEM)
        self._gathered: list[ItemBatch] = []
        self._gathered_entries = 0
        self._applied = _NOTHING
        self._hw: I64 = np.full(context.partitions, _NOTHING, dtype=np.int64)

    def applied(self, topic: str) -> int:
        return self._applied

    def fold(self, topic: str, records: AnyRecords) -> int:
        """Take entries in; views fold them at the next flush, or when they are many."""
        fresh = records_of(topic, records).beyond(self._applied) if len(records) else ()
        entries = 0
        for record in fresh:
            if record.headers and record_type(record.headers) == FORGET_TYPE:
                self._forget(record)
            elif (batch := self._read(record)) is not None:
                self._gathered.append(batch)
                self._gathered_entries += len(batch)
                entries += len(batch)
            self._applied = record.offset
        self._context.clock.lap("item: decode")
        if self._gathered_entries >= _GATHERED_MAX:
            self.settle()
        return entries

    def settle(self) -> None:
        """Let the views fold what was gathered."""
        self._rows.settle()
        gathered, self._gathered = self._gathered, []
        self._gathered_entries = 0
        if gathered:
            batch = gathered[0] if len(gathered) == 1 else _join(gathered)
            self._context.clock.lap("item: join")
            for view in self._views:
                view.on_batch(batch)

    def flush(self, writer: RowWriter) -> ShardMeta:
        self.settle()
        self._rows.write_to(writer)
        for view in self._views:
            view.checkpoint(writer)
        self._erasures.flush(writer)
        hw = {source: mark for source, mark in enumerate(self._hw.tolist()) if mark != _NOTHING}
        return ShardMeta(applied={BY_ITEM: self._applied}, hw=hw)

    def take_letters(self) -> list[Letter]:
        return []

    def restore(self, reader: RowReader, meta: ShardMeta) -> None:
        self._applied = meta.applied.get(BY_ITEM, _NOTHING)
        self._hw[:] = _NOTHING
        for source, mark in meta.hw.items():
            self._hw[source] = mark
        self._rows.reopen(reader)
        for view in self._views:
            view.restore(self._rows)

    def _forget(self, record: Any) -> None:
        """Let the views erase a user, once, after the user's entries from the same source."""
        told = self._rejects.decoded(record, decode_forgotten)
        if told is None or told.signals is None or told.signals[1] <= self._hw[told.signals[0]]:
            return
        self.settle()
        self._hw[told.signals[0]] = told.signals[1]
        users = Forgotten(np.array([told.entity_id], dtype=np.uint64), np.zeros(1, dtype=np.uint32))
        erased = total(view.forget(users, self._rows) for view in self._views)
        self._erasures.add(told.source, told.at_ms, erased)

    def _read(self, record: Any) -> ItemBatch | None:
        """The entries of a record that were not applied yet; its marks are taken in either way."""
        columns = self._rejects.decoded(record, decode_rekeyed)
        if columns is None:
            return None
        new = columns.offset > self._hw[columns.source_partition]
        for source, through in columns.through.items():
            self._hw[source] = max(int(self._hw[source]), through)
        signal = self._signals(columns)
        unknown = new & (signal < 0)
        if unknown.any():  # a worker of a newer schema forwarded it: this one cannot count it
            self._rejects.count("unknown_kind", int(unknown.sum()))
            new &= ~unknown
        rows = np.flatnonzero(new)
        return self._batch(columns, rows, signal) if len(rows) else None

    def _signals(self, columns: RekeyedColumns) -> npt.NDArray[np.int32]:
        index = self._context.schema.signal_index
        of_kind = np.array([index.get(kind, -1) for kind in columns.kinds], dtype=np.int32)
        signals: npt.NDArray[np.int32] = of_kind[columns.kind]
        return signals

    def _batch(self, columns: RekeyedColumns, rows: I64, signal: npt.NDArray[np.int32]) -> ItemBatch | None:
        try:
            items = self._context.items.ids(columns.items)
        except IdCollisionError:
            refused = {each.refused for each in self._context.items.collisions(columns.items)}
            items = self._context.items.ids(["" if name in refused else name for name in columns.items])
            bad = np.array([name in refused for name in columns.items], dtype=bool)[columns.item[rows]]
            self._rejects.count("id_collision", int(bad.sum()))
            rows = rows[~bad]
        profiles = self._context.profiles.ids(columns.profiles)
        return ItemBatch(
            item=items[columns.item[rows]],
            user=columns.user[rows],
            signal=signal[rows].astype(np.uint16),
            profile=profiles[columns.profile[rows]],
            weight=columns.weight[rows],
            ts_ms=columns.ts_ms[rows],
            record_ts_ms=columns.record_ts_ms[rows],
            source_partition=columns.source_partition[rows],
            source_offset=columns.offset[rows],
        )


def _join(batches: Sequence[ItemBatch]) -> ItemBatch:
    return ItemBatch(
        *(
            np.concatenate([getattr(batch, name) for batch in batches])
            for name in ItemBatch.__dataclass_fields__
        )
    )
