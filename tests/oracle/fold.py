"""The fold: every answer is a loop over the accepted events."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.model import Schema
from schemas.records.dead_letter import Origin, letter_of
from schemas.records.entities import EntityRecord
from schemas.records.rekeyed import decode_rekeyed
from streams.partitioner import partition_for
from tests.oracle.dedup import Horizon
from tests.oracle.entities import EdgeName, ItemVersion, fold_entities
from tests.oracle.records import SIGNALS, Event, LogRecord, Reject, events_of, in_log_order
from tests.oracle.segments import SegmentModel

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
WINDOWS = {"1h": (MINUTE_MS, 60), "24h": (HOUR_MS, 24), "7d": (HOUR_MS, 168), "30d": (DAY_MS, 30)}
MICRO = 1_000_000

LONG_RATE, SHORT_RATE = (1.0, 0.05, 20.0), (1.0, 0.5, 5.0)  # η₀, η_min, τ
CANCELLED_SHARE = 1e-3
ROUNDING = 2.0**-22
"""Of one update in 32-bit arithmetic, with some to spare."""
PREFERENCE_ERROR = 1e-6

CardPositions = Mapping[int, Sequence[tuple[int, Mapping[int, int]]]]
"""User partition -> (last offset applied, by partition of ``tidal.items`` the first offset not seen), in the
order in which the partition went on to fold with those items' records."""


class Preference(NamedTuple):
    """``error`` bounds what 32-bit arithmetic may differ by: it grows where an update nearly cancels."""

    updates: int
    long: list[float]
    short: list[float]
    error: float


class Edge(NamedTuple):
    """An implicit edge's weight as of ``updated_ms``."""

    weight: float
    updated_ms: int


@dataclass
class CleanFold:
    """What the log says. ``events`` are those that count, by partition in log order."""

    schema: Schema
    events: list[Event] = field(default_factory=list)
    duplicates: int = 0
    misplaced: int = 0
    rejects: list[Reject] = field(default_factory=list)
    entities: dict[str, dict[str, EntityRecord]] = field(default_factory=dict)
    edges: dict[EdgeName, object] = field(default_factory=dict)
    item_versions: Mapping[str, Sequence[ItemVersion]] = field(default_factory=dict)
    card_positions: CardPositions | None = None
    segments: SegmentModel = field(init=False)
    _by_cell: dict[tuple[str, str], list[Event]] = field(default_factory=lambda: defaultdict(list))
    _by_user: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.segments = SegmentModel(self.schema)

    def accept(self, event: Event) -> None:
        self.events.append(event)
        self._by_cell[event.item, event.kind].append(event)
        self._by_user[event.user].append(event)

    def forget(self, user: str) -> None:
        """Nothing that the user did so far moves anything of theirs."""
        self._by_user[user] = []

    def cells(self) -> list[tuple[str, str]]:
        """Every (item, signal) with an event."""
        return sorted(self._by_cell)

    def users(self) -> list[str]:
        return sorted(user for user in self._by_user if user)

    def rejects_by_code(self) -> dict[str, int]:
        counts: dict[str, int] = defaultdict(int)
        for reject in self.rejects:
            counts[reject.code] += 1
        return dict(counts)

    def count(self, item: str, signal: str, window: str = "all_time", now_ms: int = 0) -> int:
        return len(self._within(item, signal, window, now_ms))

    def sum(self, item: str, signal: str, window: str = "all_time", now_ms: int = 0) -> int:
        """In micro-units."""
        return sum(event.weight for event in self._within(item, signal, window, now_ms))

    def previous_count(self, item: str, signal: str, window: str, now_ms: int) -> int:
        """Count of the window before the one that ends now."""
        bucket_ms, buckets = WINDOWS[window]
        return self.count(item, signal, window, now_ms - bucket_ms * buckets)

    def cohort_count(
        self,
        is_member: Callable[[dict[str, str]], bool],
        item: str,
        signal: str,
        window: str = "all_time",
        now_ms: int = 0,
    ) -> int:
        """Events of users whose profile {dimension: value} at event time satisfies the predicate."""
        events = self._within(item, signal, window, now_ms)
        return sum(is_member(json.loads(event.profile)) for event in events)

    def buckets(self, bucket_ms: int) -> dict[tuple[str, str, int], tuple[int, int]]:
        """(item, signal, bucket start ms) -> count and sum in micro-units."""
        totals: dict[tuple[str, str, int], tuple[int, int]] = {}
        for event in self.events:
            key = (event.item, event.kind, event.ts_ms // bucket_ms * bucket_ms)
            count, total = totals.get(key, (0, 0))
            totals[key] = (count + 1, total + event.weight)
        return totals

    def cohort_buckets(self, bucket_ms: int) -> dict[tuple[str, str, str, int], tuple[int, int]]:
        """(item, signal, profile, bucket start ms) -> count and sum in micro-units."""
        totals: dict[tuple[str, str, str, int], tuple[int, int]] = {}
        for event in self.events:
            key = (event.item, event.kind, event.profile, event.ts_ms // bucket_ms * bucket_ms)
            count, total = totals.get(key, (0, 0))
            totals[key] = (count + 1, total + event.weight)
        return totals

    def decay(self, item: str, signal: str, half_life_ms: int, at_ms: int) -> float:
        """Exponentially decayed sum of weights."""
        rate = math.log(2) / half_life_ms
        return math.fsum(
            event.weight / MICRO * math.exp(-rate * (at_ms - event.ts_ms))
            for event in self._by_cell.get((item, signal), [])
        )

    def linear(self, item: str, signal: str, lifetime_ms: int, at_ms: int) -> float:
        """Linearly decayed sum of weights."""
        return math.fsum(
            event.weight / MICRO * max(0.0, 1.0 - (at_ms - event.ts_ms) / lifetime_ms)
            for event in self._by_cell.get((item, signal), [])
        )

    def state(self, user: str, state: str) -> set[str]:
        """Items that the user has in the state."""
        items: set[str] = set()
        for event in self._by_user.get(user, []):
            signal = self.schema.signals[event.kind]
            if state in signal.clears:
                items.discard(event.item)
            if state in signal.state:
                items.add(event.item)
        return items

    def preference(self, user: str, slot: str) -> Preference | None:
        """Vectors after all of the user's events on known items; None without an update."""
        long: list[float] | None = None
        short: list[float] | None = None
        updates, long_error, short_error = 0, 0.0, 0.0
        for event, item in self._applied(user):
            vector = item.embeddings.get(slot)
            strength = self.schema.signals[event.kind].preference * (event.weight / MICRO)
            if vector is None or strength == 0.0:
                continue
            unit = _normalized([float(value) for value in vector])
            long, long_error = _turned(long, unit, strength * _rate(LONG_RATE, updates), long_error)
            short, short_error = _turned(short, unit, strength * _rate(SHORT_RATE, updates), short_error)
            updates += 1
        if long is None or short is None:
            return None
        return Preference(updates, long, short, max(long_error, short_error, PREFERENCE_ERROR))

    def relationship(self, user: str, type_name: str, target: str) -> Edge | None:
        """The weight of an implicit edge; None when no event moved it."""
        return self.relationships(user, type_name).get(target)

    def relationships(self, user: str, type_name: str) -> dict[str, Edge]:
        """The user's implicit edges of one type by target, which is a creator or an item."""
        half_life_ms = self.schema.relationships[type_name].half_life_ms
        edges: dict[str, Edge] = {}
        for event, target in self._moving(user, type_name):
            delta = self.schema.signals[event.kind].relationship.get(type_name, 0.0)
            if delta == 0.0 or not target:
                continue
            before = edges.get(target, Edge(0.0, event.ts_ms))
            kept = before.weight * _left(event.ts_ms - before.updated_ms, half_life_ms)
            added = delta * _left(before.updated_ms - event.ts_ms, half_life_ms)
            edges[target] = Edge(min(1.0, max(0.0, kept + added)), max(before.updated_ms, event.ts_ms))
        return edges

    def _moving(self, user: str, type_name: str) -> list[tuple[Event, str | None]]:
        """The user's events with the target that an edge of the type leads to, in the order that counts."""
        if self.schema.relationships[type_name].target == "item":
            return [(event, event.item) for event in self._by_user.get(user, [])] if user else []
        return [(event, item.creator) for event, item in self._applied(user)]

    def _applied(self, user: str) -> list[tuple[Event, EntityRecord]]:
        """The user's events with the record of the item that each saw, in the serial order of the run.

        An event that came before its item's record waits, and is applied where that became visible, before
        the events that follow. Without positions every event saw its item's last record.
        """
        events = self._by_user.get(user, []) if user else []
        if self.card_positions is None:
            items = self.entities["item"]
            return [(event, items[event.item]) for event in events if event.item in items]
        placed = [(place, event, item) for event in events for place, item in self._places(event)]
        placed.sort(key=lambda one: one[0])
        return [(event, item) for _, event, item in placed if item is not None]

    def _places(self, event: Event) -> Iterator[tuple[tuple[int, bool, int], EntityRecord | None]]:
        """Where the event was applied (which cards, whether it had not waited, its own offset), and the
        item's record there, None if it was deleted; nothing if it waits still.
        """
        assert self.card_positions is not None
        history = self.card_positions.get(event.partition, ())
        seen = max(0, bisect_left(history, event.offset, key=lambda row: row[0]) - 1)
        for number in range(seen, len(history)):
            known = [
                version
                for version in self.item_versions.get(event.item, ())
                if version.offset < history[number][1].get(version.partition, 0)
            ]
            if known:
                yield (number, number == seen, event.offset), known[-1].record
                return

    def _within(self, item: str, signal: str, window: str, now_ms: int) -> list[Event]:
        events = self._by_cell.get((item, signal), [])
        if window == "all_time":
            return events
        bucket_ms, buckets = WINDOWS[window]
        current = now_ms // bucket_ms
        return [event for event in events if current - buckets < event.ts_ms // bucket_ms <= current]


def fold(
    records: Iterable[LogRecord],
    schema: Schema,
    *,
    partitions: int | None = None,
    card_positions: CardPositions | None = None,
) -> CleanFold:
    """Fold a log.

    Args:
        records: any order; each topic is folded by partition and offset.
        partitions: of ``tidal.signals``. An event on a partition that is not its user's then counts where
            the engine re-routed it to; None takes every event where it stands.
        card_positions: which item records user partitions saw when; None = the last ones, always.
    """
    log = list(records)
    entities = fold_entities(log, schema, partitions)
    result = CleanFold(
        schema,
        entities=entities.records,
        edges=dict(entities.edges),
        item_versions=entities.item_versions,
        card_positions=card_positions,
    )
    result.rejects.extend(entities.rejects)
    _SignalsFold(result, schema, partitions).run(list(in_log_order(log, SIGNALS)))
    return result


class _SignalsFold:
    """Walks ``tidal.signals``."""

    def __init__(self, result: CleanFold, schema: Schema, partitions: int | None) -> None:
        self._result = result
        self._schema = schema
        self._partitions = partitions
        self._horizons: dict[int, Horizon] = {}
        self._profiles: dict[tuple[int, str], tuple[tuple[int, ...], str]] = {}
        self._misplaced: dict[tuple[int, int], list[Event]] = defaultdict(list)
        self._rerouted_through: dict[tuple[int, int], int] = {}
        self._redriven: set[Origin] = set()
        self._forgotten: dict[tuple[int, int], int] = {}

    def run(self, log: list[LogRecord]) -> None:
        events_at: dict[tuple[int, int], list[Event]] = {}
        for record in log:
            if not record.type:
                events_at[record.partition, record.offset] = self._read(record)
        for record in log:
            if record.type == "profile":
                self._move_profile(record)
            elif record.type == "rerouted":
                for event in self._rerouted(record):
                    self._fold(event)
            elif record.type == "forget":
                self._forget(record)
            elif record.type == "item-conditions":
                told = json.loads(record.value or b"{}")
                source = (told["source"][0], told["source"][1])
                self._result.segments.tell(record.partition, told["item"], told["holds"], source)
            else:
                for event in events_at[record.partition, record.offset]:
                    self._fold(event)

    def _read(self, record: LogRecord) -> list[Event]:
        """Events that belong on this partition; others wait for the record that re-routes them."""
        letter = letter_of(record.headers.items())
        if letter is not None and letter.root in self._redriven:
            return []
        events, rejects = events_of(record, self._schema, letter.first_seen_ms if letter else None)
        self._result.rejects.extend(rejects)
        if letter is not None and events:
            self._redriven.add(letter.root)
        here = [event for event in events if self._home(event) == record.partition]
        for event in events:
            if self._home(event) != record.partition:
                self._misplaced[record.partition, record.offset].append(event)
                self._result.misplaced += 1
        return here

    def _home(self, event: Event) -> int:
        if self._partitions is None:
            return event.partition
        return partition_for((event.user or event.item).encode(), self._partitions)

    def _rerouted(self, record: LogRecord) -> list[Event]:
        entries = decode_rekeyed(record.value or b"")
        sources = sorted(set(zip(entries.source_partition.tolist(), entries.offset.tolist(), strict=True)))
        events: list[Event] = []
        for source, offset in sources:
            if offset <= self._rerouted_through.get((record.partition, source), -1):
                continue
            self._rerouted_through[record.partition, source] = offset
            waiting = self._misplaced.get((source, offset), [])
            events += [
                event._replace(partition=record.partition, offset=record.offset)
                for event in waiting
                if self._home(event) == record.partition
            ]
        return events

    def _move_profile(self, record: LogRecord) -> None:
        written = json.loads(record.value or b"{}")
        key, source = (record.partition, written["user"]), tuple(written["source"])
        if source[1] <= self._forgotten.get((record.partition, source[0]), -1):
            return
        known = self._profiles.get(key)
        if known is None or source[1] > known[0][1]:
            self._profiles[key] = (source, _canonical(written["profile"]))

    def _forget(self, record: LogRecord) -> None:
        """The user begins anew; what items counted stays."""
        told = json.loads(record.value or b"{}")
        place = (record.partition, told["source"][0])
        if told["source"][1] <= self._forgotten.get(place, -1):
            return
        self._forgotten[place] = told["source"][1]
        self._result.forget(told["user"])
        self._result.segments.forget(record.partition, told["user"])
        self._profiles.pop((record.partition, told["user"]), None)
        if record.partition in self._horizons:
            self._horizons[record.partition].forget(told["user"])

    def _fold(self, event: Event) -> None:
        generation_ms = self._schema.limits.dedup_generation_ms
        horizon = self._horizons.setdefault(event.partition, Horizon(generation_ms))
        if self._schema.signals[event.kind].dedup == "default" and horizon.is_repetition(event):
            self._result.duplicates += 1
            return
        profile = self._profiles.get((event.partition, event.user)) if event.user else None
        stamped = json.loads(profile[1]) if profile else {}
        stamped.update(dict.fromkeys(self._result.segments.stamp(event), "true"))
        self._result.accept(event._replace(profile=_canonical(stamped)))


def _canonical(profile: Mapping[str, str]) -> str:
    return json.dumps(profile, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _rate(rate: tuple[float, float, float], updates: int) -> float:
    eta_0, eta_min, tau = rate
    return max(eta_min, eta_0 / (1.0 + updates / tau))


def _turned(
    pref: list[float] | None, unit: list[float], eta: float, error: float
) -> tuple[list[float], float]:
    """normalize(pref + η·e), and the error of 32-bit arithmetic after it, which grows with what cancels.

    What all but cancels leaves the vector as it was.
    """
    before = pref or [0.0] * len(unit)
    moved = [old + eta * part for old, part in zip(before, unit, strict=True)]
    length, added = _length(moved), (pref is not None) + abs(eta)
    if length < CANCELLED_SHARE * added:
        return before, error
    return _normalized(moved), (error + ROUNDING * added) / length


def _length(vector: list[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in vector))


def _normalized(vector: list[float]) -> list[float]:
    length = _length(vector)
    return [value / length for value in vector]


def _left(elapsed_ms: int, half_life_ms: int | None) -> float:
    """Share that is left after a time; nothing grows before it."""
    if half_life_ms is None or elapsed_ms <= 0:
        return 1.0
    return 2.0 ** (-elapsed_ms / half_life_ms)
