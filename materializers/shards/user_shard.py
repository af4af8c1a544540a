"""The user shard of one partition: records of ``tidal.signals`` become one batch of accepted events.

In order: skip what is applied; decode; take in events that other partitions found misplaced; send away those
that are misplaced here; drop duplicates; stamp each user's cohort profile and segments; let events wait for
their item's record; hand the batch to the views; forward it to the items' partitions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from materializers.batches import CardedEvents, ItemMove, StampBatch, UserBatch
from materializers.interner import IdCollisionError, Interner
from materializers.materializer import Forgotten, RowReader, RowWriter, Scope, TableSpec
from materializers.rows.erasures import ErasurePart
from materializers.shards.card_positions import CARD_POSITIONS_TABLE, CardHistory
from materializers.shards.context import WorkerContext
from materializers.shards.dedup import DEDUP_TABLE, DedupHorizon
from materializers.shards.erasure_rows import ErasureRows
from materializers.shards.erasures import ErasureLog, total
from materializers.shards.events import Events, concatenate, no_events
from materializers.shards.forwarding import Forward
from materializers.shards.interning import intern_all, intern_events
from materializers.shards.parking import PARKED_TABLE, Parking
from materializers.shards.redriven import REDRIVEN_TABLE, Redriven
from materializers.shards.rejects import REJECT_COUNTS_TABLE, Rejects
from materializers.shards.user_profiles import (
    USER_IDS_TABLE,
    USER_PROFILES_TABLE,
    ProfileMove,
    UserProfiles,
)
from materializers.shards.user_step import fold_users
from materializers.tables.meta import ShardMeta
from materializers.tables.pending import Letter
from schemas.durations import LONGEST_WINDOW_MS
from schemas.errors import RecordError
from schemas.records.columnar import encode_columnar
from schemas.records.columns import EventColumns
from schemas.records.forget_record import ForgetRecord, ForgottenRecord, decode_forget
from schemas.records.item_conditions import ITEM_CONDITIONS_TYPE, decode_item_conditions
from schemas.records.profile_record import (
    PROFILE_TYPE,
    REROUTED_TYPE,
    decode_profile_record,
    record_type,
)
from schemas.records.rekeyed import RekeyedColumns, decode_rekeyed
from streams.records import AnyRecords, LogRecord, Records, records_of
from streams.topics import SIGNALS

I64 = npt.NDArray[np.int64]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

USER_SHARD_TABLES: Final[tuple[TableSpec, ...]] = (
    DEDUP_TABLE,
    PARKED_TABLE,
    CARD_POSITIONS_TABLE,
    REJECT_COUNTS_TABLE,
    REDRIVEN_TABLE,
    USER_PROFILES_TABLE,
    USER_IDS_TABLE,
)

_GATHERED_MAX: Final = 4_096
"""Events of a partition that wait for a flush: about 12 ms of folding, and the most that a flush of eight
such partitions takes longer is a tenth of a second.
"""


@dataclass(slots=True)
class SortedRecords:
    """Records of one step by what they are; ``plain`` hold events and nothing else, there may be none."""

    plain: Records
    rerouted: list[Events] = field(default_factory=list)
    moves: list[ProfileMove] = field(default_factory=list)
    item_moves: list[ItemMove] = field(default_factory=list)


@dataclass(slots=True)
class UserCounters:
    """Counted by one partition since it was acquired.

    ``late`` events reached the log when no window could hold them any more; all_time and the past have them.
    """

    events: int = 0
    duplicates: int = 0
    rerouted: int = 0
    late: int = 0


class UserShard:
    """``Shard`` of scope user."""

    scope = Scope.USER

    def __init__(self, context: WorkerContext, partition: int, rows: RowReader, rejects: Rejects) -> None:
        schema = context.schema
        self._context = context
        self._partition = partition
        self._rows = ErasureRows(rows)
        self._rejects = rejects
        self._views = context.build_views(Scope.USER, partition, self._rows)
        self._stampers = context.build_stampers(partition, self._rows)
        self._dedup = DedupHorizon(schema.limits.dedup_generation_ms)
        self.redriven = Redriven(rows)
        self._parking = Parking(schema, context.items, context.users)
        self._profiles = UserProfiles(context.users, context.profiles)
        signals = schema.signal_list
        # Only what moves a preference or an edge to a creator has to know the item's embedding and creator.
        to_creators = {name for name, edge in schema.relationships.items() if edge.target == "creator"}
        self._needs_card = np.array(
            [signal.preference != 0 or not to_creators.isdisjoint(signal.relationship) for signal in signals],
            dtype=bool,
        )
        self._applied = self._settled = -1
        self._gathered: list[tuple[Events, U32]] = []
        self._gathered_events = 0
        self._rerouted_hw: dict[int, int] = {}
        self._sent_away: dict[int, int] = {}
        self._cards_seen = -1
        self._card_history = CardHistory()
        self._erasures = ErasureLog(ErasurePart.USER)
        self._forgotten: dict[int, int] = {}
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

    @property
    def partition(self) -> int:
        return self._partition

    @property
    def last_offset(self) -> int:
        """Last offset applied, -1 if none."""
        return self._applied

    def fold(self, topic: str, records: AnyRecords) -> int:
        """One shard's part of ``fold_users``, which folds several at once."""
        return fold_users(self._context, [(self, records_of(topic, records))])[0] if len(records) else 0

    def wake(self) -> int:
        """Apply parked events whose cards have come since the last batch; how many."""
        if not self.parked or self._cards_seen == self._context.cards.version:
            return 0
        before = self.parked
        self.settle()
        return max(0, before - self.parked)

    def forward_only(self) -> None:
        """From here on events are counted, stamped and forwarded, but move no view of users."""
        self.settle()
        self._views = []

    def flush(self, writer: RowWriter) -> ShardMeta:
        self.settle()
        self._rows.write_to(writer)
        for view in self._views:
            view.checkpoint(writer)
        self.flush_stampers(writer)
        self._erasures.flush(writer)
        self._dedup.flush(writer)
        self.redriven.flush(writer)
        self._parking.flush(writer)
        self._card_history.flush(writer)
        self._profiles.flush(writer)
        self._rejects.flush(writer)
        return ShardMeta(
            applied={SIGNALS: self._applied},
            rerouted_hw=dict(self._rerouted_hw),
            sent_away=dict(self._sent_away),
            forgotten_hw=dict(self._forgotten),
            counters=self._dedup.counters() | self._parking.counters() | self._card_history.counters(),
        )

    def flush_stampers(self, writer: RowWriter) -> None:
        """What decides stamps alone, for a fold that keeps nothing else of users."""
        for stamper in self._stampers:
            stamper.checkpoint(writer)

    def take_letters(self) -> list[Letter]:
        return self._rejects.take_letters()

    def restore(self, reader: RowReader, meta: ShardMeta) -> None:
        self._applied = self._settled = meta.applied.get(SIGNALS, -1)
        self._rerouted_hw = dict(meta.rerouted_hw)
        self._sent_away = dict(meta.sent_away)
        self._forgotten = dict(meta.forgotten_hw)
        self._rows.reopen(reader)
        self._dedup.restore(reader, meta.counters)
        self._parking.restore(reader, meta.counters)
        self._card_history.restore(meta.counters)
        self._rejects.restore(reader)
        for view in (*self._views, *self._stampers):
            view.restore(self._rows)

    # -- from records to events ---------------------------------------------------------------------

    def sort_out(self, records: Records) -> SortedRecords:
        """Take in what is no event, and events that other partitions found misplaced."""
        self._rows.settle()
        if not records.headers:
            return SortedRecords(records)
        special = set()
        found = SortedRecords(records)
        for at in sorted(records.headers):
            kind = record_type(records.headers[at])
            if kind == PROFILE_TYPE:
                self._read_profile(records[at], found.moves)
            elif kind == ITEM_CONDITIONS_TYPE:
                self._read_conditions(records[at], found.item_moves)
            elif kind == REROUTED_TYPE:
                self._read_rerouted(records[at], found.rerouted)
            elif self.redriven.admits(records[at]):
                continue
            special.add(at)
        if special:
            found.plain = records.at([at for at in range(len(records)) if at not in special])
        return found

    def refuse(self, record: LogRecord, event: int | None, error: RecordError, raw: bytes) -> None:
        self._rejects.refuse(record, event, error, raw)

    def _read_profile(self, record: LogRecord, moves: list[ProfileMove]) -> None:
        profile = self._rejects.decoded(record, decode_profile_record)
        if profile is None:
            return
        if profile.source[1] <= self._forgotten.get(profile.source[0], -1):
            return  # sent again by a worker that came back: its place was before an erasure
        moves.append(ProfileMove(record.offset, profile.user, profile.profile_string, *profile.source))

    def _read_conditions(self, record: LogRecord, moves: list[ItemMove]) -> None:
        told = self._rejects.decoded(record, decode_item_conditions)
        if told is not None:
            moves.append(ItemMove(record.offset, told.item, told.holds, *told.source))

    def _read_rerouted(self, record: LogRecord, parts: list[Events]) -> None:
        columns = self._rejects.decoded(record, decode_rekeyed)
        if columns is None:
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

    def _events_of(self, columns: EventColumns, rows: I64, record: LogRecord, record_ts_ms: I64) -> Events:
        """Events that arrived in one re-routed record: they count at that record's offset."""
        picked = columns.take(rows)
        offsets = np.full(len(rows), record.offset, dtype=np.int64)

        def refuse(row: int, collision: IdCollisionError) -> None:
            error = RecordError("id_collision", "item or user", str(collision))
            self.refuse(record, None, error, encode_columnar(picked.take(np.array([row], dtype=np.int64))))

        return intern_events(self._context, picked, offsets, record_ts_ms[rows], refuse)[0]

    # -- which events count here --------------------------------------------------------------------

    def sent_away(self, destinations: U16, offsets: I64) -> None:
        """Events of ours, in offset order, went to the partitions of their users. u16[n], i64[n]."""
        self._sent_away.update(zip(destinations.tolist(), offsets.tolist(), strict=True))
        self.counters.rerouted += len(offsets)

    def accept(self, digests: U64, record_ts_ms: I64) -> Flags:
        """Which events to count, bool[n]; the others are repeated ones. See ``DedupHorizon.accept``."""
        fresh = self._dedup.accept(digests, record_ts_ms)
        self.counters.duplicates += len(fresh) - int(np.count_nonzero(fresh))
        return fresh

    def stamp(
        self, events: Events, moves: list[ProfileMove], item_moves: list[ItemMove]
    ) -> tuple[Events, U32]:
        """The events whose users may be here, and the profile of each, u32[n]; the moves are applied."""
        events = self._know_users(events, moves)
        profile = self._profiles.stamp(events.user, events.offset, moves)
        self._context.clock.lap("user: profiles")
        for stamper in self._stampers:
            profile = stamper.stamp(
                StampBatch(
                    item=events.item,
                    user=events.user,
                    signal=events.signal,
                    profile=profile,
                    weight=events.weight,
                    ts_ms=events.ts_ms,
                    offset=events.offset,
                    moves=item_moves,
                )
            )
        return events, profile

    def _know_users(self, events: Events, moves: list[ProfileMove]) -> Events:
        """Load profiles of users new to this process; refuse users whose EntityId is taken on disk."""
        moved, refused = intern_all(self._context.users, [move.user for move in moves])
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

    # -- erasure ------------------------------------------------------------------------------------

    def forget(self, record: LogRecord) -> None:
        """Erase the user whom ``record`` names, as of this place in the log."""
        if record.offset <= self._applied:
            return
        self.settle()
        try:
            wanted = decode_forget(record.value or b"")
            self._erase(record, wanted)
        except RecordError as error:
            self._rejects.refuse(record, None, error, record.value or b"")
        nobody = Forward(self._partition, no_events(), np.empty(0, dtype=np.uint32), record.offset)
        self._context.forwarder.forward([nobody])
        self._applied = self._settled = record.offset

    def _erase(self, record: LogRecord, wanted: ForgetRecord) -> None:
        partition, offset = wanted.source
        if offset <= self._forgotten.get(partition, -1):
            return
        self._forgotten[partition] = offset
        wids, refused = intern_all(self._context.users, [wanted.user])
        collisions = [*refused.values(), *self._profiles.load(wids, self._rows)]
        if collisions:  # the rows belong to another id
            raise RecordError("id_collision", "user", str(collisions[0]))
        users = Forgotten(self._context.users.entity_ids[wids], wids)
        erased = [view.forget(users, self._rows) for view in (*self._views, *self._stampers)]
        erased.append(self._profiles.forget(users, self._rows, self._rows))
        erased.append(self._dedup.forget(users.entity_ids))
        erased.append(self._parking.forget(users.wids))
        self._erasures.add(wanted.source, wanted.at_ms, total(erased))
        told = ForgottenRecord(
            int(users.entity_ids[0]), wanted.source, wanted.at_ms, (self._partition, record.offset)
        )
        self._context.forwarder.forget(int(wids[0]), told)

    # -- into the views and on ----------------------------------------------------------------------

    def gather(self, events: Events, profile: U32, through: int) -> None:
        """Take in accepted events for the views, and count the partition as applied up to ``through``.

        Views fold what was gathered at the next flush, or when it is a lot: folding twice the events costs
        them little more, as long as these are few.
        """
        if len(events) and self._views:
            self._gathered.append((events, profile))
            self._gathered_events += len(events)
        self._applied = through
        self.counters.events += len(events)
        self.counters.late += int(np.count_nonzero(events.record_ts_ms - events.ts_ms > LONGEST_WINDOW_MS))
        if self._gathered_events >= _GATHERED_MAX:
            self.settle()

    def settle(self) -> None:
        """Let the views fold what was gathered, and what waited for cards that have come."""
        self._rows.settle()
        gathered, self._gathered = self._gathered, []
        self._gathered_events = 0
        events = concatenate([each for each, _ in gathered]) if gathered else no_events()
        profile = [each for _, each in gathered] or [np.empty(0, dtype=np.uint32)]
        self._fold_views(events, profile[0] if len(profile) == 1 else np.concatenate(profile))
        self._settled = self._applied

    def _fold_views(self, events: Events, profile: U32) -> None:
        carded = self._carded(events)
        self._context.clock.lap("user: cards")
        if not len(events) and not len(carded):
            return
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

    def _carded(self, events: Events) -> CardedEvents:
        """Parked events whose cards have come, then the batch's events with a card; the others are parked."""
        cards = self._context.cards
        wanted = np.flatnonzero(self._needs_card[events.signal] & (events.user != Interner.NONE))
        released = self._release() if len(wanted) or self.parked else no_events()
        known = cards.cards(events.item[wanted]) != cards.NONE
        if not known.all():
            self._parking.park(events.take(wanted[~known]))
        chosen = events.take(wanted[known])
        if len(released):
            chosen = concatenate([released, chosen])
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
            return no_events()
        self._cards_seen = cards.version
        self._card_history.note(self._settled, cards.next_offsets)
        waiting = self._parking.items
        arrived = waiting[cards.cards(waiting) != cards.NONE]
        return self._parking.release(arrived) if len(arrived) else no_events()


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
