"""Segments as text: what they mean, and one clear message for each mistake."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.errors import PredicateError, SchemaError
from schemas.field_match import matches_fields
from schemas.loading import load_schema
from schemas.predicate import check, parse_predicate
from schemas.segment_ast import AllOf, Measure, NoneOf
from schemas.segment_parser import parse_segment
from schemas.segment_plan import AtLeast, SumAtLeast, segment_plan

DAY_MS = 86_400_000


def problems_of(text: str, **more: str) -> list[str]:
    try:
        load_schema({"name": "x", "segments": {"a": text, **more}})
    except SchemaError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_the_form_of_the_specification() -> None:
    formula = parse_segment("count(like, category = jazz, 30d) >= 5")
    assert isinstance(formula, Measure)
    assert (formula.read, formula.signal, formula.window, formula.op, formula.value) == (
        "count",
        "like",
        "30d",
        ">=",
        5.0,
    )


def test_a_comma_is_and_between_measures_and_ends_a_condition_within_one() -> None:
    text = "count(like, tags:x AND NOT (category:a, language EXISTS), 7d) > 2, NOT count(view, all_time) > 9"
    formula = parse_segment(text)
    assert isinstance(formula, AllOf)
    first, second = formula.children
    assert isinstance(first, Measure)
    assert first.where is not None
    assert isinstance(second, NoneOf)


def test_terms_of_one_meaning_are_kept_once() -> None:
    plan = segment_plan(
        load_schema(
            {
                "name": "x",
                "segments": {
                    "fans": "count(like, category = jazz, 30d) >= 5",
                    "new_fans": "count(like, category:jazz, 1d) = 2 OR "
                    "count(like, (category = jazz), all_time) < 9 "
                    "AND count(like, category = jazz, all_time) > 0",
                    "spenders": "sum(purchase, all_time) >= 99.5",
                },
            }
        )
    )
    assert [term.text for term in plan.terms] == ["like, category = jazz", "purchase"]
    assert [term.kept for term in plan.terms] == [5, 0]
    assert set(plan.atoms) == {
        AtLeast(0, 5, 30 * DAY_MS),
        AtLeast(0, 2, DAY_MS),
        AtLeast(0, 3, DAY_MS),
        AtLeast(0, 9, 0),
        AtLeast(0, 1, 0),
        SumAtLeast(1, 99_500_000),
    }
    assert list(plan.conditions) == ["category = jazz"]


@pytest.mark.parametrize(
    ("op", "counts"),
    [(">=", [3, 4]), (">", [4]), ("<", [1, 2]), ("<=", [1, 2, 3]), ("=", [3]), ("!=", [1, 2, 4])],
)
def test_each_comparison_by_way_of_at_least(op: str, counts: list[int]) -> None:
    text = f"count(like, all_time) >= 1 AND count(like, all_time) {op} 3"
    plan = segment_plan(load_schema({"name": "x", "segments": {"a": text}}))
    had = np.arange(5)
    truths = [had >= atom.events for atom in plan.atoms if isinstance(atom, AtLeast)]
    assert np.flatnonzero(plan.membership(truths)[0]).tolist() == counts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("count(lik, 30d) >= 5", "'lik' – expected a declared signal; did you mean 'like'?"),
        ("count(like, categry = jazz, 30d) >= 5", "did you mean 'category'?"),
        ("count(like, duration_s > long, 30d) >= 5", "is of type float, 'long' is not"),
        ("count(like, category = jazz) >= 5", "expected a window at the end, like 30d, or all_time"),
        ("count(like, 30x) >= 5", "'30x' – expected a window like 30m, 24h or 7d, or all_time"),
        ("count(like, 30d) >= 257", "at most 256 events in a window"),
        ("count(like, 30d) > 256", "at most 255 events in a window"),
        ("count(like, 30d) >= 2.5", "a whole number of events"),
        ("count(like, 30d) >= 0", "at least 1 with >="),
        ("count(like, seen AND category = jazz, 30d) > 1", "cannot stand here"),
        ("sum(like, 30d) >= 5", "cannot be kept exactly in bounded memory"),
        ("total(like, 30d) >= 5", "expected count or sum"),
        ("NOT count(like, 30d) >= 1", "somebody who did nothing is in none"),
        ("count(like, 30d) >=", "the text ends too early at line 1, column 20; expected a number"),
        ("liked", "a segment like count(like, category = jazz, 30d) >= 5"),
        ("(" * 20 + "count(like, 30d) >= 1" + ")" * 20, "nested 21 deep, the limit is 16"),
    ],
)
def test_each_mistake_has_its_message(text: str, said: str) -> None:
    [problem] = problems_of(text)
    assert problem.startswith("segments.a: ")
    assert said in problem


def test_a_segment_may_not_be_called_as_a_dimension_is() -> None:
    schema = {"name": "x", "segments": {"locale": "count(like, 30d) >= 1"}}
    with pytest.raises(SchemaError, match="not also a dimension"):
        load_schema(schema)


def test_too_many_of_anything_are_refused() -> None:
    many = {f"s{number}": f"count(like, category = c{number}, 30d) >= 1" for number in range(33)}
    assert [
        "at most 32 different pairs" in problem for problem in problems_of("count(like, 1h) >= 1", **many)
    ]
    alike = {f"s{number}": f"count(like, {number + 1}h) >= 1" for number in range(64)}
    assert any("at most 64 segments" in problem for problem in problems_of("count(like, 99h) >= 1", **alike))


def test_text_longer_than_8_kib_is_refused() -> None:
    with pytest.raises(PredicateError, match="longer than"):
        parse_segment("count(like, 30d) >= 5 " * 1_000)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("category = jazz", True),
        ("category != jazz", False),
        ("language != en", False),
        ("NOT language = en", True),
        ("tags:live", True),
        ("tags = studio OR duration_s BETWEEN 100 AND 200", True),
        ("tags != studio", True),
        ("tags CONTAINS live", True),
        ("tags IN (studio, solo)", True),
        ("duration_s > 120", False),
        ("category IN (rock, jazz), duration_s <= 120", True),
        ("language EXISTS", False),
        ("creator = ada AND status = active", True),
        ("category CONTAINS az", True),
    ],
)
def test_item_conditions_of_one_record(text: str, holds: bool) -> None:
    fields = {
        "category": "jazz",
        "tags": ["live", "solo"],
        "duration_s": 120.0,
        "creator": "ada",
        "status": "active",
        "language": None,
    }
    predicate = check(parse_predicate(text), load_schema({"name": "x"}), "item")
    assert matches_fields(predicate, fields) is holds
