"""A cohort is called a contradiction when, and only when, nobody of everybody there can be is in it."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import contradiction
from schemas.contradiction import is_contradiction
from schemas.predicate import And, Comparison, Flag, Not, Or, Predicate, matches_profile, parse_predicate

LABELS = {"age": ("18-24", "25-34")}
VALUES = {
    "locale": ["US", "DE", "somewhere else", "UD", None],
    "age": [*LABELS["age"], None],
    "fans": ["true", None],
}
EVERYBODY = [
    {name: value for name, value in zip(VALUES, chosen, strict=True) if value is not None}
    for chosen in product(*VALUES.values())
]
KEYWORD = st.sampled_from(["US", "DE"])
LEAVES = st.one_of(
    st.just(Flag("fans")),
    st.builds(Comparison, st.just("locale"), st.sampled_from(["=", "!="]), KEYWORD),
    st.builds(Comparison, st.just("locale"), st.just("CONTAINS"), st.sampled_from(["U", "D"])),
    st.builds(Comparison, st.just("locale"), st.just("IN"), st.lists(KEYWORD, min_size=1).map(tuple)),
    st.builds(Comparison, st.just("age"), st.sampled_from(["=", "!="]), st.sampled_from(LABELS["age"])),
    st.builds(Comparison, st.sampled_from(["age", "locale"]), st.just("EXISTS")),
)


def _composites(inner: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
    several = st.lists(inner, min_size=2, max_size=4).map(tuple)
    return st.builds(And, several) | st.builds(Or, several) | st.builds(Not, inner)


@given(st.recursive(LEAVES, _composites, max_leaves=12))
def test_as_everybody_says(predicate: Predicate) -> None:
    somebody = any(matches_profile(predicate, profile) for profile in EVERYBODY)
    assert is_contradiction(predicate, LABELS) is not somebody


NUMBERS = st.integers(0, 6)
ORDERED = st.one_of(
    st.builds(Comparison, st.just("n"), st.sampled_from(["<", "<=", ">", ">=", "=", "!="]), NUMBERS),
    st.builds(Comparison, st.just("n"), st.just("BETWEEN"), st.tuples(NUMBERS, NUMBERS)),
    st.builds(Comparison, st.just("n"), st.just("EXISTS")),
)


@given(st.recursive(ORDERED, _composites, max_leaves=12))
def test_numbers_in_between_count_too(predicate: Predicate) -> None:
    everybody = [{}, *({"n": repr(place / 2 if place % 2 else place // 2)} for place in range(-3, 16))]
    somebody = any(matches_profile(predicate, profile) for profile in everybody)
    assert is_contradiction(predicate) is not somebody


@pytest.mark.parametrize(
    ("text", "impossible"),
    [
        ("locale:US AND locale:CA", True),
        ("locale:US, NOT locale:US", True),
        ("locale IN (US, CA) AND locale IN (DE, FR)", True),
        ("fans AND NOT fans", True),
        ("NOT (locale:US OR NOT locale:US)", True),
        ("locale:US AND NOT locale EXISTS", True),
        ("n > 5 AND n < 3", True),
        ("locale:US OR locale:CA", False),
        ("NOT locale:US AND NOT locale:CA", False),
        ("n > 3 AND n < 5", False),
        ("locale:US AND age:18-24 AND fans", False),
    ],
)
def test_by_hand(text: str, impossible: bool) -> None:
    assert is_contradiction(parse_predicate(text)) is impossible


def test_too_many_cases_are_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"d{number}" for number in range(14)]
    either = [f"({name}:a OR {name}:b) AND NOT ({name}:a OR {name}:b)" for name in names]
    text = " AND ".join(f"({names[place]}:x OR {names[place + 1]}:x)" for place in range(13))
    monkeypatch.setattr(contradiction, "WORK_MAX", 100)
    assert not is_contradiction(parse_predicate(f"{text} AND {either[0]}"))
    assert not is_contradiction(parse_predicate(" AND ".join(f'd CONTAINS "{name}"' for name in names)))
