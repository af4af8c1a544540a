"""What a reader sees of a partition, as steps that a writer can repeat offset by offset.

A reader of committed records meets holes: transaction markers, aborted records, what a compaction took out.
Offsets are given by the log, so each hole has to be filled with something that nobody will see:

* one offset: the record before it is written in a transaction of its own, the commit marker takes the place;
* more: fillers in a transaction that is aborted, the marker takes the last place;
* before the first record: fillers, deleted at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.errors import MirrorError

# Of one aborted transaction: far below what a broker's time-out for one allows.
_FILLERS_MAX = 200_000


class Copied(NamedTuple):
    """One record with everything that is kept of it."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Step(NamedTuple):
    """Records that follow each other, then a hole that is filled with `carrier` (one offset) or `fillers`.

    `fillers` counts the records of an aborted transaction; its marker takes one offset more.
    """

    records: list[Copied]
    carrier: Copied | None = None
    fillers: int = 0
    time_ms: int = 0


@dataclass(slots=True)
class Runs:
    """Cuts the records of one partition into steps. `next_offset` is where the copy goes on."""

    place: str
    next_offset: int
    _records: list[Copied] = field(default_factory=list)

    def add(self, record: Copied) -> list[Step]:
        """The steps that this record completes; the record itself is held until what follows it is known."""
        steps = self._close(record.offset, record.timestamp_ms)
        self._records.append(record)
        self.next_offset = record.offset + 1
        return steps

    def flush(self) -> list[Step]:
        """What can be written before more is read: all but the last record, it may have to carry a hole."""
        ready, self._records = self._records[:-1], self._records[-1:]
        return [Step(ready)] if ready else []

    def finish(self, end: int) -> list[Step]:
        """The rest, up to the end of the partition."""
        steps = self._close(end, self._records[-1].timestamp_ms if self._records else 0)
        rest, self._records = self._records, []
        self.next_offset = end
        return [*steps, Step(rest)] if rest else steps

    def _close(self, offset: int, time_ms: int) -> list[Step]:
        """Steps that lead to `offset`, when there is a hole before it."""
        hole = offset - self.next_offset
        if hole <= 0:
            return []
        records, self._records = self._records, []
        if hole == 1:
            if not records:
                raise MirrorError(
                    f"{self.place}: offset {self.next_offset} is gone at the source, and no record before it "
                    "is left to take its place; delete the topic at the target and start again"
                )
            return [Step(records[:-1], carrier=records[-1])]
        steps = [Step(records)] if records else []
        while hole:
            # Never one offset left over: that could not be filled.
            size = hole if hole <= _FILLERS_MAX + 2 else _FILLERS_MAX
            steps.append(Step([], fillers=size - 1, time_ms=time_ms))
            hole -= size
        return steps
