"""From a predicate back to text that parses to an equal one."""

from __future__ import annotations

import json
import re
from typing import Final

from schemas.predicate_ast import And, Comparison, Flag, Not, Or, Predicate, Scalar, SignalComparison
from schemas.predicate_parser import literal

_PLAIN_WORD: Final = re.compile(r"[\w+][\w+./-]*")
_KEYWORDS: Final = frozenset({"AND", "OR", "NOT", "IN", "BETWEEN", "CONTAINS", "EXISTS"})


def to_text(predicate: Predicate) -> str:
    """The text of ``predicate``, in one canonical spelling: ``locale = US AND age = 18-24``."""
    match predicate:
        case And(children):
            return " AND ".join(_operand(child, inside_and=True) for child in children)
        case Or(children):
            return " OR ".join(_operand(child, inside_and=False) for child in children)
        case Not(child):
            return f"NOT {_operand(child, inside_and=True, inside_not=True)}"
        case Flag(name):
            return name
        case SignalComparison():
            return (
                f"{predicate.signal}.{predicate.read}({predicate.window}) {predicate.op} {predicate.value!r}"
            )
        case Comparison():
            return _comparison(predicate)


def scalar_text(value: Scalar) -> str:
    """A value as it is written in a predicate, quoted where a bare word would read as something else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    bare = _PLAIN_WORD.fullmatch(value) and literal(value) == value and value.upper() not in _KEYWORDS
    return value if bare else json.dumps(value, ensure_ascii=False)


def _operand(child: Predicate, inside_and: bool, inside_not: bool = False) -> str:
    text = to_text(child)
    grouped = (isinstance(child, Or) and inside_and) or (isinstance(child, And) and inside_not)
    return f"({text})" if grouped else text


def _comparison(predicate: Comparison) -> str:
    value = predicate.value
    if predicate.op == "EXISTS" or value is None:
        return f"{predicate.field} EXISTS"
    if not isinstance(value, tuple):
        return f"{predicate.field} {predicate.op} {scalar_text(value)}"
    words = [scalar_text(entry) for entry in value]
    if predicate.op == "BETWEEN":
        return f"{predicate.field} BETWEEN {words[0]} AND {words[1]}"
    return f"{predicate.field} IN ({', '.join(words)})"
