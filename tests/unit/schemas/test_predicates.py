"""Predicates: what they parse to, what is said of those that do not, and what a schema makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from lark import Lark, Token, Transformer
from lark.visitors import merge_transformers

from schemas.default import default_schema
from schemas.errors import PredicateError
from schemas.loading import load_schema
from schemas.predicate import (
    GRAMMAR_DIR,
    And,
    Comparison,
    Condition,
    Flag,
    Not,
    Or,
    Predicate,
    PredicateTransformer,
    SignalComparison,
    check,
    matches_profile,
    parse_predicate,
    to_text,
)

SCHEMA = load_schema(
    """
    segments: {jazz_fans: "count(like, category = jazz, 30d) >= 5"}
    cohorts: {young_us: "locale:US, age:18-24", not_young: "NOT young_us"}
    """
)


def eq(field: str, value: object) -> Comparison:
    return Comparison(field, "=", value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text, predicate",
    [
        ("locale:US, age:18-24", And((eq("locale", "US"), eq("age", "18-24")))),
        ("age:55+", eq("age", "55+")),
        ("unseen", Flag("unseen")),
        ("locale:IN", eq("locale", "IN")),
        ("language : or OR locale:AND", Or((eq("language", "or"), eq("locale", "AND")))),
        ("a:b or c:d, e:f", Or((eq("a", "b"), And((eq("c", "d"), eq("e", "f")))))),
        ("a:b AND (c:d OR e:f)", And((eq("a", "b"), Or((eq("c", "d"), eq("e", "f")))))),
        ("NOT a:b, c:d", And((Not(eq("a", "b")), eq("c", "d")))),
        ("NOT NOT a:b", Not(Not(eq("a", "b")))),
        ("(a:b, c:d), e:f", And((eq("a", "b"), eq("c", "d"), eq("e", "f")))),
        (
            'gender:F AND NOT (age:25-34 OR occupation = "none")',
            And((eq("gender", "F"), Not(Or((eq("age", "25-34"), eq("occupation", "none")))))),
        ),
        ("n >= 10", Comparison("n", ">=", 10)),
        ("n = -2.5", eq("n", -2.5)),
        ("n = 007", eq("n", "007")),
        ("b = true", eq("b", True)),
        ('n = "10"', eq("n", "10")),
        (r"a = 'it\'s \"x\"'", eq("a", 'it\'s "x"')),
        (r'a = "\u00e9\n"', eq("a", "é\n")),
        ("a IN (b, c-d, 3)", Comparison("a", "IN", ("b", "c-d", 3))),
        ("a not in [b]", Not(Comparison("a", "IN", ("b",)))),
        ("n BETWEEN 1 AND 2 AND b:c", And((Comparison("n", "BETWEEN", (1, 2)), eq("b", "c")))),
        ("tags CONTAINS jazz", Comparison("tags", "CONTAINS", "jazz")),
        ("a EXISTS", Comparison("a", "EXISTS")),
        ("exists a", Comparison("a", "EXISTS")),
        ("view.count(24h) >= 10", SignalComparison("view", "count", "24h", ">=", 10.0)),
        ("like.velocity(1h) > 2e-3", SignalComparison("like", "velocity", "1h", ">", 0.002)),
        ("dwell_time.sum > 60", SignalComparison("dwell_time", "sum", "all_time", ">", 60.0)),
        ("a:b -- the rest is a remark\n, c:d", And((eq("a", "b"), eq("c", "d")))),
        ("tags:日本", eq("tags", "日本")),
    ],
)
def test_text_and_its_predicate(text: str, predicate: Predicate) -> None:
    parsed = parse_predicate(text)
    assert parsed == predicate
    assert repr(parsed) == repr(predicate)
    assert parse_predicate(to_text(parsed)) == parsed


@pytest.mark.parametrize(
    "text, line, column, expected, nearest",
    [
        ("", 1, 1, "a field, state, segment or cohort", None),
        ("locale:", 1, 8, "a value", None),
        ("locale:US ADN age:x", 1, 11, "AND", "AND"),
        ("a:b,\n  c d", 2, 5, "a comparison (: = != < <= > >=)", None),
        ("(a:b", 1, 5, "')'", None),
        ("a:b)", 1, 4, "the end", None),
        ('a:"open', 1, 3, 'a second "', None),
        ("a:b 'x'", 1, 5, "the end", None),
        ("view.cuont(1h) > 1", 1, 6, "count", "count"),
        ("view.velocity > 1", 1, 6, "velocity(24h)", None),
        (r'a:"\q"', 1, 3, '\\" \\\\ \\n \\t or \\uXXXX', None),
        ("n BETWEEN 1 OR 2", 1, 13, "AND", None),
    ],
)
def test_an_error_names_its_place_and_what_was_expected(
    text: str, line: int, column: int, expected: str, nearest: str | None
) -> None:
    with pytest.raises(PredicateError) as caught:
        parse_predicate(text)
    error = caught.value
    assert (error.line, error.column, error.nearest) == (line, column, nearest)
    assert expected in error.expected


def test_depth_and_length_are_bounded() -> None:
    assert parse_predicate("(" * 15 + "a:b" + ")" * 15)
    for deep in ("(" * 16 + "a:b" + ")" * 16, "NOT " * 16 + "a:b", "(" * 3_000 + "a:b" + ")" * 3_000):
        with pytest.raises(PredicateError, match="max_predicate_depth"):
            parse_predicate(deep)
    assert parse_predicate("NOT " * 3 + "a:b", depth_max=4)
    with pytest.raises(PredicateError, match="max_predicate_depth"):
        parse_predicate("NOT " * 4 + "a:b", depth_max=4)
    with pytest.raises(PredicateError, match="max_query_text_bytes"):
        parse_predicate("a:" + "x" * 9_000)


@pytest.mark.parametrize(
    "text, checked",
    [
        ("young_us", And((eq("locale", "US"), eq("age", "18-24")))),
        ("not_young", Not(And((eq("locale", "US"), eq("age", "18-24"))))),
        ("jazz_fans", Flag("jazz_fans")),
        ("locale:7", eq("locale", "7")),
    ],
)
def test_a_cohort_becomes_what_its_names_stand_for(text: str, checked: Predicate) -> None:
    assert check(parse_predicate(text), SCHEMA, "cohort") == checked


@pytest.mark.parametrize(
    "text, checked",
    [
        ("unseen", Not(Flag("seen"))),
        ("liked", Flag("liked")),
        ("category = 7", eq("category", "7")),
        ("duration_s > 60", Comparison("duration_s", ">", 60.0)),
        ("duration_s > 1e2", Comparison("duration_s", ">", 100.0)),
        ("created_at >= 2025-01-01", Comparison("created_at", ">=", 1_735_689_600_000)),
        ("created_at < 1735689600000", Comparison("created_at", "<", 1_735_689_600_000)),
        ("creator IN (c1, c2)", Comparison("creator", "IN", ("c1", "c2"))),
        ("like.decay(7d) > 2", SignalComparison("like", "decay", "7d", ">", 2.0)),
    ],
)
def test_values_take_the_type_of_their_field(text: str, checked: Predicate) -> None:
    found = check(parse_predicate(text), SCHEMA, "item")
    assert repr(found) == repr(checked)


@pytest.mark.parametrize(
    "text, scope, words, nearest",
    [
        ("locle:US", "cohort", "no declared dimension", "locale"),
        ("shoe_size:F", "cohort", "no declared dimension", None),
        ("age:18-25", "cohort", "no bucket '18-25'", "18-24"),
        ("age = 21", "cohort", "no bucket '21'", None),
        ("age > 21", "cohort", "has buckets and does not know >", None),
        ("jazz_fan", "cohort", "no segment or cohort", "jazz_fans"),
        ("view.count(24h) > 1", "cohort", "aggregate of items", None),
        ("unsen", "item", "no state", "unseen"),
        ("categry:x", "item", "no declared field", "category"),
        ("category > 3", "item", "does not know >", None),
        ("duration_s = long", "item", "is of type float", None),
        ("created_at > soon", "item", "is of type time", None),
        ("vew.count(24h) > 1", "item", "no signal", "view"),
        ("view.count(2h) > 1", "item", "no window '2h'", "24h"),
        ("view.velocity(all_time) > 1", "item", "no window 'all_time'", None),
        ("view.decay(2h) > 1", "item", "no half-life '2h'", "24h"),
        ("name = x", "user", "no declared field of users", None),
    ],
)
def test_what_the_schema_lacks_is_named_with_the_nearest(
    text: str, scope: str, words: str, nearest: str | None
) -> None:
    with pytest.raises(PredicateError, match=words.replace("(", r"\(")) as caught:
        check(parse_predicate(text), SCHEMA, scope)  # type: ignore[arg-type]
    assert (caught.value.line, caught.value.column) == (1, 1)
    if nearest is not None:
        assert caught.value.nearest == nearest


@pytest.mark.parametrize(
    "text, profile, matches",
    [
        ("locale:US, age:18-24", {"locale": "US", "age": "18-24"}, True),
        ("locale:US, age:18-24", {"locale": "US"}, False),
        ("NOT age:18-24", {}, True),
        ("age != 18-24", {}, False),
        ("age != 18-24", {"age": "25-34"}, True),
        ("age EXISTS", {}, False),
        ("age IN (18-24, 55+)", {"age": "55+"}, True),
        ("jazz_fans", {"jazz_fans": "true"}, True),
        ("jazz_fans", {}, False),
    ],
)
def test_a_profile_matches(text: str, profile: dict[str, str], matches: bool) -> None:
    assert matches_profile(check(parse_predicate(text), SCHEMA), profile) is matches


@pytest.mark.parametrize(
    "text, profile, matches",
    [("n BETWEEN 2 AND 10", {"n": "9"}, True), ("n < 10", {"n": "9"}, True), ("n < 10", {"n": "x"}, False)],
)
def test_numbers_compare_as_numbers(text: str, profile: dict[str, str], matches: bool) -> None:
    assert matches_profile(parse_predicate(text), profile) is matches


class Clauses(Transformer[Token, Any]):
    def condition(self, children: list[Condition]) -> Condition:
        return children[0]


def test_the_grammar_is_part_of_a_larger_one() -> None:
    grammar = r"""
        %import .predicate (condition)
        start: "RETRIEVE"i (_COHORT condition | _WINDOW SPAN)*
        _COHORT: /COHORT\b/i
        _WINDOW: /WINDOW\b/i
        SPAN: /[0-9]+[hd]/
        %ignore /\s+/
    """
    parser = Lark(
        grammar,
        parser="lalr",
        import_paths=[str(GRAMMAR_DIR)],
        transformer=merge_transformers(Clauses(), predicate=PredicateTransformer()),
    )
    tree = parser.parse("RETRIEVE COHORT locale:US, age:18-24 WINDOW 24h")
    condition, window = tree.children
    assert condition.within(16) == parse_predicate("locale:US, age:18-24")  # type: ignore[union-attr]
    assert window == "24h"


def test_the_default_schema_refuses_what_it_does_not_declare() -> None:
    with pytest.raises(PredicateError):
        check(parse_predicate("jazz_fans"), default_schema())
