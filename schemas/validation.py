"""The rules between the parts of a schema: references resolve, names do not clash, numbers make sense.

Shapes and types were checked while the document was read (``interpret``); these rules also hold for a schema
that was made in Python.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from typing import Final

from schemas.durations import DAY_MS, WINDOWS, format_duration
from schemas.errors import PredicateError, Problem
from schemas.ids import find_code_collisions
from schemas.model import Bucket, Dimension, EntityDef, Limits, Schema, SignalDef
from schemas.nearest import nearest
from schemas.predicate_check import BUILT_IN_FIELDS, check
from schemas.predicate_text import to_text
from schemas.profile_rules import profile_problems
from schemas.segment_rules import segment_problems

SIGNALS_MAX: Final = 4_096
"""Columns hold the index of a signal in 16 bits, and each signal costs arrays in queryd."""

LINEAR_LIFETIME_MS_MAX: Final = 30 * DAY_MS
"""The longest window: readers keep so much apart by the hour."""
HOURS_KEPT_MS_MIN: Final = 32 * DAY_MS
"""30 whole days and a day of slack at both ends, what readers keep in memory by the hour."""

_RESERVED_FIELDS: Final = (*BUILT_IN_FIELDS, "embeddings")
_RESERVED_WORDS: Final = ("and", "or", "not", "in", "between", "contains", "exists")
_DIMENSION_TYPES: Final = ("keyword", "int", "bool")
_BUCKET_TYPES: Final = ("int", "float")


def validate(schema: Schema) -> list[Problem]:
    """Every problem of ``schema``; an empty list means that it can be used."""
    return [
        *_name_problems(schema),
        *_code_problems(schema),
        *(problem for entity in schema.entities.values() for problem in _entity_problems(entity)),
        *(problem for signal in schema.signals.values() for problem in _signal_problems(schema, signal)),
        *_relationship_problems(schema),
        *_co_engagement_problems(schema),
        *_role_problems(schema),
        *_limit_problems(schema.limits),
        *segment_problems(schema),
        *_cohort_problems(schema),
        *(problem for profile in schema.profile_versions for problem in profile_problems(schema, profile)),
    ]


def _name_problems(schema: Schema) -> Iterator[Problem]:
    if len(schema.signals) > SIGNALS_MAX:
        yield Problem("signals", len(schema.signals), f"at most {SIGNALS_MAX} signals")
    sections: dict[str, Iterable[str]] = {
        "signals": schema.signals,
        "states": schema.states,
        "segments": schema.segments,
        "cohorts": schema.cohorts,
    }
    for section, names in sections.items():
        yield from _reserved(section, names)
    yield from _flag_clashes(schema)


def _reserved(path: str, names: Iterable[str]) -> Iterator[Problem]:
    for name in names:
        if name in _RESERVED_WORDS:
            yield Problem(f"{path}.{name}", name, "a name that is no word of the predicate language")


def _flag_clashes(schema: Schema) -> Iterator[Problem]:
    """A bare name in a predicate means one thing; ``unseen`` is the negation of ``seen``."""
    owners = dict.fromkeys(schema.states, "states")
    for section, names in (("segments", schema.segments), ("cohorts", schema.cohorts)):
        for name in names:
            if name in owners:
                yield Problem(f"{section}.{name}", name, f"a name that is not also in {owners[name]}")
            owners[name] = section
    for name in schema.states:
        if name.startswith("un") and name[2:] in schema.states:
            yield Problem(f"states.{name}", name, f"a name that does not read as the negation of {name[2:]}")


def _code_problems(schema: Schema) -> Iterator[Problem]:
    sections = (
        ("signals", schema.signals),
        ("states", schema.states),
        ("relationships", schema.relationships),
    )
    for section, names in sections:
        for first, later in find_code_collisions(names):
            yield Problem(
                f"{section}.{later}", later, f"another name: its 32-bit code is that of {first!r} as well"
            )


def _entity_problems(entity: EntityDef) -> Iterator[Problem]:
    path = f"entities.{entity.kind}"
    for name in entity.fields:
        if name in _RESERVED_FIELDS:
            yield Problem(f"{path}.fields.{name}", name, "a name that no record has by itself")
    yield from _reserved(f"{path}.fields", entity.fields)
    yield from _reserved(f"{path}.dimensions", entity.dimensions)
    for dimension in entity.dimensions.values():
        yield from _dimension_problems(entity, dimension, f"{path}.dimensions.{dimension.name}")


def _dimension_problems(entity: EntityDef, dimension: Dimension, path: str) -> Iterator[Problem]:
    field = entity.fields.get(dimension.field)
    if field is None:
        yield _unresolved(f"{path}.field", dimension.field, "a declared field", entity.fields)
        return
    wanted = _BUCKET_TYPES if dimension.buckets else _DIMENSION_TYPES
    if field.type not in wanted:
        form = "with buckets" if dimension.buckets else "without buckets"
        yield Problem(f"{path}.field", dimension.field, f"a field of type {' or '.join(wanted)} ({form})")
    yield from _bucket_problems(dimension.buckets, f"{path}.buckets")


def _bucket_problems(buckets: tuple[Bucket, ...], path: str) -> Iterator[Problem]:
    for bucket in buckets:
        if bucket.high is not None and bucket.high < bucket.low:
            yield Problem(f"{path}.{bucket.label}", [bucket.low, bucket.high], "low <= high")
        if not bucket.label:
            yield Problem(path, bucket.label, "a label for each bucket")
    ordered = sorted(buckets, key=lambda bucket: bucket.low)
    for lower, upper in pairwise(ordered):
        # A shared end is how ranges of floats meet; the first declared one holds it.
        if lower.high is None or upper.low < lower.high:
            value = [upper.low, upper.high]
            yield Problem(f"{path}.{upper.label}", value, f"a range that does not overlap {lower.label!r}")


def _signal_problems(schema: Schema, signal: SignalDef) -> Iterator[Problem]:
    path = f"signals.{signal.name}"
    for key, states in (("state", signal.state), ("clears", signal.clears)):
        for state in states:
            if state not in schema.states:
                yield _unresolved(f"{path}.{key}", state, "a declared state", schema.states)
    for state in set(signal.state) & set(signal.clears):
        yield Problem(f"{path}.clears", state, "a state that the signal does not set as well")
    for name in signal.relationship:
        edge = schema.relationships.get(name)
        if edge is None:
            at = f"{path}.relationship.{name}"
            yield _unresolved(at, name, "a declared relationship", schema.relationships)
        elif edge.explicit:
            yield Problem(
                f"{path}.relationship.{name}", name, "an implicit relationship: users write this one"
            )
    if signal.value_range is not None and signal.value_range[0] > signal.value_range[1]:
        yield Problem(f"{path}.value_range", list(signal.value_range), "low <= high")
    for window in signal.windows:
        if window not in WINDOWS:
            yield _unresolved(f"{path}.windows", window, "a known window", WINDOWS)
    if signal.decay.lifetime_ms > LINEAR_LIFETIME_MS_MAX:
        value, longest = (format_duration(ms) for ms in (signal.decay.lifetime_ms, LINEAR_LIFETIME_MS_MAX))
        yield Problem(f"{path}.decay.linear", value, f"at most {longest}: older events are not kept apart")


def _limit_problems(limits: Limits) -> Iterator[Problem]:
    if limits.hour_buckets_kept_ms < HOURS_KEPT_MS_MIN:
        expected = f"at least {HOURS_KEPT_MS_MIN} (32 days): the 30d window reads hours"
        yield Problem("limits.hour_buckets_kept_ms", limits.hour_buckets_kept_ms, expected)


def _relationship_problems(schema: Schema) -> Iterator[Problem]:
    for edge in schema.relationships.values():
        path = f"relationships.{edge.name}"
        if edge.explicit and edge.target != "creator":
            yield Problem(f"{path}.target", edge.target, "nothing: an explicit edge joins any two entities")
        if edge.hides and not edge.explicit:
            yield Problem(f"{path}.hides", edge.hides, "false: only what users write may hide")


def _co_engagement_problems(schema: Schema) -> Iterator[Problem]:
    for state in schema.co_engagement:
        if state not in schema.states:
            yield _unresolved("co_engagement", state, "a declared state", schema.states)


def _role_problems(schema: Schema) -> Iterator[Problem]:
    for role, signals in schema.roles.items():
        for name in signals:
            if name not in schema.signals:
                yield _unresolved(f"roles.{role}", name, "a declared signal", schema.signals)


def _cohort_problems(schema: Schema) -> Iterator[Problem]:
    for cohort in schema.cohorts.values():
        try:
            check(cohort.predicate, schema, "cohort")
        except PredicateError as error:
            text = to_text(cohort.predicate)
            expected = f"a predicate that holds: {error.summary}"
            yield Problem(f"cohorts.{cohort.name}", text, expected, error.nearest)


def _unresolved(path: str, name: str, expected: str, names: Collection[str]) -> Problem:
    return Problem(path, name, expected, nearest(name, names))
