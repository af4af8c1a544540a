"""One step of a worker's user shards: what was delivered for any of them, decoded and forwarded together.

A handful of events costs about as much to decode, intern or forward as a thousand do. So that is done once
for all partitions; what has a state of its own (duplicates, profiles, views) is done for each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from materializers.interner import IdCollisionError, Interner
from materializers.shards.context import WorkerContext
from materializers.shards.dedup import digests_of
from materializers.shards.events import Events, concatenate, join
from materializers.shards.forwarding import Forward
from materializers.shards.interning import intern_events
from materializers.shards.redriven import first_seen, starts_of_repeats
from schemas.errors import RecordError
from schemas.records.columnar import encode_columnar
from schemas.records.decode import decode_records
from schemas.records.forget_record import FORGET_TYPE
from schemas.records.profile_record import record_type
from streams.records import LogRecord, Records

if TYPE_CHECKING:
    from materializers.shards.user_shard import SortedRecords, UserShard

I64 = npt.NDArray[np.int64]
U16 = npt.NDArray[np.uint16]
Flags = npt.NDArray[np.bool_]


@dataclass(slots=True)
class _Portions:
    """Events of several shards, one shard's after the other's; ``ends``: where each shard's end, ints."""

    events: Events
    ends: list[int]

    def __len__(self) -> int:
        return len(self.events)

    def span(self, index: int) -> slice:
        """Where the events of the shard at ``index`` are."""
        return slice(self.ends[index - 1] if index else 0, self.ends[index])

    def keep(self, chosen: Flags) -> _Portions:
        if chosen.all():
            return self
        kept = np.concatenate([[0], np.cumsum(chosen)])
        return _Portions(self.events.take(chosen), kept[self.ends].tolist())


class _Plain(NamedTuple):
    """Records that hold events and nothing else, of several shards; ``ends`` as in ``_Portions``."""

    parts: list[Records]
    ends: list[int]

    def record(self, position: int) -> tuple[int, LogRecord]:
        """The shard that a record belongs to, and the record."""
        index = bisect_right(self.ends, position)
        return index, self.parts[index][position - (self.ends[index - 1] if index else 0)]


class _Run(NamedTuple):
    """Consecutive records, none perhaps, and the forget record that ends them if one does."""

    records: Records
    forget: LogRecord | None


def split_runs(records: Records) -> list[_Run]:
    """All records in order, at least one run.

    A run ends with a forget record, and before a dead letter that comes a second time.
    """
    runs: list[_Run] = []
    start = 0
    repeats = set(starts_of_repeats(records))
    for at in sorted(records.headers):
        if at in repeats and at > start:
            runs.append(_Run(records.part(start, at), None))
            start = at
        if record_type(records.headers[at]) == FORGET_TYPE:
            runs.append(_Run(records.part(start, at), records[at]))
            start = at + 1
    if start < len(records) or not runs:
        runs.append(_Run(records.part(start, len(records)), None))
    return runs


def fold_users(context: WorkerContext, given: Sequence[tuple[UserShard, Records]]) -> list[int]:
    """Fold records into shards of one worker, each shard once at most; the count of events of each.

    What has to be forwarded is packed, and sent by the forwarder's ``send``. A user is forgotten between the
    events before and those after.
    """
    runs = [split_runs(records) for _, records in given]
    if all(len(run) == 1 and run[0].forget is None for run in runs):
        return _fold(context, given)
    counts = [0] * len(given)
    for number in range(max(map(len, runs))):
        now = [(index, run[number]) for index, run in enumerate(runs) if number < len(run)]
        filled = [index for index, run in now if len(run.records)]
        folded = _fold(context, [(given[index][0], runs[index][number].records) for index in filled])
        for index, count in zip(filled, folded, strict=True):
            counts[index] += count
        for index, run in now:
            if run.forget is not None:
                given[index][0].forget(run.forget)
    return counts


def _fold(context: WorkerContext, given: Sequence[tuple[UserShard, Records]]) -> list[int]:
    counts = [0] * len(given)
    fresh = [(shard, records.beyond(shard.last_offset)) for shard, records in given]
    chosen = [index for index, (_, records) in enumerate(fresh) if len(records)]
    if not chosen:
        return counts
    shards = [fresh[index][0] for index in chosen]
    records = [fresh[index][1] for index in chosen]
    found = [shard.sort_out(part) for shard, part in zip(shards, records, strict=True)]
    lap = context.clock.lap
    lap("user: sort out")
    portions = _events_of(context, shards, found)
    portions = _send_away(context, shards, portions)
    lap("user: homes")
    portions = _drop_duplicates(context, shards, portions)
    lap("user: duplicates")
    throughs = [part.last_offset for part in records]
    for index, count in zip(chosen, _stamp(context, shards, found, portions, throughs), strict=True):
        counts[index] = count
    return counts


def _events_of(
    context: WorkerContext, shards: Sequence[UserShard], found: Sequence[SortedRecords]
) -> _Portions:
    portions = _decode(context, shards, _plain([each.plain for each in found]))
    if not any(each.rerouted for each in found):
        return portions
    events = [
        join([portions.events.take(portions.span(index)), *each.rerouted]) for index, each in enumerate(found)
    ]
    return _Portions(concatenate(events), np.cumsum([len(part) for part in events]).tolist())


def _plain(parts: list[Records]) -> _Plain:
    return _Plain(parts, np.cumsum([len(part) for part in parts]).tolist())


def _decode(context: WorkerContext, shards: Sequence[UserShard], plain: _Plain) -> _Portions:
    """The events of all records; what cannot be read is refused by its shard."""
    timestamps = np.concatenate([part.timestamp for part in plain.parts])
    offsets = np.concatenate([part.offset for part in plain.parts])
    values = [value or b"" for part in plain.parts for value in part.value]
    decoded = decode_records(
        values, timestamps, context.schema, first_seen(plain.parts, timestamps), compact=False
    )
    context.clock.lap("user: decode")
    for reject in decoded.rejects:
        index, record = plain.record(reject.record)
        shards[index].refuse(record, reject.event, reject.error, reject.raw)

    def refuse(row: int, collision: IdCollisionError) -> None:
        index, record = plain.record(int(decoded.record[row]))
        raw = encode_columnar(decoded.columns.take(np.array([row], dtype=np.int64)))
        shards[index].refuse(record, None, RecordError("id_collision", "item or user", str(collision)), raw)

    events, kept = intern_events(
        context, decoded.columns, offsets[decoded.record], timestamps[decoded.record], refuse
    )
    context.clock.lap("user: intern")
    of_record = decoded.record if kept is None else decoded.record[kept]
    portions = _Portions(events, np.searchsorted(of_record, plain.ends).tolist())
    for index, shard in enumerate(shards):
        shard.redriven.accepted(events.offset[portions.span(index)])
    return portions


def _send_away(context: WorkerContext, shards: Sequence[UserShard], portions: _Portions) -> _Portions:
    """A user's events belong to the user's partition, an anonymous one to its item's."""
    events = portions.events
    homes = context.user_homes.of(events.user)
    anonymous = events.user == Interner.NONE
    if anonymous.any():
        homes = np.where(anonymous, context.item_homes.of(events.item), homes)
    here = np.empty(len(events), dtype=bool)
    for index, shard in enumerate(shards):
        span = portions.span(index)
        here[span] = homes[span] == shard.partition
    if here.all():
        return portions
    for index, shard in enumerate(shards):
        span = portions.span(index)
        away = np.flatnonzero(~here[span]) + span.start
        if len(away):
            context.forwarder.reroute(shard.partition, homes[away], events.take(away))
            shard.sent_away(homes[away], events.offset[away])
    return portions.keep(here)


def _drop_duplicates(context: WorkerContext, shards: Sequence[UserShard], portions: _Portions) -> _Portions:
    events = portions.events
    if not len(events):
        return portions
    rows = np.flatnonzero(context.signals.deduplicated[events.signal])
    digests = digests_of(
        context.users.entity_ids[events.user[rows]],
        context.items.entity_ids[events.item[rows]],
        context.signals.code[events.signal[rows]],
        events.ts_ms[rows],
    )
    fresh = np.ones(len(events), dtype=bool)
    ends = np.searchsorted(rows, portions.ends).tolist()
    for shard, start, end in zip(shards, [0, *ends], ends, strict=False):
        if start < end:
            part = rows[start:end]
            fresh[part] = shard.accept(digests[start:end], events.record_ts_ms[part])
    return portions.keep(fresh)


def _stamp(
    context: WorkerContext,
    shards: Sequence[UserShard],
    found: Sequence[SortedRecords],
    portions: _Portions,
    throughs: Sequence[int],
) -> list[int]:
    """Each event gets its user's profile; the views will see it, and its item's partition."""
    forwards, counts = [], []
    for index, (shard, each, through) in enumerate(zip(shards, found, throughs, strict=True)):
        events = portions.events.take(portions.span(index))
        events, profile = shard.stamp(events, each.moves, each.item_moves)
        context.clock.lap("user: segments")
        shard.gather(events, profile, through)
        forwards.append(Forward(shard.partition, events, profile, through))
        counts.append(len(events))
    context.clock.lap("user: gather")
    context.forwarder.forward(forwards)
    context.clock.lap("user: re-key")
    return counts
