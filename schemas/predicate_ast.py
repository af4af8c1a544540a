"""The syntax tree of a predicate: immutable, hashable, equal when it means the same text.

Positions are carried for error messages and left out of comparison.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias


class Position(NamedTuple):
    """A place in the text, from 1; (0, 0) = the predicate did not come from text."""

    line: int
    column: int


NOWHERE = Position(0, 0)

Scalar: TypeAlias = str | int | float | bool
Operand: TypeAlias = Scalar | tuple[Scalar, ...] | None
Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "IN", "BETWEEN", "CONTAINS", "EXISTS"]
Read: TypeAlias = Literal["count", "sum", "mean", "velocity", "acceleration", "decay"]

COMPARE: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
"""What the operators between two values do, of scalars (bool) as of arrays (bool[n])."""


@dataclass(frozen=True, slots=True)
class And:
    """All children hold; ``a, b`` and ``a AND b`` are this."""

    children: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one child holds."""

    children: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The child does not hold."""

    child: Predicate


@dataclass(frozen=True, slots=True)
class Comparison:
    """A declared field (or a user's dimension) against a value.

    ``value`` is a scalar; a tuple for IN; ``(low, high)``, both included, for BETWEEN; None for EXISTS.
    A word that is a number or ``true``/``false`` in its canonical spelling is that scalar, else a string.
    """

    field: str
    op: Operator
    value: Operand = None
    position: Position = dataclasses.field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Flag:
    """A bare name: a user state (``seen``, ``unseen``), a segment, or a declared cohort."""

    name: str
    position: Position = dataclasses.field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SignalComparison:
    """An aggregate of an item against a number: ``view.count(24h) >= 10``, ``like.decay(7d) > 2``.

    ``window`` is the window, or for ``decay`` the half-life.
    """

    signal: str
    read: Read
    window: str
    op: Operator
    value: float
    position: Position = dataclasses.field(default=NOWHERE, compare=False, repr=False)


Leaf: TypeAlias = Comparison | Flag | SignalComparison
Predicate: TypeAlias = And | Or | Not | Leaf


def joined(kind: type[And] | type[Or], parts: Sequence[Predicate]) -> Predicate:
    """One or more ``parts`` as one, in normal form: ``(a, b), c`` is ``a, b, c``; of one part itself."""
    children: list[Predicate] = []
    for part in parts:
        children += part.children if isinstance(part, kind) else [part]
    return kind(tuple(children)) if len(children) > 1 else children[0]


def leaves(predicate: Predicate) -> Iterator[Leaf]:
    """What ``predicate`` joins and negates, in the order of the text; one that stands twice comes twice."""
    match predicate:
        case And(children) | Or(children):
            for child in children:
                yield from leaves(child)
        case Not(child):
            yield from leaves(child)
        case _:
            yield predicate


def is_true(predicate: Predicate, judge: Callable[[Leaf], bool]) -> bool:
    """Whether ``predicate`` holds; ``judge`` says whether a leaf does, and is asked no more than needed."""
    match predicate:
        case And(children):
            return all(is_true(child, judge) for child in children)
        case Or(children):
            return any(is_true(child, judge) for child in children)
        case Not(child):
            return not is_true(child, judge)
        case _:
            return judge(predicate)


def subject(leaf: Comparison | Flag) -> str:
    """The field, dimension, state or segment that it is about."""
    return leaf.name if isinstance(leaf, Flag) else leaf.field
