"""What was refused, sent again after a fix, and counted: each dead letter once, however often it is sent.

A record that is sent again carries its letter's headers (``schemas/records/dead_letter.py``); what was
refused first is its identity. When events of such a record are accepted, a mark of that identity is written
with the events' own rows; a later record of the same identity is passed over. A record that is refused again
leaves no mark: its new letter names the first one, and can be sent again in turn.

Marks do not expire, as the dedup horizon does: a letter may be sent again a month later, and signals with
``dedup: none`` have no horizon at all. One takes 22 bytes on the disk and none in memory.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from materializers.materializer import RowReader, RowWriter, TableSpec
from schemas.records.dead_letter import DeadLetter, Origin, letter_of
from streams.records import LogRecord, Records

REDRIVEN_TABLE: Final = TableSpec(
    "redriven",
    "[partition u16][offset u64][event u32] refused first -> offset of the record that was accepted, u64 BE",
    bloom=False,
)
_WHOLE: Final = 0xFFFFFFFF

I64 = npt.NDArray[np.int64]


def mark_key(origin: Origin) -> bytes:
    """The mark's key of what was refused first."""
    event = _WHOLE if origin.event is None else origin.event
    return origin.partition.to_bytes(2, "big") + origin.offset.to_bytes(8, "big") + event.to_bytes(4, "big")


def letters_in(records: Records) -> dict[int, DeadLetter]:
    """The records that are dead letters sent again, by position: those that came from this topic."""
    found = {}
    for at, headers in records.headers.items():
        letter = letter_of(headers)
        if letter is not None and letter.root.topic == records.topic and _fits(letter.root):
            found[at] = letter
    return found


def starts_of_repeats(records: Records) -> list[int]:
    """Positions at which a letter comes again that came since the last such position, ascending.

    Whether the first of the two counts is known only when it has been folded; so these begin another fold.
    """
    seen: set[Origin] = set()
    starts = []
    for at, letter in sorted(letters_in(records).items()) if records.headers else ():
        if letter.root in seen:
            starts.append(at)
            seen.clear()
        seen.add(letter.root)
    return starts


class Redriven:
    """The marks of one user partition."""

    def __init__(self, rows: RowReader) -> None:
        self._rows = rows
        self._unwritten: dict[bytes, int] = {}
        self._tried: dict[int, bytes] = {}
        self.counted = 0

    def admits(self, record: LogRecord) -> bool:
        """Whether to fold a record: not if it is a letter whose events were counted before."""
        letter = letter_of(record.headers)
        if letter is None or letter.root.topic != record.topic or not _fits(letter.root):
            return True
        key = mark_key(letter.root)
        if key in self._unwritten or self._rows.get_many(REDRIVEN_TABLE.name, [key])[0] is not None:
            return False
        self._tried[record.offset] = key
        return True

    def accepted(self, offset: I64) -> None:
        """``offset`` i64[n]: those of the events that were accepted of the records admitted before."""
        if self._tried:
            for at in np.unique(offset[np.isin(offset, list(self._tried))]).tolist():
                self._unwritten[self._tried[at]] = at
                self.counted += 1
            self._tried.clear()

    def flush(self, writer: RowWriter) -> None:
        """Write the marks made since the last call."""
        for key, offset in self._unwritten.items():
            writer.put(REDRIVEN_TABLE.name, key, offset.to_bytes(8, "big"))
        self._unwritten.clear()


def first_seen(parts: list[Records], timestamp: I64) -> I64:
    """When each record of all parts was first in the log, i64[n]: the time of events that have none."""
    if not any(part.headers for part in parts):
        return timestamp
    first = timestamp.copy()
    start = 0
    for part in parts:
        for at, letter in letters_in(part).items():
            first[start + at] = letter.first_seen_ms
        start += len(part)
    return first


def _fits(origin: Origin) -> bool:
    """Whether the headers, which anybody can write, name a place that a log can have."""
    return (
        0 <= origin.partition < 1 << 16 and 0 <= origin.offset < 1 << 63 and 0 <= (origin.event or 0) < _WHOLE
    )
