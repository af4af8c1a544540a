"""Predicates survive the way to text and back; no text crashes the parser; matching is plain logic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.default import default_schema
from schemas.errors import PredicateError
from schemas.predicate import (
    And,
    Comparison,
    Flag,
    Not,
    Or,
    Predicate,
    SignalComparison,
    check,
    matches_profile,
    parse_predicate,
    to_text,
)

SCHEMA = default_schema()
NAME = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("and", "or", "not", "in", "between", "contains", "exists")
)
SCALAR = (
    st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.integers(-(10**9), 10**9).map(lambda value: value / 1024)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(["18-24", "55+", "US", "sci-fi", "IN", "and", "007", "1e5", "true"])
    | st.sampled_from(["--x", 'a"b', "a'b", "\n"])
)
COMPARISON = st.one_of(
    st.builds(Comparison, NAME, st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "CONTAINS"]), SCALAR),
    st.builds(Comparison, NAME, st.just("IN"), st.lists(SCALAR, min_size=1, max_size=3).map(tuple)),
    st.builds(Comparison, NAME, st.just("BETWEEN"), st.tuples(SCALAR, SCALAR)),
    st.builds(Comparison, NAME, st.just("EXISTS")),
)
SIGNAL = st.builds(
    SignalComparison,
    NAME,
    st.sampled_from(["count", "sum", "mean", "velocity", "acceleration", "decay"]),
    st.sampled_from(["1h", "24h", "7d", "30d", "all_time"]),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    st.floats(-1e9, 1e9),
)


def _joined(kind: type[And] | type[Or]) -> Callable[[list[Predicate]], Predicate]:
    def join(children: list[Predicate]) -> Predicate:
        flat: list[Predicate] = []
        for child in children:
            flat += child.children if isinstance(child, kind) else [child]
        return kind(tuple(flat))

    return join


def predicates(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Predicate]:
    """Trees in the parser's normal form: no AND directly in an AND, no OR in an OR."""
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            inner.map(Not),
            st.lists(inner, min_size=2, max_size=3).map(_joined(And)),
            st.lists(inner, min_size=2, max_size=3).map(_joined(Or)),
        ),
        max_leaves=8,
    )


@given(predicates(COMPARISON | SIGNAL | NAME.map(Flag)))
def test_text_of_a_predicate_parses_to_it(predicate: Predicate) -> None:
    again = parse_predicate(to_text(predicate), depth_max=64)
    assert again == predicate
    assert repr(again) == repr(predicate)  # 1, 1.0 and true are equal in Python, and not the same here


@given(st.text(max_size=40) | st.text("abAND ORNOT()[],:=<>\"'.-+1\n", max_size=60))
def test_any_text_is_a_predicate_or_an_error_with_a_place(text: str) -> None:
    try:
        predicate = parse_predicate(text)
    except PredicateError as error:
        line, column = error.line, error.column
    else:
        assert parse_predicate(to_text(predicate), depth_max=64) == predicate
        return
    lines = text.split("\n")
    assert 1 <= line <= len(lines)
    assert 1 <= column <= len(lines[line - 1]) + 1


AGES = ("13-17", "18-24", "25-34", "35-44", "45-54", "55+")
DIMENSIONS = {"locale": ("US", "CA", "IN"), "language": ("en", "hi"), "age": AGES}
PROFILE = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in DIMENSIONS.items()}
)


@st.composite
def dimension_comparisons(draw: Callable[..., Any]) -> Comparison:
    name = draw(st.sampled_from(sorted(DIMENSIONS)))
    value = st.sampled_from(DIMENSIONS[name])
    op = draw(st.sampled_from(["=", "!=", "IN", "EXISTS"]))
    if op == "EXISTS":
        return Comparison(name, "EXISTS")
    return Comparison(
        name, op, tuple(draw(st.lists(value, min_size=1, max_size=2))) if op == "IN" else draw(value)
    )


def _truth(predicate: Predicate, profile: dict[str, str]) -> bool:
    match predicate:
        case And(children):
            return all(_truth(child, profile) for child in children)
        case Or(children):
            return any(_truth(child, profile) for child in children)
        case Not(child):
            return not _truth(child, profile)
        case Comparison(name, op, value):
            actual = profile.get(name)
            tests = {
                "=": actual == value,
                "!=": actual is not None and actual != value,
                "IN": isinstance(value, tuple) and actual in value,
                "EXISTS": actual is not None,
            }
            return tests[op]
    raise AssertionError(predicate)


@given(predicates(dimension_comparisons()), PROFILE)
def test_matching_a_profile_is_plain_logic(predicate: Predicate, profile: dict[str, str]) -> None:
    assert matches_profile(check(predicate, SCHEMA), profile) == _truth(predicate, profile)
