"""What has to be kept of a user to know their segments, and how membership follows from it.

A *term* is what is counted: a signal, on items of a condition or on any. Of a term a user's row keeps the
newest timestamps, as many as the largest threshold over a window, and the count and sum of all time. An
*atom* is one yes or no about a term: ``at least N events in the last W ms`` is ``N-th newest > t - W``. A
segment joins atoms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.durations import ALL_TIME, parse_duration
from schemas.ids import code_of
from schemas.predicate_ast import Predicate
from schemas.predicate_check import check
from schemas.predicate_text import to_text
from schemas.segment_ast import AllOf, AnyOf, Formula, Measure, NoneOf
from schemas.segment_parser import parse_segment
from schemas.weights import WEIGHT_SCALE

if TYPE_CHECKING:
    from schemas.model import Schema

Flags: TypeAlias = npt.NDArray[np.bool_]

FOREVER: Final = 0
"""The window of an atom that asks for all time."""


class Term(NamedTuple):
    """``code`` names it in rows, whatever else the schema declares; ``signal`` is the dense index,
    ``condition`` that in ``SegmentPlan.conditions`` (None: any item), ``kept`` how many timestamps are kept.
    """

    code: int
    text: str
    signal: int
    condition: int | None
    kept: int


class AtLeast(NamedTuple):
    """At least ``events`` events of a term in the last ``window_ms``, or ever (``FOREVER``)."""

    term: int
    events: int
    window_ms: int


class SumAtLeast(NamedTuple):
    """All weights of a term come to ``micro`` micro-units or more."""

    term: int
    micro: int


Atom: TypeAlias = AtLeast | SumAtLeast


@dataclass(frozen=True, slots=True)
class _Rule:
    """A formula over the numbers of atoms."""

    kind: Literal["atom", "and", "or", "not"]
    atom: int = 0
    parts: tuple[_Rule, ...] = ()

    def of(self, truths: Sequence[Flags]) -> Flags:
        if self.kind == "atom":
            return truths[self.atom]
        values = [part.of(truths) for part in self.parts]
        if self.kind == "not":
            return np.logical_not(values[0])
        return reduce(np.logical_and if self.kind == "and" else np.logical_or, values)


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """Every segment of a schema. ``conditions`` by text: what items are told apart by, in order."""

    names: tuple[str, ...] = ()
    conditions: Mapping[str, Predicate] = field(default_factory=dict)
    terms: tuple[Term, ...] = ()
    atoms: tuple[Atom, ...] = ()
    rules: tuple[_Rule, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any segment."""
        return bool(self.names)

    def membership(self, truths: Sequence[Flags]) -> list[Flags]:
        """Of each segment whom it holds, bool[n], from the truth of each atom, bool[n]."""
        return [rule.of(truths) for rule in self.rules]

    @property
    def idle_members(self) -> tuple[str, ...]:
        """Segments that hold somebody who never did anything; a valid schema has none."""
        nothing = [np.array([isinstance(atom, SumAtLeast) and atom.micro <= 0]) for atom in self.atoms]
        found = zip(self.names, self.membership(nothing), strict=True)
        return tuple(name for name, holds in found if holds[0])


def segment_plan(schema: Schema) -> SegmentPlan:
    """The plan of a schema's segments, all of which ``segment_rules`` passed.

    Raises:
        PredicateError: a segment that cannot be parsed, or names what there is not.
    """
    return _Planner(schema).plan()


class _Planner:
    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._conditions: dict[str, Predicate] = {}
        self._terms: dict[str, Term] = {}
        self._atoms: dict[Atom, int] = {}

    def plan(self) -> SegmentPlan:
        segments = self._schema.segments
        rules = tuple(self._rule(parse_segment(segment.text)) for segment in segments.values())
        return SegmentPlan(
            tuple(segments), self._conditions, tuple(self._terms.values()), tuple(self._atoms), rules
        )

    def _rule(self, formula: Formula) -> _Rule:
        match formula:
            case AllOf(children):
                return _Rule("and", parts=tuple(map(self._rule, children)))
            case AnyOf(children):
                return _Rule("or", parts=tuple(map(self._rule, children)))
            case NoneOf(child):
                return _not(self._rule(child))
            case Measure():
                return self._measure(formula)

    def _measure(self, measure: Measure) -> _Rule:
        """Every comparison by way of *at least*: ``< n`` is not at least n, ``= n`` is n and not n + 1."""
        n = round(measure.value * WEIGHT_SCALE) if measure.read == "sum" else int(measure.value)
        match measure.op:
            case ">=":
                return self._at_least(measure, n)
            case ">":
                return self._at_least(measure, n + 1)
            case "<":
                return _not(self._at_least(measure, n))
            case "<=":
                return _not(self._at_least(measure, n + 1))
            case "=":
                return self._exactly(measure, n)
            case _:
                return _not(self._exactly(measure, n))

    def _exactly(self, measure: Measure, n: int) -> _Rule:
        below = _not(self._at_least(measure, n + 1))
        if measure.read == "count" and n == 0:
            return below
        return _Rule("and", parts=(self._at_least(measure, n), below))

    def _at_least(self, measure: Measure, n: int) -> _Rule:
        window_ms = FOREVER if measure.window == ALL_TIME else parse_duration(measure.window)
        term = self._term(measure, 0 if window_ms == FOREVER else n)
        atom: Atom = SumAtLeast(term, n) if measure.read == "sum" else AtLeast(term, n, window_ms)
        return _Rule("atom", atom=self._atoms.setdefault(atom, len(self._atoms)))

    def _term(self, measure: Measure, kept: int) -> int:
        text, condition = measure.signal, None
        if measure.where is not None:
            where = check(measure.where, self._schema, "item")
            self._conditions.setdefault(to_text(where), where)
            condition = list(self._conditions).index(to_text(where))
            text = f"{text}, {to_text(where)}"
        known = self._terms.get(text)
        if known is None:
            signal = self._schema.signal_index[measure.signal]
            known = Term(code_of(text), text, signal, condition, 0)
        self._terms[text] = known._replace(kept=max(known.kept, kept))
        return list(self._terms).index(text)


def _not(rule: _Rule) -> _Rule:
    return _Rule("not", parts=(rule,))
