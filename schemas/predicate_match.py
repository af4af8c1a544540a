"""Whether a cohort profile satisfies a predicate."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.predicate_ast import COMPARE, Comparison, Flag, Leaf, Predicate, Scalar, is_true


def matches_profile(predicate: Predicate, profile: Mapping[str, str]) -> bool:
    """Whether a user with this cohort profile, ``{dimension: value}``, satisfies ``predicate``.

    A value that the user lacks matches no comparison, ``!=`` included; so ``NOT age:18-24`` holds for a user
    without an age and ``age != 18-24`` does not. A flag (segment) holds where the profile says ``"true"``
    under its name. Pass the predicate through ``check`` first: it puts declared cohorts in the place of
    their names.
    """

    def judge(leaf: Leaf) -> bool:
        match leaf:
            case Flag(name):
                return profile.get(name) == "true"
            case Comparison():
                actual = profile.get(leaf.field)
                return actual is not None and _holds(leaf, actual)
            case _:
                return False  # an aggregate of an item says nothing of a user; check refuses it

    return is_true(predicate, judge)


def _holds(comparison: Comparison, actual: str) -> bool:
    value = comparison.value
    if comparison.op == "EXISTS" or value is None:
        return True
    if isinstance(value, tuple):
        if comparison.op == "BETWEEN":
            return _ordered(">=", actual, value[0]) and _ordered("<=", actual, value[1])
        return actual in [as_text(entry) for entry in value]
    match comparison.op:
        case "=":
            return actual == as_text(value)
        case "!=":
            return actual != as_text(value)
        case "CONTAINS":
            return as_text(value) in actual
        case op:
            return _ordered(op, actual, value)


def _ordered(op: str, actual: str, wanted: Scalar) -> bool:
    left, right = as_number(actual), as_number(wanted)
    if left is None or right is None:
        return False
    return bool(COMPARE[op](left, right))


def as_number(value: Scalar) -> float | None:
    """The number that a value is or spells, None if it is none."""
    try:
        return float(value)
    except ValueError:
        return None


def as_text(value: Scalar) -> str:
    """A scalar in the spelling that ``Dimension.value_of`` gives it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)
