"""Consumed records as columns: one object for many records of one partition, none for each.

Building a Python object for every record costs more than decoding an event of 100 bytes does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
Headers = tuple[tuple[str, bytes], ...]


class LogRecord(NamedTuple):
    """One record, for work that looks at single ones. ``timestamp`` in ms."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(slots=True)
class Records:
    """n consecutive records of one partition, at least one.

    ``offset`` i64[n] ascending, ``timestamp`` i64[n] in ms, ``key`` and ``value`` lists of n; ``headers``
    holds those of the records that have any, by position.
    """

    topic: str
    partition: int
    offset: I64
    timestamp: I64
    key: list[bytes | None]
    value: list[bytes | None]
    headers: dict[int, Headers]

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, position: int) -> LogRecord:
        """One record; ``position`` is not negative."""
        return LogRecord(
            self.topic,
            self.partition,
            int(self.offset[position]),
            int(self.timestamp[position]),
            self.key[position],
            self.value[position],
            self.headers.get(position, ()),
        )

    def __iter__(self) -> Iterator[LogRecord]:
        return map(self.__getitem__, range(len(self)))

    @property
    def first_offset(self) -> int:
        return int(self.offset[0])

    @property
    def last_offset(self) -> int:
        return int(self.offset[-1])

    def weight(self) -> int:
        """Bytes of all values."""
        return sum(len(value) for value in self.value if value)

    def part(self, start: int, end: int) -> Records:
        """The records at positions ``start`` up to ``end``."""
        if start == 0 and end == len(self):
            return self
        headers = {at - start: found for at, found in self.headers.items() if start <= at < end}
        return Records(
            self.topic,
            self.partition,
            self.offset[start:end],
            self.timestamp[start:end],
            self.key[start:end],
            self.value[start:end],
            headers,
        )

    def at(self, positions: list[int]) -> Records:
        """The records at ``positions``, none perhaps."""
        place = {at: new for new, at in enumerate(positions)}
        return Records(
            self.topic,
            self.partition,
            self.offset[positions],
            self.timestamp[positions],
            [self.key[at] for at in positions],
            [self.value[at] for at in positions],
            {place[at]: found for at, found in self.headers.items() if at in place},
        )

    def beyond(self, offset: int) -> Records:
        """The records after ``offset``, none perhaps."""
        return self.part(int(np.searchsorted(self.offset, offset, side="right")), len(self))


AnyRecords = Records | Sequence[Any]
"""Columns, or objects with a ``LogRecord``'s attributes."""


def records_of(topic: str, records: AnyRecords) -> Records:
    """The columns of at least one record."""
    if isinstance(records, Records):
        return records
    return Records(
        topic,
        records[0].partition,
        np.array([record.offset for record in records], dtype=np.int64),
        np.array([record.timestamp for record in records], dtype=np.int64),
        [record.key for record in records],
        [record.value for record in records],
        {at: tuple(record.headers) for at, record in enumerate(records) if record.headers},
    )


def join_records(parts: Sequence[Records]) -> Records:
    """One object for consecutive parts of one partition, at least one."""
    if len(parts) == 1:
        return parts[0]
    headers: dict[int, Headers] = {}
    start = 0
    for part in parts:
        headers.update((start + at, found) for at, found in part.headers.items())
        start += len(part)
    return Records(
        parts[0].topic,
        parts[0].partition,
        np.concatenate([part.offset for part in parts]),
        np.concatenate([part.timestamp for part in parts]),
        [key for part in parts for key in part.key],
        [value for part in parts for value in part.value],
        headers,
    )
