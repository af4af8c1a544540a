"""Sends what other partitions must know: re-keyed entries, events found on a wrong partition, profile
records.

The rule of exactly-once re-keying: entries of one source record for one destination are never split over two
forwarded records; each destination hears how far every source partition has been forwarded (``through``),
also when nothing came of it; the receiver drops what is at or below the mark it holds. For a mark to mean
that nothing below is missing, this producer keeps order, never gives up (``message.timeout.ms=0``) and the
worker stops if a delivery fails after all: a gap would let the mark pass lost entries. No fence is needed: a
zombie sends the same entries as its successor, from its own last checkpoint on, without gaps.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer

from materializers.interner import Interner
from materializers.shards.events import Events
from materializers.shards.homes import Homes
from schemas.errors import TidalError
from schemas.model import Schema
from schemas.records.profile_record import (
    PROFILE_TYPE,
    REROUTED_TYPE,
    TYPE_HEADER,
    ProfileRecord,
    encode_profile_record,
)
from schemas.records.rekeyed import RekeyedColumns, encode_rekeyed
from streams.partitioner import partition_for
from streams.topics import BY_ITEM, SIGNALS

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_LINGER_S: Final = 0.003
"""Batches of several partitions arrive together; waiting this long packs them into one record a
destination.
"""
_ENTRIES_NOW: Final = 4_096
"""Beyond so many entries there is nothing to gain from waiting."""
_ENTRIES_MAX: Final = 40_000
"""Of one record, about 2 MB before compression; more only if one source record alone has more."""
_MESSAGE_BYTES_MAX: Final = 64 << 20
_POLL_S: Final = 0.2
_QUEUE_MAX: Final = 200_000
_IN_FLIGHT_MAX: Final = 50_000
"""A slice of user records sends at most one record each, far below the queue's bound."""


class ForwardFailedError(TidalError):
    """The log refused a forwarded record: going on would lose its entries."""


@dataclass(slots=True)
class _Parcel:
    """Entries of one source partition, in offset order, all for one destination."""

    source_partition: int
    events: Events
    profile: U32


@dataclass(slots=True)
class _Outbox:
    parcels: list[_Parcel] = field(default_factory=list)
    through: dict[int, int] = field(default_factory=dict)


def forward_producer(brokers: str) -> Producer:
    """A producer that keeps order and never gives up: what ``through`` promises rests on both."""
    return Producer(
        {
            "bootstrap.servers": brokers,
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": 0,
            "linger.ms": 1,
            "compression.type": "lz4",
            "message.max.bytes": _MESSAGE_BYTES_MAX,
            "queue.buffering.max.messages": _QUEUE_MAX,
            "log_level": 2,
        }
    )


class Forwarder:
    """One for a worker; used on its event loop."""

    def __init__(
        self,
        producer: Producer,
        partitions: int,
        schema: Schema,
        items: Interner,
        users: Interner,
        profiles: Interner,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._partitions = partitions
        self._kinds = [signal.name for signal in schema.signal_list]
        self._items, self._users, self._profiles = items, users, profiles
        self._item_homes = Homes(items, partitions)
        self._on_failure = on_failure
        self._outboxes = [_Outbox() for _ in range(partitions)]
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sent = 0
        self._acknowledged = 0
        self._progress = asyncio.Event()
        self._closed = threading.Event()
        self._producer = producer
        self._poller = threading.Thread(target=self._poll, name="forward-acks", daemon=True)
        self.entries = 0
        self.rerouted = 0

    def start(self) -> None:
        """Call it on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._poller.start()

    def close(self) -> None:
        """Stop at once; whatever is in flight is sent again by whoever replays its source."""
        self._closed.set()
        if self._timer is not None:
            self._timer.cancel()
        self._poller.join()
        self._producer.purge()
        self._producer.close()

    def forward(self, source_partition: int, events: Events, profile: U32, through: int) -> None:
        """Pack accepted events of one source partition for their items' partitions.

        Args:
            profile: wid of each event's cohort profile, u32[n].
            through: everything of the partition up to this offset is in this or an earlier call.
        """
        homes = self._item_homes.of(events.item)
        order = np.argsort(homes, kind="stable")
        bounds = np.searchsorted(homes[order], np.arange(self._partitions + 1))
        for destination, outbox in enumerate(self._outboxes):
            rows = order[bounds[destination] : bounds[destination + 1]]
            if len(rows):
                outbox.parcels.append(_Parcel(source_partition, events.take(rows), profile[rows]))
            outbox.through[source_partition] = through
        self._waiting += len(events)
        self.entries += len(events)
        if self._waiting >= _ENTRIES_NOW:
            self.send()
        elif self._timer is None:
            assert self._loop is not None
            self._timer = self._loop.call_later(_LINGER_S, self.send)

    def send(self) -> None:
        """Hand everything packed so far to the producer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for destination, outbox in enumerate(self._outboxes):
            if outbox.through:
                self._outboxes[destination] = _Outbox()
                self._send_outbox(destination, outbox)
        self._waiting = 0

    def reroute(self, source_partition: int, homes: U16, events: Events) -> None:
        """Send events of users that belong to other partitions of ``tidal.signals`` there.

        Args:
            homes: the partition of each event, u16[n].
        """
        self.rerouted += len(events)
        for destination in np.unique(homes).tolist():
            chosen = events.take(np.flatnonzero(homes == destination))
            for part in _chunks(chosen.offset):
                piece = chosen.take(part)
                through = {source_partition: int(piece.offset[-1])}
                source = np.full(len(piece), source_partition, dtype=np.uint16)
                # A re-routed record has no profiles yet; it carries the users' ids in their place.
                columns = self._columns([piece], [source], [piece.user], self._users, through)
                self._produce(SIGNALS, destination, None, encode_rekeyed(columns), REROUTED_TYPE)

    def send_profile(self, record: ProfileRecord) -> None:
        """Send a profile record into the user's own partition of ``tidal.signals``."""
        key = record.user.encode()
        home = partition_for(key, self._partitions)
        self._produce(SIGNALS, home, key, encode_profile_record(record), PROFILE_TYPE)

    async def room(self) -> None:
        """Return when few enough records are in flight to send those of another slice."""
        while self._sent - self._acknowledged > _IN_FLIGHT_MAX:
            self._progress.clear()
            await self._progress.wait()

    def in_flight(self) -> bool:
        return self._waiting > 0 or self._acknowledged < self._sent

    async def delivered(self) -> None:
        """Return when everything given to this object before the call is acknowledged by the log."""
        self.send()
        target = self._sent
        while self._acknowledged < target:
            self._progress.clear()
            if self._acknowledged < target:
                await self._progress.wait()

    def _send_outbox(self, destination: int, outbox: _Outbox) -> None:
        parcels = [piece for parcel in outbox.parcels for piece in _bounded(parcel)]
        groups: list[list[_Parcel]] = [[]]
        size = 0
        for parcel in parcels:
            if size and size + len(parcel.events) > _ENTRIES_MAX:
                groups.append([])
                size = 0
            groups[-1].append(parcel)
            size += len(parcel.events)
        for group in groups[:-1]:  # a mark holds only for what has been sent before or with it
            through: dict[int, int] = {}
            for parcel in group:
                through[parcel.source_partition] = int(parcel.events.offset[-1])
            self._send_group(destination, group, through)
        self._send_group(destination, groups[-1], outbox.through)

    def _send_group(self, destination: int, parcels: Sequence[_Parcel], through: dict[int, int]) -> None:
        sources = [
            np.full(len(parcel.events), parcel.source_partition, dtype=np.uint16) for parcel in parcels
        ]
        columns = self._columns(
            [parcel.events for parcel in parcels],
            sources,
            [parcel.profile for parcel in parcels],
            self._profiles,
            through,
        )
        self._produce(BY_ITEM, destination, None, encode_rekeyed(columns), None)

    def _columns(
        self,
        events: Sequence[Events],
        sources: Sequence[U16],
        profiles: Sequence[U32],
        profile_strings: Interner,
        through: dict[int, int],
    ) -> RekeyedColumns:
        def column(name: str, dtype: Any) -> npt.NDArray[Any]:
            parts = [getattr(part, name) for part in events]
            return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)

        item_wids, item = np.unique(column("item", np.uint32), return_inverse=True)
        profile_column = np.concatenate(profiles) if profiles else np.empty(0, dtype=np.uint32)
        profile_wids, profile = np.unique(profile_column, return_inverse=True)
        return RekeyedColumns(
            items=self._items.strings(item_wids),
            profiles=profile_strings.strings(profile_wids),
            kinds=self._kinds,
            source_partition=np.concatenate(sources) if sources else np.empty(0, dtype=np.uint16),
            offset=column("offset", np.int64),
            item=item.astype(np.uint32),
            profile=profile.astype(np.uint32),
            kind=column("signal", np.uint16),
            user=self._users.entity_ids[column("user", np.uint32)],
            weight=column("weight", np.int64),
            ts_ms=column("ts_ms", np.int64),
            record_ts_ms=column("record_ts_ms", np.int64),
            through=through,
        )

    def _produce(
        self, topic: str, partition: int, key: bytes | None, value: bytes, kind: bytes | None
    ) -> None:
        headers: Any = [(TYPE_HEADER, kind)] if kind is not None else None
        self._producer.produce(
            topic, partition=partition, key=key, value=value, headers=headers, on_delivery=self._delivered
        )
        self._sent += 1

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(_POLL_S)

    def _delivered(self, error: Any, message: Any) -> None:
        """Called in the polling thread."""
        assert self._loop is not None
        if self._closed.is_set():
            return
        # librdkafka reports records as delivered, without an offset, that a topic seconds old did not keep.
        if error is not None or message.offset() is None:
            cause = error or "acknowledged without an offset"
            failure = ForwardFailedError(
                f"{message.topic()} partition {message.partition()}: the log refused a forwarded record "
                f"({cause}); the worker stops and replays from its last checkpoint"
            )
            self._loop.call_soon_threadsafe(self._on_failure, failure)
            return
        self._loop.call_soon_threadsafe(self._count_delivery)

    def _count_delivery(self) -> None:
        self._acknowledged += 1
        self._progress.set()


def _bounded(parcel: _Parcel) -> list[_Parcel]:
    if len(parcel.events) <= _ENTRIES_MAX:
        return [parcel]
    return [
        _Parcel(parcel.source_partition, parcel.events.take(rows), parcel.profile[rows])
        for rows in _chunks(parcel.events.offset)
    ]


def _chunks(offset: I64) -> list[npt.NDArray[np.intp]]:
    """Positions 0 … n in pieces of about ``_ENTRIES_MAX``, cut only where the source record changes."""
    if len(offset) <= _ENTRIES_MAX:
        return [np.arange(len(offset))]
    starts = np.flatnonzero(np.diff(offset, prepend=offset[0] - 1))
    cuts, last = [0], 0
    for start, end in zip(starts.tolist(), [*starts.tolist()[1:], len(offset)], strict=True):
        if end - last > _ENTRIES_MAX and start > last:
            cuts.append(start)
            last = start
    return [np.arange(start, end) for start, end in zip(cuts, [*cuts[1:], len(offset)], strict=True)]
