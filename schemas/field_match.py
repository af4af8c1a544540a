"""Whether one record's fields satisfy an item condition: what queries decide by columns, for one record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.predicate_ast import COMPARE, Comparison, Leaf, Predicate, is_true


def matches_fields(predicate: Predicate, fields: Mapping[str, Any]) -> bool:
    """Whether ``{field: value}`` satisfies a predicate that ``check`` passed for the scope ``item``.

    A field without a value satisfies no comparison, ``!=`` included. A list (tags) satisfies ``=``, ``IN``
    and ``CONTAINS`` if one of its words does, ``!=`` if none is the word. User states and aggregates of
    signals are no fields: they never hold.
    """

    def judge(leaf: Leaf) -> bool:
        if not isinstance(leaf, Comparison):
            return False
        actual = fields.get(leaf.field)
        if actual is None or actual == "" or actual == [] or actual == ():
            return False
        if isinstance(actual, list | tuple):
            return _any_word(leaf, [str(word) for word in actual])
        return _holds(leaf, actual)

    return is_true(predicate, judge)


def _any_word(comparison: Comparison, words: list[str]) -> bool:
    if comparison.op == "!=":
        return comparison.value not in words
    if comparison.op == "CONTAINS":
        return comparison.value in words
    return any(_holds(comparison, word) for word in words)


def _holds(comparison: Comparison, actual: Any) -> bool:
    op, value = comparison.op, comparison.value
    if op == "EXISTS" or value is None:
        return True
    if isinstance(value, tuple):
        return bool(value[0] <= actual <= value[1]) if op == "BETWEEN" else actual in value
    if op == "CONTAINS":
        return str(value) in str(actual)
    return bool(COMPARE[op](actual, value))
