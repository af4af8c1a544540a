"""Canonical readers of the views whose rows depend on block cuts, on ordinals, or on sums of floats."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

import numpy as np

from materializers.facts import (
    DAMAGE,
    WITHIN_DECAY,
    WITHIN_VECTOR,
    Canonical,
    EntityRef,
    Fact,
    unreadable,
)
from materializers.materializer import RowReader
from materializers.rows import cells, preference, relationships, user_state
from materializers.rows.blocks import BlockColumns, Resolution, decode_block, split_block_key
from materializers.rows.ordinals import (
    ITEM_IDS,
    ITEM_PROFILES,
    USER_ITEMS,
    decode_ordinal,
    decode_ordinal_key,
)
from schemas.keys import split_row_key
from schemas.model import Schema

_DAY_MINUTES: Final = Resolution.DAY.minutes
_HOUR_MINUTES: Final = Resolution.HOUR.minutes

_CellOfDay = tuple[int, int, int, int]
"""Item ordinal, signal code, profile ordinal (0 without), start of the day in minutes."""
_Hours = dict[int, tuple[int, int]]
"""Start of the hour in minutes -> count, sum in micro-units."""


def several(*readers: Canonical) -> Canonical:
    """One reader after the other."""

    def read(rows: RowReader, schema: Schema) -> Iterator[Fact]:
        for reader in readers:
            yield from reader(rows, schema)

    return read


def dictionary(table: str) -> Canonical:
    """Which strings have an ordinal; which one does not matter, as long as it is one."""

    def read(rows: RowReader, schema: Schema) -> Iterator[Fact]:
        strings: Counter[str] = Counter()
        for key, value in rows.scan(table):
            try:
                decode_ordinal_key(key)
                strings[decode_ordinal(value)] += 1
            except DAMAGE as error:
                yield unreadable(table, key, error)
        for string, ordinals in strings.items():
            yield Fact(table, (string,), f"{ordinals} ordinal{'s' * (ordinals > 1)}")

    return read


def bucket_blocks(table: str, *, profiles: bool) -> Canonical:
    """Count and sum of each item, signal (and cohort profile) by day, by hour where there are hours."""

    def read(rows: RowReader, schema: Schema) -> Iterator[Fact]:
        days: dict[_CellOfDay, _Hours] = defaultdict(dict)
        coarse: set[_CellOfDay] = set()
        for key, value in rows.scan(table):
            try:
                resolution, bucket, _ = split_block_key(key)
                _add_block(days, coarse, resolution, bucket, decode_block(value))
            except DAMAGE as error:
                yield unreadable(table, key, error)
        items, signals = _names(rows, ITEM_IDS), _signals(schema)
        of_profile = _names(rows, ITEM_PROFILES) if profiles else {}
        for cell, hours in days.items():
            item, signal, profile, day = cell
            about = [items.get(item, f"ordinal {item}"), signals.get(signal, f"code {signal}")]
            if profiles:
                about.append(of_profile.get(profile, f"profile ordinal {profile}"))
            count, total = (sum(part) for part in zip(*hours.values(), strict=True))
            detail = None if cell in coarse else tuple(sorted(hours.items()))
            yield Fact(table, (*about, f"day {day // _DAY_MINUTES}"), (count, total), detail=detail)

    return read


def global_cells(rows: RowReader, schema: Schema) -> Iterator[Fact]:
    """All-time count and sum, newest event and decay accumulators of each item and signal."""
    signals = _signals(schema)
    for key, value in rows.scan(cells.TABLE):
        try:
            item, _, suffix = split_row_key(key)
            cell = cells.decode_cells([value])
        except DAMAGE as error:
            yield unreadable(cells.TABLE, key, error)
            continue
        code = int.from_bytes(suffix, "big")
        about = (EntityRef(item), signals.get(code, f"code {code}"))
        exact = (int(cell.count[0]), int(cell.sum[0]), int(cell.ref_ms[0]))
        yield Fact(cells.TABLE, about, exact, cell.acc[0], WITHIN_DECAY)


def user_states(rows: RowReader, schema: Schema) -> Iterator[Fact]:
    """The items of each user and state."""
    names = _names(rows, USER_ITEMS)
    states = {state.code: state.name for state in schema.states.values()}
    found: dict[tuple[int, int], list[str]] = defaultdict(list)
    for key, value in rows.scan(user_state.TABLE):
        try:
            user, code, chunk = user_state.split_state_key(key)
            ordinals = user_state.decode_container(value)
        except DAMAGE as error:
            yield unreadable(user_state.TABLE, key, error)
            continue
        misplaced = any(ordinal >> user_state.CHUNK_BITS != chunk for ordinal in ordinals)
        if misplaced or not ordinals:
            yield unreadable(user_state.TABLE, key, ValueError("empty, or ordinals of another chunk"))
        found[user, code].extend(names.get(ordinal, f"ordinal {ordinal}") for ordinal in ordinals)
    for (user, code), items in found.items():
        yield Fact(user_state.TABLE, (EntityRef(user), states.get(code, f"code {code}")), sorted(items))


def preferences(rows: RowReader, schema: Schema) -> Iterator[Fact]:
    """Updates and both vectors of each user and slot."""
    for key, value in rows.scan(preference.TABLE):
        try:
            user, _, slot = split_row_key(key)
            row = preference.decode_preference(value)
        except DAMAGE as error:
            yield unreadable(preference.TABLE, key, error)
            continue
        vectors = np.concatenate([row.long, row.short]).astype(np.float64)
        about = (EntityRef(user), f"slot {slot.hex()}")
        yield Fact(preference.TABLE, about, row.updates, vectors, WITHIN_VECTOR)


def implicit_edges(rows: RowReader, schema: Schema) -> Iterator[Fact]:
    """Weight and time of each implicit edge."""
    types = {edge.code: edge.name for edge in schema.relationships.values()}
    for key, value in rows.scan(relationships.TABLE):
        try:
            user, code, target = relationships.split_relationship_key(key)
            edge = relationships.decode_relationship(value)
        except DAMAGE as error:
            yield unreadable(relationships.TABLE, key, error)
            continue
        about = (EntityRef(user), types.get(code, f"code {code}"), edge.target or EntityRef(target))
        weight = np.array([edge.weight])
        yield Fact(relationships.TABLE, about, edge.updated_ms, weight, WITHIN_DECAY)


def _add_block(
    days: dict[_CellOfDay, _Hours],
    coarse: set[_CellOfDay],
    resolution: Resolution,
    bucket: int,
    block: BlockColumns,
) -> None:
    hour = bucket - bucket % _HOUR_MINUTES
    day = bucket - bucket % _DAY_MINUTES
    profile = [0] * len(block) if block.profile is None else block.profile.tolist()
    columns = (block.item.tolist(), block.signal.tolist(), profile, block.count.tolist(), block.sum.tolist())
    for item, signal, of_profile, count, total in zip(*columns, strict=True):
        cell = (item, signal, of_profile, day)
        hours = days[cell]
        before = hours.get(hour, (0, 0))
        hours[hour] = (before[0] + count, before[1] + total)
        if resolution is Resolution.DAY:
            coarse.add(cell)


def _names(rows: RowReader, table: str) -> dict[int, str]:
    """The strings of a dictionary by ordinal; rows that cannot be read are left out."""
    names = {}
    for key, value in rows.scan(table):
        try:
            names[decode_ordinal_key(key)] = decode_ordinal(value)
        except DAMAGE:
            continue
    return names


def _signals(schema: Schema) -> dict[int, str]:
    return {signal.code: signal.name for signal in schema.signal_list}
