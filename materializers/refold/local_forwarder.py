"""In a refold an item's partition is a function call away, and what stands in the log already is not sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from materializers.batches import ItemBatch
from materializers.interner import Interner
from materializers.materializer import Materializer
from materializers.shards.events import Events, concatenate
from materializers.shards.forwarding import Forward, Forwarder
from materializers.shards.homes import Homes
from schemas.model import Schema

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]

_GATHERED_MAX: Final = 16_384
"""Entries that wait for an item partition's views: they fold many at little more cost than few."""


class ItemPartition:
    """The views of one item partition, and the entries that they have not folded."""

    def __init__(self, views: Sequence[Materializer], users: Interner, partitions: int) -> None:
        self.views = views
        self._users = users
        self._marks: I64 = np.full(partitions, -1, dtype=np.int64)
        self._waiting: list[tuple[U16, Events, U32]] = []
        self._size = 0

    def go_to(self, marks: Mapping[int, int]) -> None:
        """Fold from here on entries up to these offsets, by source partition; later ones wait."""
        for source, mark in marks.items():
            self._marks[source] = mark

    def take(self, source: U16, events: Events, profile: U32) -> None:
        self._waiting.append((source, events, profile))
        self._size += len(events)
        if self._size >= _GATHERED_MAX:
            self.settle()

    def settle(self) -> int:
        """Let the views fold what the marks allow; how many entries."""
        if not self._waiting:
            return 0
        source = np.concatenate([part[0] for part in self._waiting])
        events = concatenate([part[1] for part in self._waiting])
        profile = np.concatenate([part[2] for part in self._waiting])
        allowed = events.offset <= self._marks[source]
        self._waiting, self._size = [], 0
        if not allowed.all():
            later = np.flatnonzero(~allowed)
            self._waiting = [(source[later], events.take(later), profile[later])]
            rows = np.flatnonzero(allowed)
            source, events, profile = source[rows], events.take(rows), profile[rows]
        if len(events):
            batch = self._batch(source, events, profile)
            for view in self.views:
                view.on_batch(batch)
        return len(events)

    def _batch(self, source: U16, events: Events, profile: U32) -> ItemBatch:
        return ItemBatch(
            item=events.item,
            user=self._users.entity_ids[events.user],
            signal=events.signal,
            profile=profile,
            weight=events.weight,
            ts_ms=events.ts_ms,
            record_ts_ms=events.record_ts_ms,
            source_partition=source,
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
        bounds = np.searchsorted(homes[order], np.arange(len(self._destinations) + 1)).tolist()
        for destination, start, end in zip(self._destinations, bounds, bounds[1:], strict=False):
            if start < end:
                part = slice(start, end)
                destination.take(source[part], events.take(part), profile[part])

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
