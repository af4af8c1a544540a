"""The user shard of one partition: records of ``tidal.signals`` become one batch of accepted events.

In order: skip what is applied; decode; take in events that other partitions found misplaced; send away those
that are misplaced here; drop duplicates; stamp each user's cohort profile; let events wait for their item's
record; hand the batch to the views; forward it to the items' partitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from materializers.batches import CardedEvents, UserBatch
from materializers.interner import IdCollisionError, Interner
from materializers.materializer import RowReader, RowWriter, Scope, TableSpec
from materializers.shards.card_positions import CARD_POSITIONS_TABLE, CardHistory
from materializers.shards.context import WorkerContext
from materializers.shards.dedup import DEDUP_TABLE, DedupHorizon, digests_of
from materializers.shards.events import Events, join
from materializers.shards.parking import PARKED_TABLE, Parking
from materializers.shards.rejects import REJECT_COUNTS_TABLE, Rejects
from materializers.shards.user_profiles import (
    USER_IDS_TABLE,
    USER_PROFILES_TABLE,
    ProfileMove,
    UserProfiles,
)
from materializers.tables.meta import ShardMeta
from materializers.tables.pending import Letter
from schemas.errors import RecordError
from schemas.records.columnar import encode_columnar
from schemas.records.columns import EventColumns
from schemas.records.decode import decode_records
from schemas.records.profile_record import (
    PROFILE_TYPE,
    REROUTED_TYPE,
    decode_profile_record,
    record_type,
)
from schemas.records.rekeyed import RekeyedColumns, decode_rekeyed
from streams.topics import SIGNALS

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]

USER_SHARD_TABLES: Final[tuple[TableSpec, ...]] = (
    DEDUP_TABLE,
    PARKED_TABLE,
    CARD_POSITIONS_TABLE,
    REJECT_COUNTS_TABLE,
    USER_PROFILES_TABLE,
    USER_IDS_TABLE,
)


@dataclass(slots=True)
class _Sorted:
    """Records of one slice by what they are."""

    plain: list[Any] = field(default_factory=list)
    rerouted: list[Events] = field(default_factory=list)
    moves: list[ProfileMove] = field(default_factory=list)


@dataclass(slots=True)
class UserCounters:
    """Counted by one partition since it was acquired."""

    events: int = 0
    duplicates: int = 0
    rerouted: int = 0


class UserShard:
    """``Shard`` of scope user."""

    scope = Scope.USER

    def __init__(self, context: WorkerContext, partition: int, rows: RowReader, rejects: Rejects) -> None:
        schema = context.schema
        self._context = context
        self._partition = partition
        self._rows = rows
        self._rejects = rejects
        self._views = context.build_views(Scope.USER, partition, rows)
        self._dedup = DedupHorizon(schema.limits.dedup_generation_ms)
        self._parking = Parking(schema, context.items, context.users)
        self._profiles = UserProfiles(context.users, context.profiles)
        signals = schema.signal_list
        self._codes = np.array([signal.code for signal in signals], dtype=np.uint64)
        self._deduplicated = np.array([signal.dedup == "default" for signal in signals], dtype=bool)
        # Only what moves a preference or an edge to a creator has to know the item's embedding and creator.
        to_creators = {name for name, edge in schema.relationships.items() if edge.target == "creator"}
        self._needs_card = np.array(
            [signal.preference != 0 or not to_creators.isdisjoint(signal.relationship) for signal in signals],
            dtype=bool,
        )
        self._applied = -1
        self._rerouted_hw: dict[int, int] = {}
        self._cards_seen = -1
        self._card_history = CardHistory()
        self.counters = UserCounters()

    def applied(self, topic: str) -> int:
        return self._applied

    @property
    def parked(self) -> int:
        """Events that wait for their item's record."""
        return len(self._parking)

    @property
    def reject_counts(self) -> dict[str, int]:
        return self._rejects.counts

    def fold(self, topic: str, records: Sequence[Any]) -> int:
        fresh = [record for record in records if record.offset > self._applied]
        if not fresh:
            return 0
        found = self._sort_out(fresh)
        events = join([self._decode(found.plain), *found.rerouted])
        events = self._send_away(events)
        events = self._drop_duplicates(events)
        events = self._know_users(events, found.moves)
        self._fold(events, found.moves, through=int(fresh[-1].offset))
        return len(events)

    def wake(self) -> int:
        """Apply parked events whose cards have come since the last batch; how many."""
        if not self.parked or self._cards_seen == self._context.cards.version:
            return 0
        return self._fold_views(_no_events(), np.empty(0, dtype=np.uint32))

    def flush(self, writer: RowWriter) -> ShardMeta:
        for view in self._views:
            view.checkpoint(writer)
        self._dedup.flush(writer)
        self._parking.flush(writer)
        self._card_history.flush(writer)
        self._profiles.flush(writer)
        self._rejects.flush(writer)
        return ShardMeta(
            applied={SIGNALS: self._applied},
            rerouted_hw=dict(self._rerouted_hw),
            counters=self._dedup.counters() | self._parking.counters() | self._card_history.counters(),
        )

    def take_letters(self) -> list[Letter]:
        return self._rejects.take_letters()

    def restore(self, reader: RowReader, meta: ShardMeta) -> None:
        self._applied = meta.applied.get(SIGNALS, -1)
        self._rerouted_hw = dict(meta.rerouted_hw)
        self._dedup.restore(reader, meta.counters)
        self._parking.restore(reader, meta.counters)
        self._card_history.restore(meta.counters)
        self._rejects.restore(reader)
        for view in self._views:
            view.restore(reader)

    # -- from records to events ---------------------------------------------------------------------

    def _sort_out(self, records: Sequence[Any]) -> _Sorted:
        found = _Sorted()
        for record in records:
            kind = record_type(record.headers) if record.headers else b""
            if kind == PROFILE_TYPE:
                self._read_profile(record, found.moves)
            elif kind == REROUTED_TYPE:
                self._read_rerouted(record, found.rerouted)
            else:
                found.plain.append(record)
        return found

    def _read_profile(self, record: Any, moves: list[ProfileMove]) -> None:
        try:
            profile = decode_profile_record(record.value or b"")
        except RecordError as error:
            self._rejects.refuse(record, None, error, record.value or b"")
            return
        moves.append(ProfileMove(record.offset, profile.user, profile.profile_string, *profile.source))

    def _read_rerouted(self, record: Any, parts: list[Events]) -> None:
        try:
            columns = decode_rekeyed(record.value or b"")
        except RecordError as error:
            self._rejects.refuse(record, None, error, record.value or b"")
            return
        for source, through in columns.through.items():
            known = self._rerouted_hw.get(source, -1)
            rows = np.flatnonzero((columns.source_partition == source) & (columns.offset > known))
            rows = self._of_known_kinds(columns, rows)
            self._rerouted_hw[source] = max(known, through)
            if len(rows):
                parts.append(self._events_of(_rerouted_columns(columns), rows, record, columns.record_ts_ms))

    def _of_known_kinds(self, columns: RekeyedColumns, rows: I64) -> I64:
        """Leaves out signals that only a newer schema has, on the worker that found the events; counted."""
        index = self._context.schema.signal_index
        known = np.array([kind in index for kind in columns.kinds], dtype=bool)[columns.kind[rows]]
        if not known.all():
            self._rejects.count("unknown_kind", int((~known).sum()))
        kept: I64 = rows[known]
        return kept

    def _events_of(self, columns: EventColumns, rows: I64, record: Any, record_ts_ms: I64) -> Events:
        """Events that arrived in one re-routed record: they count at that record's offset."""
        picked = columns.take(rows)
        offsets = np.full(len(rows), record.offset, dtype=np.int64)
        return self._intern(picked, offsets, record_ts_ms[rows], [record] * len(rows))

    def _decode(self, records: Sequence[Any]) -> Events:
        timestamps = np.fromiter((record.timestamp for record in records), np.int64, len(records))
        decoded = decode_records(
            [record.value or b"" for record in records], timestamps, self._context.schema
        )
        for reject in decoded.rejects:
            self._rejects.refuse(records[reject.record], reject.event, reject.error, reject.raw)
        offsets = np.fromiter((record.offset for record in records), np.int64, len(records))
        return self._intern(
            decoded.columns, offsets[decoded.record], timestamps[decoded.record], records, decoded.record
        )

    def _intern(
        self,
        columns: EventColumns,
        offset: I64,
        record_ts_ms: I64,
        records: Sequence[Any],
        record: I64 | None = None,
    ) -> Events:
        """Strings to wids; events with an id whose EntityId another id has are refused."""
        index = self._context.schema.signal_index
        signal_of_kind = np.array([index[kind] for kind in columns.kinds], dtype=np.uint16)
        item_wids, items_refused = _intern_all(self._context.items, columns.items)
        user_wids, users_refused = _intern_all(self._context.users, columns.users)
        events = Events(
            item=item_wids[columns.item],
            user=user_wids[columns.user],
            signal=signal_of_kind[columns.kind],
            weight=columns.weight,
            ts_ms=columns.ts_ms,
            record_ts_ms=record_ts_ms,
            offset=offset,
        )
        if not items_refused and not users_refused:
            return events
        bad_items = np.array([name in items_refused for name in columns.items], dtype=bool)
        bad_users = np.array([name in users_refused for name in columns.users], dtype=bool)
        bad = bad_items[columns.item] | bad_users[columns.user]
        for row in np.flatnonzero(bad).tolist():
            name = columns.items[columns.item[row]]
            collision = items_refused.get(name) or users_refused[columns.users[columns.user[row]]]
            source = records[row if record is None else int(record[row])]
            self._refuse_collision(source, columns.take(np.array([row])), collision)
        return events.take(np.flatnonzero(~bad))

    def _refuse_collision(self, record: Any, event: EventColumns, collision: IdCollisionError) -> None:
        error = RecordError("id_collision", "item or user", str(collision))
        self._rejects.refuse(record, None, error, encode_columnar(event))

    # -- which events count here --------------------------------------------------------------------

    def _send_away(self, events: Events) -> Events:
        """A user's events belong to the user's partition, an anonymous one to its item's."""
        homes = self._context.user_homes.of(events.user)
        anonymous = events.user == Interner.NONE
        if anonymous.any():
            homes = np.where(anonymous, self._context.item_homes.of(events.item), homes)
        away = homes != self._partition
        if not away.any():
            return events
        self._context.forwarder.reroute(self._partition, homes[away], events.take(np.flatnonzero(away)))
        self.counters.rerouted += int(away.sum())
        return events.take(np.flatnonzero(~away))

    def _drop_duplicates(self, events: Events) -> Events:
        if not len(events):
            return events
        rows = np.flatnonzero(self._deduplicated[events.signal])
        digests = digests_of(
            self._context.users.entity_ids[events.user[rows]],
            self._context.items.entity_ids[events.item[rows]],
            self._codes[events.signal[rows]],
            events.ts_ms[rows],
        )
        fresh = np.ones(len(events), dtype=bool)
        fresh[rows] = self._dedup.accept(digests, events.record_ts_ms[rows])
        if fresh.all():
            return events
        self.counters.duplicates += len(events) - int(fresh.sum())
        return events.take(np.flatnonzero(fresh))

    def _know_users(self, events: Events, moves: list[ProfileMove]) -> Events:
        """Load profiles of users new to this process; refuse users whose EntityId is taken on disk."""
        moved, refused = _intern_all(self._context.users, [move.user for move in moves])
        users = np.concatenate([events.user, moved.astype(np.uint32)])
        collisions = self._profiles.load(users, self._rows)
        names = {collision.refused for collision in collisions} | set(refused)
        if not names:
            return events
        moves[:] = [move for move in moves if move.user not in names]
        wids = [self._context.users.find(name) for name in names]
        bad = np.isin(events.user, np.array([wid for wid in wids if wid is not None], dtype=np.uint32))
        self._rejects.count("id_collision", int(bad.sum()))
        return events.take(np.flatnonzero(~bad))

    # -- into the views and on ----------------------------------------------------------------------

    def _fold(self, events: Events, moves: Sequence[ProfileMove], through: int) -> None:
        profile = self._profiles.stamp(events.user, events.offset, moves)
        self._fold_views(events, profile)
        self._context.forwarder.forward(self._partition, events, profile, through)
        self._applied = through
        self.counters.events += len(events)

    def _fold_views(self, events: Events, profile: U32) -> int:
        carded = self._carded(events)
        if not len(events) and not len(carded):
            return 0
        batch = UserBatch(
            item=events.item,
            user=events.user,
            signal=events.signal,
            profile=profile,
            weight=events.weight,
            ts_ms=events.ts_ms,
            record_ts_ms=events.record_ts_ms,
            offset=events.offset,
            carded=carded,
        )
        for view in self._views:
            view.on_batch(batch)
        return len(events) + len(carded)

    def _carded(self, events: Events) -> CardedEvents:
        """Parked events whose cards have come, then the batch's events with a card; the others are parked."""
        cards = self._context.cards
        wanted = np.flatnonzero(self._needs_card[events.signal] & (events.user != Interner.NONE))
        released = self._release() if len(wanted) or self.parked else _no_events()
        known = cards.cards(events.item[wanted]) != cards.NONE
        if not known.all():
            self._parking.park(events.take(wanted[~known]))
        chosen = events.take(wanted[known])
        if len(released):
            chosen = Events(
                *(
                    np.concatenate([getattr(released, name), getattr(chosen, name)])
                    for name in Events.__dataclass_fields__
                )
            )
        card = cards.cards(chosen.item)
        return CardedEvents(
            item=chosen.item,
            user=chosen.user,
            signal=chosen.signal,
            weight=chosen.weight,
            ts_ms=chosen.ts_ms,
            offset=chosen.offset,
            creator=cards.creators(card),
            card=card,
        )

    def _release(self) -> Events:
        """The events whose cards have come since the last call, which notes what cards are seen from here."""
        cards = self._context.cards
        if cards.version == self._cards_seen:
            return _no_events()
        self._cards_seen = cards.version
        self._card_history.note(self._applied, cards.next_offsets)
        waiting = self._parking.items
        arrived = waiting[cards.cards(waiting) != cards.NONE]
        return self._parking.release(arrived) if len(arrived) else _no_events()


def _no_events() -> Events:
    nothing = np.empty(0, dtype=np.int64)
    return Events(
        item=nothing.astype(np.uint32),
        user=nothing.astype(np.uint32),
        signal=nothing.astype(np.uint16),
        weight=nothing,
        ts_ms=nothing,
        record_ts_ms=nothing,
        offset=nothing,
    )


def _rerouted_columns(columns: RekeyedColumns) -> EventColumns:
    """Events as their producer sent them: a re-routed record holds user ids where others hold profiles."""
    return EventColumns(
        kinds=columns.kinds,
        items=columns.items,
        users=columns.profiles,
        kind=columns.kind,
        item=columns.item,
        user=columns.profile,
        weight=columns.weight,
        ts_ms=columns.ts_ms,
    )


def _intern_all(interner: Interner, strings: Sequence[str]) -> tuple[U32, dict[str, IdCollisionError]]:
    """Wids of all strings, 0 for those that are refused, and those."""
    try:
        return interner.ids(strings), {}
    except IdCollisionError:
        refused = {collision.refused: collision for collision in interner.collisions(strings)}
        return interner.ids(["" if name in refused else name for name in strings]), refused
