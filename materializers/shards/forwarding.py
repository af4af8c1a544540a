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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer

from materializers.interner import Interner
from materializers.shards.events import Events, concatenate, no_events
from materializers.shards.homes import Homes
from schemas.errors import TidalError
from schemas.model import Schema
from schemas.records.forget_record import FORGET_HEADERS, ForgottenRecord, encode_forget
from schemas.records.profile_record import (
    PROFILE_TYPE,
    REROUTED_TYPE,
    TYPE_HEADER,
    ProfileRecord,
    encode_profile_record,
)
from schemas.records.rekeyed import RekeyedColumns, encode_rekeyed
from streams.broker_security import broker_options
from streams.partitioner import partition_for
from streams.topics import BY_ITEM, SIGNALS

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_ENTRIES_MAX: Final = 40_000
"""Of one record, about 2 MB before compression; more only if one source record alone has more."""
_MESSAGE_BYTES_MAX: Final = 64 << 20
_POLL_S: Final = 0.2
_QUEUE_MAX: Final = 200_000
_IN_FLIGHT_MAX: Final = 50_000
"""A slice of user records sends at most one record each, far below the queue's bound."""


class ForwardFailedError(TidalError):
    """The log refused a forwarded record: going on would lose its entries."""


class Forward(NamedTuple):
    """Accepted events of one source partition, in offset order, with the wid of each one's cohort profile,
    u32[n]; ``through``: everything of the partition up to this offset is in this or an earlier one.
    """

    source_partition: int
    events: Events
    profile: U32
    through: int


@dataclass(slots=True)
class _Parcel:
    """Entries for one destination; those of each source partition in offset order. ``source`` u16[n]."""

    source: U16
    events: Events
    profile: U32

    def take(self, rows: npt.NDArray[np.generic] | slice) -> _Parcel:
        return _Parcel(self.source[rows], self.events.take(rows), self.profile[rows])

    def marks(self) -> dict[int, int]:
        """How far each source partition is in it."""
        sources, last = np.unique(self.source[::-1], return_index=True)
        return dict(zip(sources.tolist(), self.events.offset[::-1][last].tolist(), strict=True))


@dataclass(slots=True)
class _Outbox:
    parcels: list[_Parcel] = field(default_factory=list)
    through: dict[int, int] = field(default_factory=dict)


def forward_producer(brokers: str) -> Producer:
    """A producer that keeps order and never gives up: what ``through`` promises rests on both."""
    return Producer(
        {
            **broker_options(brokers),
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
        self._waiting = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sent = 0
        self._acknowledged = 0
        self._ends: dict[tuple[str, int], int] = {}
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
        self._poller.join()
        self._producer.purge()
        self._producer.close()

    def forward(self, forwards: Sequence[Forward]) -> None:
        """Pack events for their items' partitions; ``send`` hands them on."""
        events = concatenate([each.events for each in forwards])
        homes = self._item_homes.of(events.item)
        order = np.argsort(homes, kind="stable")
        source = [np.full(len(each.events), each.source_partition, dtype=np.uint16) for each in forwards]
        ordered = _Parcel(
            np.concatenate(source), events, np.concatenate([each.profile for each in forwards])
        ).take(order)
        bounds = np.searchsorted(homes[order], np.arange(self._partitions + 1)).tolist()
        marks = {each.source_partition: each.through for each in forwards}
        for outbox, start, end in zip(self._outboxes, bounds, bounds[1:], strict=False):
            if start < end:
                outbox.parcels.append(ordered.take(slice(start, end)))
            outbox.through.update(marks)
        self._waiting = True
        self.entries += len(events)

    def send(self) -> None:
        """Hand what is packed to the producer: one record for each destination, more if it is a lot."""
        if not self._waiting:
            return
        self._waiting = False
        for destination, outbox in enumerate(self._outboxes):
            if outbox.through:
                self._outboxes[destination] = _Outbox()
                self._send_outbox(destination, outbox)

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
                columns = self._columns(_Parcel(source, piece, piece.user), self._users, through)
                self._produce(SIGNALS, destination, None, encode_rekeyed(columns), REROUTED_TYPE)

    def send_profile(self, record: ProfileRecord) -> None:
        """Send a profile record into the user's own partition of ``tidal.signals``."""
        key = record.user.encode()
        home = partition_for(key, self._partitions)
        self._produce(SIGNALS, home, key, encode_profile_record(record), PROFILE_TYPE)

    def forget(self, user: int, record: ForgottenRecord) -> None:
        """Tell every item partition that a user is erased, after the user's events and before what follows.

        Args:
            user: the user's wid; the dictionary forgets the id.
        """
        self.send()
        value = encode_forget(record)
        for destination in range(self._partitions):
            self.send_record(BY_ITEM, destination, None, value, FORGET_HEADERS)
        self._users.forget(user)

    def send_record(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]],
        timestamp_ms: int = 0,
    ) -> None:
        """Send one record of the engine's own after everything given to this object before.

        ``timestamp_ms`` 0 is the time of sending.
        """
        self.send()
        self._producer.produce(
            topic,
            partition=partition,
            key=key,
            value=value,
            headers=list(headers),
            timestamp=timestamp_ms,
            on_delivery=self._delivered,
        )
        self._sent += 1

    async def room(self) -> None:
        """Return when few enough records are in flight to send those of another slice."""
        while self._sent - self._acknowledged > _IN_FLIGHT_MAX:
            self._progress.clear()
            await self._progress.wait()

    def in_flight(self) -> bool:
        return self._waiting or self._acknowledged < self._sent

    def ends(self) -> Mapping[tuple[str, int], int]:
        """Last offset of the entries acknowledged so far, by topic and partition."""
        return self._ends

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
                through.update(parcel.marks())
            self._send_group(destination, group, through)
        self._send_group(destination, groups[-1], outbox.through)

    def _send_group(self, destination: int, parcels: Sequence[_Parcel], through: dict[int, int]) -> None:
        columns = self._columns(_joined(parcels), self._profiles, through)
        self._produce(BY_ITEM, destination, None, encode_rekeyed(columns), None)

    def _columns(self, parcel: _Parcel, profiles: Interner, through: dict[int, int]) -> RekeyedColumns:
        """``profiles``: the dictionary of the parcel's profile wids."""
        events = parcel.events
        item_wids, item = np.unique(events.item, return_inverse=True)
        profile_wids, profile = np.unique(parcel.profile, return_inverse=True)
        return RekeyedColumns(
            items=self._items.strings(item_wids),
            profiles=profiles.strings(profile_wids),
            kinds=self._kinds,
            source_partition=parcel.source,
            offset=events.offset,
            item=item.astype(np.uint32),
            profile=profile.astype(np.uint32),
            kind=events.signal,
            user=self._users.entity_ids[events.user],
            weight=events.weight,
            ts_ms=events.ts_ms,
            record_ts_ms=events.record_ts_ms,
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
        place = message.topic(), message.partition()
        self._loop.call_soon_threadsafe(self._count_delivery, place, message.offset())

    def _count_delivery(self, place: tuple[str, int], offset: int) -> None:
        self._acknowledged += 1
        if place[0] == BY_ITEM:
            self._ends[place] = max(offset, self._ends.get(place, offset))
        self._progress.set()


def _joined(parcels: Sequence[_Parcel]) -> _Parcel:
    if len(parcels) == 1:
        return parcels[0]
    if not parcels:
        return _Parcel(np.empty(0, dtype=np.uint16), no_events(), np.empty(0, dtype=np.uint32))
    return _Parcel(
        np.concatenate([parcel.source for parcel in parcels]),
        concatenate([parcel.events for parcel in parcels]),
        np.concatenate([parcel.profile for parcel in parcels]),
    )


def _bounded(parcel: _Parcel) -> list[_Parcel]:
    if len(parcel.events) <= _ENTRIES_MAX:
        return [parcel]
    return [parcel.take(rows) for rows in _chunks(parcel.events.offset, parcel.source)]


def _chunks(offset: I64, source: U16 | None = None) -> list[npt.NDArray[np.intp]]:
    """Positions 0 … n in pieces of about ``_ENTRIES_MAX``, cut only where the source record changes."""
    if len(offset) <= _ENTRIES_MAX:
        return [np.arange(len(offset))]
    fresh = np.diff(offset, prepend=offset[0] - 1) != 0
    if source is not None:
        fresh[1:] |= source[1:] != source[:-1]
    starts = np.flatnonzero(fresh)
    cuts, last = [0], 0
    for start, end in zip(starts.tolist(), [*starts.tolist()[1:], len(offset)], strict=True):
        if end - last > _ENTRIES_MAX and start > last:
            cuts.append(start)
            last = start
    return [np.arange(start, end) for start, end in zip(cuts, [*cuts[1:], len(offset)], strict=True)]
