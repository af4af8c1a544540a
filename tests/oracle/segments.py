"""Who is in which segment: every count is a loop over the times that were counted."""

from __future__ import annotations

import operator
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator

from schemas.durations import parse_duration
from schemas.model import Schema
from schemas.predicate_check import check
from schemas.predicate_text import to_text
from schemas.segment_ast import AllOf, AnyOf, Formula, Measure, NoneOf
from schemas.segment_parser import parse_segment
from tests.oracle.records import Event

COMPARE = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
MICRO = 1_000_000
NEVER_MS = -(1 << 62)

Place = tuple[int, str]
"""Partition and id: of a user, or of an item as the partition knows it."""


class SegmentModel:
    """What the log says up to a place in it."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._formulas = {name: parse_segment(segment.text) for name, segment in schema.segments.items()}
        self._measures = [measure for formula in self._formulas.values() for measure in measures(formula)]
        self._holds: dict[Place, tuple[tuple[int, int], frozenset[str]]] = {}
        self._times: dict[tuple[Place, Measure], list[int]] = defaultdict(list)
        self._sums: dict[tuple[Place, Measure], int] = defaultdict(int)
        self._newest: dict[Place, int] = {}

    def tell(self, partition: int, item: str, holds: list[str], source: tuple[int, int]) -> None:
        """The item satisfies these conditions from here on, unless something newer was told."""
        known = self._holds.get((partition, item))
        if known is None or known[0][0] != source[0] or known[0][1] <= source[1]:
            self._holds[partition, item] = (source, frozenset(holds))

    def stamp(self, event: Event) -> list[str]:
        """The segments that the user is in before the event is counted; then it is."""
        if not event.user or not self._formulas:
            return []
        who = (event.partition, event.user)
        names = self.at(who, max(self._newest.get(who, NEVER_MS), event.ts_ms))
        for measure in dict.fromkeys(self._measures):
            if self._is_counted(measure, event):
                insort(self._times[who, measure], event.ts_ms)
                self._sums[who, measure] += event.weight
                self._newest[who] = max(self._newest.get(who, NEVER_MS), event.ts_ms)
        return names

    def at(self, who: Place, at_ms: int) -> list[str]:
        """Segments of a user at a time, which is not before any that was counted of them."""
        return [name for name, formula in self._formulas.items() if self._is_true(formula, who, at_ms)]

    def at_newest(self) -> dict[Place, list[str]]:
        """Segments of everybody of whom something was counted, at the newest time of it."""
        return {who: self.at(who, newest) for who, newest in self._newest.items()}

    def members(self, name: str, now_ms: int) -> set[str]:
        """Users in a segment now, as far as the log goes."""
        return {who[1] for who, newest in self._newest.items() if name in self.at(who, max(now_ms, newest))}

    def forget(self, partition: int, user: str) -> None:
        """The user has done nothing."""
        self._newest.pop((partition, user), None)
        for key in [key for key in self._times if key[0] == (partition, user)]:
            del self._times[key]
            self._sums.pop(key, None)

    def _is_counted(self, measure: Measure, event: Event) -> bool:
        if measure.signal != event.kind:
            return False
        if measure.where is None:
            return True
        _, holds = self._holds.get((event.partition, event.item), ((0, 0), frozenset[str]()))
        return to_text(check(measure.where, self._schema, "item")) in holds

    def _is_true(self, formula: Formula, who: Place, at_ms: int) -> bool:
        match formula:
            case AllOf(children):
                return all(self._is_true(child, who, at_ms) for child in children)
            case AnyOf(children):
                return any(self._is_true(child, who, at_ms) for child in children)
            case NoneOf(child):
                return not self._is_true(child, who, at_ms)
            case Measure():
                return bool(COMPARE[formula.op](self._value(formula, who, at_ms), formula.value))

    def _value(self, measure: Measure, who: Place, at_ms: int) -> float:
        if measure.read == "sum":
            return self._sums.get((who, measure), 0) / MICRO
        times = self._times.get((who, measure), [])
        if measure.window == "all_time":
            return len(times)
        return len(times) - bisect_right(times, at_ms - parse_duration(measure.window))


def measures(formula: Formula) -> Iterator[Measure]:
    """Every measure of a formula."""
    match formula:
        case AllOf(children) | AnyOf(children):
            for child in children:
                yield from measures(child)
        case NoneOf(child):
            yield from measures(child)
        case Measure():
            yield formula
