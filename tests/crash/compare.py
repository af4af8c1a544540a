"""Names every difference between tables and a clean fold of the log."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from schemas.ids import code_of, entity_id
from schemas.model import Schema
from tests.crash.tables import HOUR_MS, Tables
from tests.oracle import CleanFold

DECAY_TOLERANCE = 1e-9
WEIGHT_TOLERANCE = 1e-9
SHOWN_MAX = 5


def differences(tables: Tables, clean: CleanFold, schema: Schema) -> list[str]:
    """One line for each view that differs, with its first rows; empty = equal."""
    checks: dict[str, Iterator[str]] = {
        "global counts by hour": _unequal(tables.hours, clean.buckets(HOUR_MS)),
        "cohort counts by hour": _unequal(tables.cohort_hours, clean.cohort_buckets(HOUR_MS)),
        "global cells": _cells(tables, clean),
        "decay scores": _decay(tables, clean, schema),
        "user states": _unequal(tables.states, _states(clean, schema)),
        "preferences": _preferences(tables, clean),
        "relationships": _edges(tables, clean, schema),
        "segments": _unequal(tables.segments, _segments(clean)),
        "explicit edges": _unequal(tables.explicit, _explicit(clean)),
        "entities": _unequal(
            tables.entities,
            {
                (kind, name): record.raw
                for kind, records in clean.entities.items()
                for name, record in records.items()
            },
        ),
        "refused": _unequal(dict(tables.rejects), clean.rejects_by_code()),
        "waiting events": iter(
            [f"{tables.waiting} events still wait for an item's record"] * bool(tables.waiting)
        ),
    }
    found = {view: list(lines) for view, lines in checks.items()}
    return [f"{view}: {len(lines)} differ: {lines[:SHOWN_MAX]}" for view, lines in found.items() if lines]


def _unequal(stored: Mapping[object, object], expected: Mapping[object, object]) -> Iterator[str]:
    for key in stored.keys() | expected.keys():
        if stored.get(key) != expected.get(key):
            yield f"{key}: table {stored.get(key)!s:.120}, log {expected.get(key)!s:.120}"


def _cells(tables: Tables, clean: CleanFold) -> Iterator[str]:
    stored = {key: (count, total) for key, (count, total, _, _) in tables.cells.items()}
    expected = {cell: (clean.count(*cell), clean.sum(*cell)) for cell in clean.cells()}
    return _unequal(stored, expected)  # type: ignore[arg-type]


def _decay(tables: Tables, clean: CleanFold, schema: Schema) -> Iterator[str]:
    for (item, name), (_, _, ref_ms, accumulators) in tables.cells.items():
        for index, half_life_ms in enumerate(schema.signals[name].decay.half_lives_ms):
            expected = clean.decay(item, name, half_life_ms, ref_ms)
            if not math.isclose(accumulators[index], expected, rel_tol=DECAY_TOLERANCE, abs_tol=1e-12):
                yield f"{item} {name} {half_life_ms} ms: table {accumulators[index]!r}, log {expected!r}"


def _states(clean: CleanFold, schema: Schema) -> dict[tuple[int, int], set[str]]:
    found = {
        (entity_id(user), state.code): clean.state(user, state.name)
        for user in clean.users()
        for state in schema.states.values()
    }
    return {key: items for key, items in found.items() if items}


def _preferences(tables: Tables, clean: CleanFold) -> Iterator[str]:
    for user in clean.users():
        expected = clean.preference(user, "content")
        stored = tables.preferences.get(entity_id(user))
        if (expected is None) != (stored is None):
            yield f"{user}: table {stored is not None}, log {expected is not None}"
        elif expected is not None and stored is not None:
            worst = max(
                abs(left - right)
                for mine, theirs in ((stored[1], expected.long), (stored[2], expected.short))
                for left, right in zip(mine, theirs, strict=True)
            )
            if stored[0] != expected.updates or worst > expected.error:
                yield f"{user}: updates {stored[0]} and {expected.updates}, farthest apart {worst:.3g}"


def _edges(tables: Tables, clean: CleanFold, schema: Schema) -> Iterator[str]:
    implicit = [edge for edge in schema.relationships.values() if not edge.explicit]
    expected = {
        (entity_id(user), edge.code, entity_id(target)): weight
        for user in clean.users()
        for edge in implicit
        for target, weight in clean.relationships(user, edge.name).items()
    }
    for key in tables.edges.keys() | expected.keys():
        stored, wanted = tables.edges.get(key), expected.get(key)
        same = (
            wanted is not None
            and stored is not None
            and wanted.updated_ms == stored[1]
            and math.isclose(wanted.weight, stored[0], rel_tol=WEIGHT_TOLERANCE, abs_tol=1e-12)
        )
        if not same:
            yield f"{key}: table {stored}, log {wanted}"


def _segments(clean: CleanFold) -> dict[tuple[int, int], set[str]]:
    """By partition and user, at the newest time counted of each."""
    found = {(who[0], entity_id(who[1])): set(names) for who, names in clean.segments.at_newest().items()}
    return {who: names for who, names in found.items() if names}


def _explicit(clean: CleanFold) -> dict[tuple[int, str, str], float]:
    return {
        (code_of(type_name), source, target): edge.weight  # type: ignore[attr-defined]
        for (type_name, source, target), edge in clean.edges.items()
    }
