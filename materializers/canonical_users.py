"""Canonical reader of ``distinct_users``: what a day's runs amount to, wherever they were cut."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from materializers.facts import DAMAGE, Fact, unreadable
from materializers.materializer import RowReader
from materializers.rows.distinct_users import (
    FIRST_DAY_KEY,
    NOTHING,
    TABLE,
    THRESHOLD_HOUR,
    Entries,
    day_of,
    days_range,
    decode_block,
    decode_runs,
    joined,
    run_range,
)
from materializers.rows.ordinals import ITEM_IDS, ITEM_PROFILES, decode_ordinal
from materializers.user_sample import canonical
from schemas.ids import entity_ids
from schemas.model import Schema

_DAY_MAX = 2**32 - 2


def distinct_users(rows: RowReader, schema: Schema) -> Iterator[Fact]:
    """Of each item, signal and day: users, threshold if there is one, and a digest of all visits.

    Holds one day at a time. Days that wait to be deleted say nothing.
    """
    items = [decode_ordinal(value) for _, value in rows.scan(ITEM_IDS)]
    profiles = entity_ids([decode_ordinal(value) for _, value in rows.scan(ITEM_PROFILES)])
    names = {signal.code: signal.name for signal in schema.signal_list}
    first_day = int.from_bytes(rows.get_many(TABLE, [FIRST_DAY_KEY])[0] or b"", "big")
    for key, value in rows.scan(TABLE, *days_range(first_day, _DAY_MAX)):
        try:
            entries = yield from _of_day(rows, day_of(key), decode_runs(value).runs)
        except DAMAGE as error:
            yield unreadable(TABLE, key, error)
            continue
        for cell in _cells(entries):
            item, code, day = int(cell.item[0]), int(cell.signal[0]), int(cell.day[0])
            name = items[item] if item < len(items) else f"ordinal {item}"
            yield Fact(TABLE, (name, names.get(code, f"code {code}"), f"day {day}"), _said(cell, profiles))


def _of_day(rows: RowReader, day: int, runs: tuple[int, ...]) -> Generator[Fact, None, Entries]:
    parts: list[Entries] = []
    for run in runs:
        for key, value in rows.scan(TABLE, *run_range(day, run)):
            try:
                parts.append(decode_block(value, day))
            except DAMAGE as error:
                yield unreadable(TABLE, key, error)
    return canonical(joined(parts)) if parts else NOTHING


def _cells(entries: Entries) -> Iterator[Entries]:
    if not len(entries):
        return
    changed = (np.diff(entries.item) != 0) | (np.diff(entries.signal.astype(np.int64)) != 0)
    edges = [0, *(np.flatnonzero(changed) + 1).tolist(), len(entries)]
    for start, end in pairwise(edges):
        yield entries.at(slice(start, end))


def _said(cell: Entries, profiles: npt.NDArray[np.uint64]) -> str:
    visits = cell.at(cell.hour != THRESHOLD_HOUR)
    profile = visits.profile.astype(np.uint64)
    known = visits.profile < len(profiles)
    profile[known] = profiles[visits.profile[known]]
    table = np.stack([visits.user, profile, visits.hour, visits.first, visits.last]).astype("<u8")
    order = np.lexsort(table[::-1])
    digest = blake3(np.ascontiguousarray(table[:, order]).tobytes()).hexdigest(8)
    users = f"{len(np.unique(visits.user))} users in {len(visits)} visits, digest {digest}"
    return users if len(visits) == len(cell) else f"{users}, sampled below {int(cell.user[-1]):#018x}"
