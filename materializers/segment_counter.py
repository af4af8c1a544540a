"""What segments count of users, event by event, and which of them hold before each event.

An event's time t is the largest of its own and of all times counted of the user so far: a user's time never
goes back. ``At least N in the last W`` holds while the N-th newest time is later than t - W. An event that
comes late counts from where it stands in the log, for what is left of its window; one that is older than the
N newest changes nothing any more, and need not. So the N newest times say everything, exactly, and nobody has
to look at users as time passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from materializers.column_table import ColumnTable
from materializers.grouping import distinct
from materializers.materializer import PartitionContext
from materializers.rows.segments import NEVER_MS, TABLE, SegmentRow, segment_keys
from materializers.sliding import newest_after, running_max, sum_before
from schemas.segment_plan import FOREVER, AtLeast, SegmentPlan, SumAtLeast

I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class SegmentCounter:
    """What is kept of the users of one partition, by slots of ``table``.

    Args:
        memory_bytes_max: of rows in memory; others are read when an event touches them.
    """

    def __init__(self, plan: SegmentPlan, context: PartitionContext, memory_bytes_max: int) -> None:
        self._plan = plan
        windowed = [atom for atom in plan.atoms if isinstance(atom, AtLeast) and atom.window_ms != FOREVER]
        self._wanted = [
            sorted({atom.events for atom in windowed if atom.term == place})
            for place in range(len(plan.terms))
        ]
        row = SegmentRow(plan.terms)
        users = context.users
        self.table = ColumnTable(
            TABLE,
            row,
            context.rows,
            lambda keys: segment_keys(users.entity_ids[keys]),
            order_of=lambda keys: (users.entity_ids[keys],),
            defaults=row.defaults,
            slots_max=max(1, memory_bytes_max // row.width),
        )

    def fold(self, user: I64, ts_ms: I64, weight: I64, matches: Sequence[Flags]) -> list[Flags]:
        """Count n events in log order; of each segment which events' users it held before them, bool[n]."""
        users = distinct(user)
        slots = self.table.slots(users)
        group = np.searchsorted(users, user)
        at_ms = np.maximum(self.table["newest_ms"][slots[group]], ts_ms)
        truths = [self._stored(atom, slots[group], at_ms) for atom in self._plan.atoms]
        counted = np.logical_or.reduce(matches)
        if counted.any():
            busy = np.zeros(len(users), dtype=bool)
            busy[group[counted]] = True
            rows = np.flatnonzero(busy[group])
            rows = rows[np.argsort(group[rows], kind="stable")]
            part = _Part.of(group[rows], slots, ts_ms[rows], weight[rows], [match[rows] for match in matches])
            for truth, live in zip(truths, self._fold_busy(part), strict=True):
                truth[rows] = live
        return self._plan.membership(truths)

    def _fold_busy(self, part: _Part) -> list[Flags]:
        """Count events of users of whom something is counted; the truth of each atom before each event."""
        newest_ms = self.table["newest_ms"]
        stored_ms = newest_ms[part.slots]
        counted = np.logical_or.reduce(part.matches)
        seen_ms = running_max(part.group, np.where(counted, part.ts_ms, NEVER_MS))
        at_ms = np.maximum(np.maximum(stored_ms[part.group], seen_ms), part.ts_ms)
        slots = part.slots[part.group]
        truths = [self._stored(atom, slots, at_ms) for atom in self._plan.atoms]
        self.table.touch(part.slots)
        for place, match in enumerate(part.matches):
            if match.any():
                self._fold_term(place, part, at_ms, truths)
        last = np.append(np.flatnonzero(np.diff(part.group)), len(part.group) - 1)
        newest_ms[part.slots] = np.maximum(stored_ms, seen_ms[last])
        return truths

    def _fold_term(self, place: int, part: _Part, at_ms: I64, truths: Sequence[Flags]) -> None:
        """Count what matches one term, and correct the truth of its atoms for the users of whom it does."""
        table, match = self.table, part.matches[place]
        touched = np.zeros(len(part.slots), dtype=bool)
        touched[part.group[match]] = True
        rows = np.flatnonzero(touched[part.group])
        part = _Part.of(part.group[rows], part.slots, part.ts_ms[rows], part.weight[rows], [match[rows]])
        [match] = part.matches
        weight = np.where(match, part.weight, 0)
        before = sum_before(part.group, match.astype(np.int64))
        nth = self._slide(place, part, before)
        for atom, truth in zip(self._plan.atoms, truths, strict=True):
            if atom.term != place:
                continue
            if isinstance(atom, SumAtLeast):
                earlier = table[f"sum_{place}"][part.slots][part.group]
                truth[rows] = earlier + sum_before(part.group, weight) >= atom.micro
            elif atom.window_ms == FOREVER:
                truth[rows] = table[f"count_{place}"][part.slots][part.group] + before >= atom.events
            else:
                truth[rows] = nth[atom.events] > at_ms[rows] - atom.window_ms
        np.add.at(table[f"count_{place}"], part.slots[part.group], match)
        np.add.at(table[f"sum_{place}"], part.slots[part.group], weight)

    def _slide(self, place: int, part: _Part, before: I64) -> dict[int, I64]:
        """The n-th newest time of a term before each event, i64[n], for each n that atoms ask for; keeps the
        newest times after the batch.
        """
        if not self._plan.terms[place].kept:
            return {}
        times = self.table[f"times_{place}"]
        wanted = self._wanted[place]
        [match] = part.matches
        found = newest_after(times[part.slots], part.group[match], part.ts_ms[match], wanted)
        times[part.slots] = found.kept
        row = found.starts[part.group] + before
        return {nth: found.values[row, column] for column, nth in enumerate(wanted)}

    def _stored(self, atom: AtLeast | SumAtLeast, slots: I64, at_ms: I64) -> Flags:
        """The truth by rows alone."""
        if isinstance(atom, SumAtLeast):
            return np.asarray(self.table[f"sum_{atom.term}"][slots] >= atom.micro)
        if atom.window_ms == FOREVER:
            return np.asarray(self.table[f"count_{atom.term}"][slots] >= atom.events)
        nth = self.table[f"times_{atom.term}"][slots, atom.events - 1]
        return np.asarray(nth > at_ms - atom.window_ms)


class _Part(NamedTuple):
    """Events by group, each group in log order; ``slots`` by group; of each term which events it counts."""

    group: I64
    slots: I64
    ts_ms: I64
    weight: I64
    matches: list[Flags]

    @staticmethod
    def of(group: I64, slots: I64, ts_ms: I64, weight: I64, matches: list[Flags]) -> _Part:
        """Of events whose ``group`` i64[n], ascending, has gaps."""
        named, dense = np.unique(group, return_inverse=True)
        return _Part(dense.astype(np.int64), slots[named], ts_ms, weight, matches)
