"""From one batch of columns to records: each event to its user's partition, a bounded number to a record.

Pure. The order of the events of one partition is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.records.columns import EventColumns
from streams.partitioner import partitions_for


def event_partitions(columns: EventColumns, partitions: int) -> NDArray[np.uint16]:
    """The partition of each event, u16[n]: by its user, or by its item when it is anonymous."""
    result = _by_dictionary(columns.user, columns.users, partitions)
    anonymous = _anonymous(columns)
    if anonymous.any():
        result[anonymous] = _by_dictionary(columns.item[anonymous], columns.items, partitions)
    return result


def split(columns: EventColumns, partitions: int, events_max: int) -> Iterator[tuple[int, EventColumns]]:
    """(partition, at most `events_max` of its events), partition by partition."""
    partition = event_partitions(columns, partitions)
    rows = np.argsort(partition, kind="stable")
    ends = np.cumsum(np.bincount(partition, minlength=partitions))
    start = 0
    for number, end in enumerate(ends.tolist()):
        for first in range(start, end, events_max):
            yield number, columns.take(rows[first : min(first + events_max, end)])
        start = end


def encode_within(
    columns: EventColumns, encode: Callable[[EventColumns], bytes], bytes_max: int
) -> Iterator[tuple[int, bytes]]:
    """(number of events, encoded record) of `columns`, halved until each fits or has a single event."""
    value = encode(columns)
    if len(value) <= bytes_max or len(columns) <= 1:
        yield len(columns), value
        return
    middle = len(columns) // 2
    for rows in (np.arange(middle), np.arange(middle, len(columns))):
        yield from encode_within(columns.take(rows), encode, bytes_max)


def chunks(columns: EventColumns, events_max: int) -> Iterator[EventColumns]:
    """Consecutive views of at most `events_max` events; arrays and dictionaries are shared, not copied."""
    for start in range(0, len(columns), events_max):
        part = slice(start, start + events_max)
        yield EventColumns(
            kinds=columns.kinds,
            items=columns.items,
            users=columns.users,
            kind=columns.kind[part],
            item=columns.item[part],
            user=columns.user[part],
            weight=columns.weight[part],
            ts_ms=columns.ts_ms[part],
            request_ids=None if columns.request_ids is None else columns.request_ids[part],
            contexts=None if columns.contexts is None else columns.contexts[part],
        )


def _by_dictionary(index: NDArray[np.uint32], texts: Sequence[str], partitions: int) -> NDArray[np.uint16]:
    """partitions_for of the texts that are used, spread back over the events."""
    used, inverse = np.unique(index, return_inverse=True)
    return partitions_for([texts[entry] for entry in used.tolist()], partitions)[inverse]


def _anonymous(columns: EventColumns) -> NDArray[np.bool_]:
    nobody = [entry for entry, user in enumerate(columns.users) if not user]
    return np.isin(columns.user, nobody) if nobody else np.zeros(len(columns), np.bool_)
