"""The syntax tree of a segment: measures of a user's own events, joined by AND, OR and NOT."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, TypeAlias

from schemas.predicate_ast import NOWHERE, Operator, Position, Predicate

Measured: TypeAlias = Literal["count", "sum"]


@dataclass(frozen=True, slots=True)
class Measure:
    """``count(like, category = jazz, 30d) >= 5``: how many events, or how much weight, against a number.

    ``where`` says on which items, None on any; ``window`` is a duration or ``all_time``, ``""`` if the text
    has none.
    """

    read: str
    signal: str
    where: Predicate | None
    window: str
    op: Operator
    value: float
    position: Position = dataclasses.field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every child holds."""

    children: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one child holds."""

    children: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class NoneOf:
    """The child does not hold."""

    child: Formula


Formula: TypeAlias = AllOf | AnyOf | NoneOf | Measure
