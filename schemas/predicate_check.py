"""Whether a predicate makes sense under a schema, and its values in the types of the fields they meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from schemas.durations import ALL_TIME
from schemas.epoch import epoch_ms
from schemas.errors import PredicateError
from schemas.nearest import nearest
from schemas.predicate_ast import (
    And,
    Comparison,
    Flag,
    Not,
    Or,
    Position,
    Predicate,
    Scalar,
    SignalComparison,
)
from schemas.predicate_match import as_text

if TYPE_CHECKING:
    from schemas.model import Schema, SignalDef

CheckScope: TypeAlias = Literal["cohort", "item", "user", "creator"]

BUILT_IN_FIELDS: Final = {"id": "keyword", "status": "keyword", "creator": "keyword"}
"""Filterable in every schema without being declared; ``creator`` on items only."""

_EQUALITY: Final = ("=", "!=", "IN", "EXISTS")
_ORDERING: Final = ("=", "!=", "<", "<=", ">", ">=", "IN", "BETWEEN", "EXISTS")
_OPERATORS: Final[dict[str, tuple[str, ...]]] = {
    "text": (*_EQUALITY, "CONTAINS"),
    "keyword": (*_EQUALITY, "CONTAINS"),
    "tags": (*_EQUALITY, "CONTAINS"),
    "bool": ("=", "!=", "EXISTS"),
    "int": _ORDERING,
    "float": _ORDERING,
    "time": _ORDERING,
    "label": _EQUALITY,
}
_LIKENESS_MIN: Final = 0.5  # labels are short
_COHORT_DEPTH_MAX: Final = 16  # cohorts that name cohorts; a cycle is longer than any bound


def check(predicate: Predicate, schema: Schema, scope: CheckScope = "cohort") -> Predicate:
    """The predicate, ready to be evaluated: values in their fields' types, names of cohorts replaced by what
    they stand for, ``unseen`` by ``NOT seen``.

    ``scope`` says what it speaks of: ``cohort`` = a user's dimensions, segments and cohorts; ``item`` =
    fields of items, user states and aggregates of signals; ``user``, ``creator`` = fields of those records.

    Raises:
        PredicateError: an unknown name or value (with the nearest valid one), an operator that the field's
            type does not have, a value of another type.
    """
    return _Checker(schema, scope).checked(predicate, 0)


class _Field(NamedTuple):
    type: str
    labels: tuple[str, ...] = ()


class _Checker:
    def __init__(self, schema: Schema, scope: CheckScope) -> None:
        self._schema = schema
        self._scope = scope
        self._fields = _cohort_fields(schema) if scope == "cohort" else _entity_fields(schema, scope)

    def checked(self, predicate: Predicate, cohort_depth: int) -> Predicate:
        match predicate:
            case And(children):
                return And(tuple(self.checked(child, cohort_depth) for child in children))
            case Or(children):
                return Or(tuple(self.checked(child, cohort_depth) for child in children))
            case Not(child):
                return Not(self.checked(child, cohort_depth))
            case Flag():
                return self._flag(predicate, cohort_depth)
            case Comparison():
                return self._comparison(predicate)
            case SignalComparison():
                return self._signal(predicate)

    def _flag(self, flag: Flag, cohort_depth: int) -> Predicate:
        if self._scope == "cohort":
            return self._segment_or_cohort(flag, cohort_depth)
        states = self._schema.states if self._scope == "item" else {}
        if flag.name in states:
            return flag
        positive = flag.name.removeprefix("un")
        if positive != flag.name and positive in states:
            return Not(replace(flag, name=positive))
        names = [*states, *(f"un{name}" for name in states)]
        raise _unknown(f"no state is called {flag.name!r}", flag.position, flag.name, names)

    def _segment_or_cohort(self, flag: Flag, cohort_depth: int) -> Predicate:
        if flag.name in self._schema.segments:
            return flag
        cohort = self._schema.cohorts.get(flag.name)
        if cohort is None:
            names = [*self._schema.segments, *self._schema.cohorts]
            raise _unknown(f"no segment or cohort is called {flag.name!r}", flag.position, flag.name, names)
        if cohort_depth == _COHORT_DEPTH_MAX:
            raise PredicateError(f"the cohort {flag.name!r} is defined by itself", *flag.position)
        return self.checked(cohort.predicate, cohort_depth + 1)

    def _comparison(self, comparison: Comparison) -> Comparison:
        name, position = comparison.field, comparison.position
        field = self._fields.get(name)
        if field is None:
            what = "dimension" if self._scope == "cohort" else f"field of {self._scope}s"
            raise _unknown(f"{name!r} is no declared {what}", position, name, self._fields)
        if comparison.op not in _OPERATORS[field.type]:
            kind = "has buckets" if field.type == "label" else f"is of type {field.type}"
            raise PredicateError(
                f"{name!r} {kind} and does not know {comparison.op}", *position, _OPERATORS[field.type]
            )
        if comparison.value is None:
            return comparison
        if isinstance(comparison.value, tuple):
            values = tuple(_typed(name, field, value, position) for value in comparison.value)
            return replace(comparison, value=values)
        return replace(comparison, value=_typed(name, field, comparison.value, position))

    def _signal(self, comparison: SignalComparison) -> SignalComparison:
        position = comparison.position
        if self._scope not in ("item", "creator"):
            message = f"{comparison.signal}.{comparison.read} is an aggregate of items, not of users"
            raise PredicateError(message, *position, ["a dimension, segment or cohort"])
        signal = self._schema.signals.get(comparison.signal)
        if signal is None:
            name = comparison.signal
            raise _unknown(f"no signal is called {name!r}", position, name, self._schema.signals)
        self._window(comparison, signal)
        return comparison

    def _window(self, comparison: SignalComparison, signal: SignalDef) -> None:
        read, window = comparison.read, comparison.window
        allowed = [*signal.decay.labels] if read == "decay" else [*signal.windows]
        if read in ("velocity", "acceleration") and ALL_TIME in allowed:
            allowed.remove(ALL_TIME)  # it has no duration to divide by
        if window not in allowed:
            what = "half-life" if read == "decay" else "window"
            message = f"{signal.name}.{read} has no {what} {window!r}"
            raise PredicateError(
                message, *comparison.position, allowed, nearest(window, allowed, _LIKENESS_MIN)
            )


def _cohort_fields(schema: Schema) -> dict[str, _Field]:
    declared = schema.entities["user"].fields
    fields = {}
    for name, dimension in schema.dimensions.items():
        if dimension.buckets:
            fields[name] = _Field("label", dimension.labels)
        else:
            field = declared.get(dimension.field)
            fields[name] = _Field(field.type if field else "keyword")
    return fields


def _entity_fields(schema: Schema, scope: CheckScope) -> dict[str, _Field]:
    fields = {name: _Field(kind) for name, kind in BUILT_IN_FIELDS.items() if name != "creator"}
    if scope == "item":
        fields["creator"] = _Field(BUILT_IN_FIELDS["creator"])
    fields.update({field.name: _Field(field.type) for field in schema.entities[scope].fields.values()})
    return fields


def _typed(name: str, field: _Field, value: Scalar, position: Position) -> Scalar:
    if field.type == "label":
        return _label(name, field, value, position)
    try:
        return _CONVERSIONS[field.type](value)
    except ValueError as error:
        raise PredicateError(
            f"{name!r} is of type {field.type}, {value!r} is not", *position, [_EXAMPLES[field.type]]
        ) from error


def _label(name: str, field: _Field, value: Scalar, position: Position) -> str:
    text = as_text(value)
    if text not in field.labels:
        near = nearest(text, field.labels, _LIKENESS_MIN)
        raise PredicateError(f"{name!r} has no bucket {text!r}", *position, field.labels, near)
    return text


def _as_int(value: Scalar) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    number = int(value)
    if abs(number) >= 2**63:
        raise ValueError(value)
    return number


def _as_float(value: Scalar) -> float:
    if isinstance(value, bool) or not math.isfinite(number := float(value)):
        raise ValueError(value)
    return number


def _as_bool(value: Scalar) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)  # noqa: TRY004 - a conversion: the caller turns every failure into one error
    return value


def _as_time(value: Scalar) -> int:
    """Milliseconds since the epoch; text is a date or time of ISO 8601, UTC unless it says otherwise."""
    if not isinstance(value, str):
        return _as_int(value)
    return epoch_ms(datetime.fromisoformat(value))


_CONVERSIONS: Final[dict[str, Callable[[Scalar], Scalar]]] = {
    "text": as_text,
    "keyword": as_text,
    "tags": as_text,
    "int": _as_int,
    "float": _as_float,
    "bool": _as_bool,
    "time": _as_time,
}
_EXAMPLES: Final = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "time": 'milliseconds, or a date like "2025-11-20T08:00:00Z"',
}


def _unknown(message: str, position: Position, name: str, names: Iterable[str]) -> PredicateError:
    known = sorted(names)
    return PredicateError(message, *position, known[:_LISTED_MAX], nearest(name, known, _LIKENESS_MIN))


_LISTED_MAX: Final = 20  # names that one message lists
