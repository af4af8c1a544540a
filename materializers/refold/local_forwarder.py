"""In a refold an item's partition is a function call away, and what stands in the log already is not sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from materializers.batches import ItemBatch
from materializers.interner import Interner
from materializers.materializer import Forgotten, Materializer, RowReader, RowWriter
from materializers.shards.erasure_rows import ErasureRows
from materializers.shards.events import Events, concatenate
from materializers.shards.forwarding import Forward, Forwarder
from materializers.shards.homes import Homes
from schemas.model import Schema
from schemas.records.forget_record import ForgottenRecord

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_GATHERED_MAX: Final = 16_384
"""Entries that wait for an item partition's views: they fold many at little more cost than few."""


@dataclass(slots=True)
class _Entries:
    """Entries of several source partitions; ``user`` EntityIds u64[n]."""

    source: U16
    events: Events
    user: U64
    profile: U32

    def __len__(self) -> int:
        return len(self.source)

    def take(self, rows: npt.NDArray[np.generic] | slice) -> _Entries:
        return _Entries(self.source[rows], self.events.take(rows), self.user[rows], self.profile[rows])


class ItemPartition:
    """The views of one item partition, and what they have not folded yet: entries and erasures, in order.

    Args:
        build: makes the views over rows that erasures write through, as the item shard does.
    """

    def __init__(
        self, rows: RowReader, build: Callable[[RowReader], Sequence[Materializer]], partitions: int
    ) -> None:
        self._rows = ErasureRows(rows)
        self._views = build(self._rows)
        for view in self._views:
            view.restore(self._rows)
        self._marks: I64 = np.full(partitions, -1, dtype=np.int64)
        self._waiting: list[_Entries | ForgottenRecord] = []
        self._size = 0

    def go_to(self, marks: Mapping[int, int]) -> None:
        """Fold from here on what stands at or before these offsets, by source partition; the rest waits."""
        for source, mark in marks.items():
            self._marks[source] = mark

    def take(self, source: U16, events: Events, user: U64, profile: U32) -> None:
        self._waiting.append(_Entries(source, events, user, profile))
        self._size += len(events)
        if self._size >= _GATHERED_MAX:
            self.settle()

    def forget(self, record: ForgottenRecord) -> None:
        """Erase a user after the user's entries so far."""
        self._waiting.append(record)

    def settle(self) -> int:
        """Let the views fold what the marks allow; how many entries."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        folded = 0
        together: list[_Entries] = []
        for each in waiting:
            if isinstance(each, _Entries):
                together.append(each)
                continue
            folded += self._fold(together)
            together = []
            self._erase(each)
        return folded + self._fold(together)

    def flush(self, writer: RowWriter) -> None:
        """Hand over every row changed since the last call."""
        self.settle()
        self._rows.write_to(writer)
        for view in self._views:
            view.checkpoint(writer)

    def _fold(self, parts: Sequence[_Entries]) -> int:
        if not parts:
            return 0
        self._rows.settle()
        entries = _joined(parts)
        allowed = entries.events.offset <= self._marks[entries.source]
        if not allowed.all():
            self._waiting.append(entries.take(~allowed))
            self._size += len(self._waiting[-1])  # type: ignore[arg-type]
            entries = entries.take(allowed)
        if len(entries):
            for view in self._views:
                view.on_batch(_batch(entries))
        return len(entries)

    def _erase(self, record: ForgottenRecord) -> None:
        assert record.signals is not None, "an erasure comes from the user's partition"
        source, offset = record.signals
        if offset > self._marks[source]:
            self._waiting.append(record)
            return
        users = Forgotten(np.array([record.entity_id], dtype=np.uint64), np.zeros(1, dtype=np.uint32))
        for view in self._views:
            view.forget(users, self._rows)


def _joined(parts: Sequence[_Entries]) -> _Entries:
    if len(parts) == 1:
        return parts[0]
    return _Entries(
        np.concatenate([part.source for part in parts]),
        concatenate([part.events for part in parts]),
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.profile for part in parts]),
    )


def _batch(entries: _Entries) -> ItemBatch:
    events = entries.events
    return ItemBatch(
        item=events.item,
        user=entries.user,
        signal=events.signal,
        profile=entries.profile,
        weight=events.weight,
        ts_ms=events.ts_ms,
        record_ts_ms=events.record_ts_ms,
        source_partition=entries.source,
        source_offset=events.offset,
    )


class LocalForwarder(Forwarder):
    """``Forwarder`` without a log: entries go to ``destinations``, everything else is in the log already."""

    def __init__(
        self,
        partitions: int,
        schema: Schema,
        items: Interner,
        users: Interner,
        profiles: Interner,
        destinations: Sequence[ItemPartition],
    ) -> None:
        """``destinations``: by item partition; none if no item is folded."""
        no_producer: Any = None
        super().__init__(no_producer, partitions, schema, items, users, profiles, _never)
        self._homes = Homes(items, partitions)
        self._destinations = destinations

    def forward(self, forwards: Sequence[Forward]) -> None:
        """Hand entries to their items' partitions."""
        if not self._destinations:
            return
        events = concatenate([each.events for each in forwards])
        if not len(events):
            return
        profile = np.concatenate([each.profile for each in forwards])
        source = np.concatenate(
            [np.full(len(each.events), each.source_partition, dtype=np.uint16) for each in forwards]
        )
        homes = self._homes.of(events.item)
        order = np.argsort(homes, kind="stable")
        source, events, profile = source[order], events.take(order), profile[order]
        user = self._users.entity_ids[events.user]
        bounds = np.searchsorted(homes[order], np.arange(len(self._destinations) + 1)).tolist()
        for destination, start, end in zip(self._destinations, bounds, bounds[1:], strict=False):
            if start < end:
                part = slice(start, end)
                destination.take(source[part], events.take(part), user[part], profile[part])

    def forget(self, user: int, record: ForgottenRecord) -> None:
        """Let every item partition erase the user in its place."""
        for destination in self._destinations:
            destination.forget(record)
        self._users.forget(user)

    def reroute(self, source_partition: int, homes: U16, events: Events) -> None:
        """The record that re-routes them is in the log."""

    def send_record(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]],
        timestamp_ms: int = 0,
    ) -> None:
        """What a shard would send is in the log."""

    def _produce(
        self, topic: str, partition: int, key: bytes | None, value: bytes, kind: bytes | None
    ) -> None:
        """What a shard would send is in the log."""


def _never(error: BaseException) -> None:
    raise AssertionError("nothing is sent") from error
