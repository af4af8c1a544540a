"""What a schema's segments must keep to: names that exist, windows, numbers that can be kept exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from schemas.durations import ALL_TIME, parse_duration
from schemas.errors import PredicateError, Problem
from schemas.ids import find_code_collisions
from schemas.nearest import nearest
from schemas.predicate_ast import Comparison, Predicate, leaves
from schemas.predicate_check import check
from schemas.segment_ast import AllOf, AnyOf, Formula, Measure, NoneOf
from schemas.segment_parser import FORM, parse_segment
from schemas.segment_plan import segment_plan
from schemas.weights import WEIGHT_MAX

if TYPE_CHECKING:
    from schemas.model import Schema

SEGMENTS_MAX: Final = 64
"""Membership of one user is one word of 64 bits."""
CONDITIONS_MAX: Final = 64
"""Item conditions that differ: which of them an item satisfies is one word as well."""
TERMS_MAX: Final = 32
"""Different things counted; a user's row has a part for each."""
THRESHOLD_MAX: Final = 256
"""Of a count over a window: a user's row keeps that many timestamps of 8 bytes."""
READS: Final = ("count", "sum")


def segment_problems(schema: Schema) -> list[Problem]:
    """Every problem of the segments of a schema."""
    found = list(_each(schema))
    if found or not schema.segments:
        return found
    plan = segment_plan(schema)
    if len(plan.names) > SEGMENTS_MAX:
        found.append(Problem("segments", len(plan.names), f"at most {SEGMENTS_MAX} segments"))
    if len(plan.terms) > TERMS_MAX:
        expected = f"at most {TERMS_MAX} different pairs of a signal and an item condition"
        found.append(Problem("segments", len(plan.terms), expected))
    if len(plan.conditions) > CONDITIONS_MAX:
        expected = f"at most {CONDITIONS_MAX} different item conditions"
        found.append(Problem("segments", len(plan.conditions), expected))
    for first, later in find_code_collisions([term.text for term in plan.terms]):
        expected = f"another spelling: its 32-bit code is that of {first!r} as well"
        found.append(Problem("segments", later, expected))
    for name in plan.idle_members:
        expected = "a condition that takes an event to satisfy: somebody who did nothing is in none"
        found.append(Problem(f"segments.{name}", schema.segments[name].text, expected))
    return found


def _each(schema: Schema) -> Iterator[Problem]:
    for name, segment in schema.segments.items():
        path = f"segments.{name}"
        if name in schema.dimensions:
            yield Problem(path, name, "a name that is not also a dimension of users")
        try:
            formula = parse_segment(segment.text, schema.limits.max_predicate_depth)
        except PredicateError as error:
            yield Problem(path, segment.text, f"a segment like {FORM}: {error.summary}", error.nearest)
            continue
        for measure in _measures(formula):
            yield from _measure_problems(schema, path, measure)


def _measures(formula: Formula) -> Iterator[Measure]:
    match formula:
        case AllOf(children) | AnyOf(children):
            for child in children:
                yield from _measures(child)
        case NoneOf(child):
            yield from _measures(child)
        case Measure():
            yield formula


def _measure_problems(schema: Schema, path: str, measure: Measure) -> Iterator[Problem]:
    if measure.read not in READS:
        yield Problem(path, measure.read, " or ".join(READS), nearest(measure.read, READS))
    if measure.signal not in schema.signals:
        yield Problem(path, measure.signal, "a declared signal", nearest(measure.signal, schema.signals))
    if measure.where is not None:
        yield from _condition_problems(schema, path, measure.where)
    yield from _window_problems(path, measure)
    yield from _sum_problems(path, measure) if measure.read == "sum" else _count_problems(path, measure)


def _condition_problems(schema: Schema, path: str, where: Predicate) -> Iterator[Problem]:
    try:
        check(where, schema, "item")
    except PredicateError as error:
        yield Problem(path, "item condition", f"one that holds: {error.summary}", error.nearest)
        return
    if not all(isinstance(leaf, Comparison) for leaf in leaves(where)):
        yield Problem(path, "item condition", "comparisons of fields of items alone: no user states")


def _window_problems(path: str, measure: Measure) -> Iterator[Problem]:
    if not measure.window:
        text = f"{measure.read}({measure.signal})"
        yield Problem(path, text, "a window at the end, like 30d, or all_time")
    elif measure.window != ALL_TIME:
        try:
            parse_duration(measure.window)
        except ValueError:
            yield Problem(path, measure.window, "a window like 30m, 24h or 7d, or all_time")


def _count_problems(path: str, measure: Measure) -> Iterator[Problem]:
    least = 1 if measure.op in (">=", "<") else 0
    most = THRESHOLD_MAX if measure.op in (">=", "<") else THRESHOLD_MAX - 1
    if not measure.value.is_integer() or not least <= measure.value <= 2**53:
        yield Problem(path, measure.value, f"a whole number of events, at least {least} with {measure.op}")
    elif measure.window != ALL_TIME and measure.value > most:
        expected = f"at most {most} events in a window with {measure.op}: each is kept with its time"
        yield Problem(path, int(measure.value), expected)


def _sum_problems(path: str, measure: Measure) -> Iterator[Problem]:
    if measure.window and measure.window != ALL_TIME:
        expected = "all_time: a sum over a sliding window cannot be kept exactly in bounded memory; use count"
        yield Problem(path, measure.window, expected)
    if abs(measure.value) > WEIGHT_MAX * 1e6:
        yield Problem(path, measure.value, f"a sum of weights up to {WEIGHT_MAX * 1e6:.0e}")
