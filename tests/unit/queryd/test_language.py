"""The grammar: the reference queries as written, one form for all spellings, one clear error."""

from __future__ import annotations

import pytest

from queryd.errors import LimitExceeded, NotServed, QueryError, QueryFailed
from queryd.language.ast import Query, Within
from queryd.language.builder import retrieve, search
from queryd.language.json_form import from_json
from queryd.language.parse import parse_query
from queryd.language.text import to_text
from queryd.plan.planner import make_plan
from schemas.default import default_schema
from schemas.model import Diversity
from schemas.predicate import And, Comparison, Not, parse_predicate

COHORT = "locale:US, age:18-24"
TRENDING = "RETRIEVE items USING PROFILE trending WINDOW 24h LIMIT 25"
COHORT_TRENDING = "RETRIEVE items USING PROFILE trending COHORT locale:US, age:18-24 WINDOW 24h LIMIT 25"
SEARCH = 'SEARCH items QUERY "piano tutorial" WITHIN TRENDING COHORT locale:US, age:18-24 WINDOW 24h LIMIT 20'
COMPOSED = """RETRIEVE items FOR USER @u1 USING PROFILE for_you FILTER unseen
WITHIN TRENDING COHORT locale:US, age:18-24 DIVERSITY max_per_creator:2 LIMIT 50"""

FORMS = [
    (
        TRENDING,
        {"retrieve": "items", "using_profile": "trending", "window": "24h", "limit": 25},
        retrieve().using("trending").window("24h").limit(25),
    ),
    (
        COHORT_TRENDING,
        {"retrieve": "items", "using_profile": "trending", "cohort": COHORT, "window": "24h", "limit": "25"},
        retrieve().using("trending").cohort(COHORT).window("24h").limit(25),
    ),
    (
        SEARCH,
        {
            "search": "items",
            "query": "piano tutorial",
            "within": "trending",
            "cohort": {"and": [{"field": "locale", "op": "=", "value": "US"}, "age:18-24"]},
            "window": "24h",
            "limit": 20,
        },
        search("piano tutorial").within_trending().cohort(COHORT).window("24h").limit(20),
    ),
    (
        COMPOSED,
        {
            "retrieve": "items",
            "for_user": "@u1",
            "using_profile": "for_you",
            "filter": {"flag": "unseen"},
            "within": "trending",
            "cohort": COHORT,
            "diversity": {"max_per_creator": 2},
            "limit": 50,
        },
        retrieve()
        .for_user("u1")
        .using("for_you")
        .filter("unseen")
        .within_trending()
        .cohort(COHORT)
        .diversity(max_per_creator=2)
        .limit(50),
    ),
]


@pytest.mark.parametrize(("text", "form", "built"), FORMS)
def test_text_json_and_builder_give_one_plan(text: str, form: dict[str, object], built: object) -> None:
    schema = default_schema()
    plan = make_plan(parse_query(text), schema)
    assert make_plan(from_json(form), schema) == plan
    assert make_plan(built.build(), schema) == plan  # type: ignore[attr-defined]
    assert make_plan(parse_query(to_text(plan.query)), schema) == plan


def test_the_composed_query_in_its_parts() -> None:
    query = parse_query(COMPOSED)
    assert query.user == "u1"
    assert query.within == Within("trending")
    assert query.diversity == Diversity(max_per_creator=2)
    assert query.cohort == And((Comparison("locale", "=", "US"), Comparison("age", "=", "18-24")))


def test_clauses_come_in_any_order_and_keywords_in_any_case() -> None:
    shuffled = (
        "retrieve Items limit 25 -- a comment\n window 24h Cohort locale:US, age:18-24 using Profile trending"
    )
    assert parse_query(shuffled) == parse_query(COHORT_TRENDING)


@pytest.mark.parametrize(
    ("text", "clause"),
    [("COHORT WINDOW 24h", "COHORT"), ("cohort\n LIMIT 3", "COHORT"), ("FILTER LIMIT 3", "FILTER")],
)
def test_a_clause_without_a_predicate_is_named(text: str, clause: str) -> None:
    with pytest.raises(QueryError, match=f"{clause} has no predicate"):
        parse_query(f"RETRIEVE items {text}")


def test_every_clause() -> None:
    query = parse_query(
        """EXPLAIN ANALYZE SEARCH items QUERY "a 'b' \\"c\\"" VECTOR [0.5, -1e-3] LIKE @item:x:y
        FOR USER "a b" USING PROFILE for_you@3 FILTER NOT seen WITHIN SIMILAR TO @item:i-1
        SIGNAL like WINDOW all_time
        DIVERSITY {max_per_creator:2, max_per_category:3, format_mix:{video:0.6, "long read":0.4}, mmr:0.3}
        FIELDS title, category LIMIT 7 CURSOR "c" AFTER "t" AS OF 2026-01-31T12:00:00Z SEED 9"""
    )
    assert query.explain == "analyze"
    assert query.text == "a 'b' \"c\""
    assert query.vector == (0.5, -0.001)
    assert query.like == "x:y"
    assert query.user == "a b"
    assert query.profile == "for_you@3"
    assert query.filter == Not(parse_predicate("seen"))
    assert query.within == Within("similar", "i-1")
    assert query.diversity == Diversity(
        max_per_creator=2, max_per_category=3, format_mix={"video": 0.6, "long read": 0.4}, mmr=0.3
    )
    assert query.fields == ("title", "category")
    assert (query.limit, query.cursor, query.after, query.seed) == (7, "c", "t", 9)
    assert query.as_of_ms == 1_769_860_800_000
    assert parse_query(to_text(query)) == query


@pytest.mark.parametrize(
    ("text", "line", "column", "fragment"),
    [
        ("RETREIVE items", 1, 1, "did you mean 'RETRIEVE'"),
        ("RETRIEVE items\nLIMT 5", 2, 1, "did you mean 'LIMIT'"),
        ("RETRIEVE items LIMIT", 1, 21, "ends too early"),
        ("RETRIEVE items LIMIT 5 LIMIT 6", 1, 30, "LIMIT is given twice"),
        ("RETRIEVE items DIVERSITY max_per_creater:2", 1, 26, "did you mean 'max_per_creator'"),
        ("RETRIEVE items FILTER (a=1", 1, 27, "ends too early"),
        ("RETRIEVE items WITHIN TRENDIN", 1, 23, "did you mean 'TRENDING'"),
        ("RETRIEVE items FILTER view.cnt(24h) > 3", 1, 28, "did you mean 'count'"),
        ('RETRIEVE items\n\nAFTER "abc', 3, 7, "no closing quote"),
        ("RETRIEVE items AS OF 12-40", 1, 22, "is no time"),
        ("RETRIEVE items LIMIT 2.5", 1, 22, "no whole number"),
        ("RETRIEVE items LIMIT 1e400", 1, 22, "no whole number"),
        ("RETRIEVE items SEED 18446744073709551616", 1, 21, "no whole number"),
        (r'SEARCH items QUERY "half of a pair \ud800"', 1, 20, "escape that is not one"),
        ("", 1, 1, "ends too early"),
    ],
)
def test_a_mistake_is_shown_where_it_is(text: str, line: int, column: int, fragment: str) -> None:
    with pytest.raises(QueryError, match=fragment) as caught:
        parse_query(text)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize("number", ["1e400", "2.5", "{a:1}", "0"])
def test_a_diversity_rule_takes_a_whole_number(number: str) -> None:
    with pytest.raises(QueryError, match="DIVERSITY"):
        parse_query(f"RETRIEVE items DIVERSITY max_per_creator:{number}")


@pytest.mark.parametrize("number", ["2", [2], True, 0])
def test_a_diversity_rule_of_the_json_form_too(number: object) -> None:
    with pytest.raises(QueryError, match="DIVERSITY"):
        from_json({"retrieve": "items", "diversity": {"max_per_creator": number}})


def test_single_quotes_hold_what_double_quotes_do() -> None:
    query = parse_query(r"""SEARCH items QUERY 'say \"hi\", it\'s "so"\n'""")
    assert query.text == 'say "hi", it\'s "so"\n'


def test_a_seed_is_read_to_its_last_digit() -> None:
    seed = 2**64 - 1
    assert parse_query(f"RETRIEVE items SEED {seed}").seed == seed
    assert from_json({"retrieve": "items", "seed": str(seed)}).seed == seed


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (
            "FOR USER @user:u1 WITHIN CREATOR @creator:c",
            {"for_user": "@user:u1", "within": {"creator": "@creator:c"}},
        ),
        ("FOR USER @u1 WITHIN SIMILAR TO @item:i", {"for_user": "u1", "within": {"similar": "@item:i"}}),
        (
            'FOR USER "item:u" WITHIN CREATOR "item:c"',
            {"for_user": "item:u", "within": {"creator": "item:c"}},
        ),
    ],
)
def test_references_are_the_same_in_text_and_json(text: str, form: dict[str, object]) -> None:
    assert parse_query(f"RETRIEVE items {text}") == from_json({"retrieve": "items", **form})


def test_suggest_is_refused_by_name() -> None:
    with pytest.raises(NotServed, match="SUGGEST"):
        parse_query('SUGGEST "pia"')


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("RETRIEVE items FILTER " + "(" * 20 + "seen" + ")" * 20, "max_predicate_depth"),
        ("RETRIEVE items -- " + "x" * 9000, "max_query_text_bytes"),
        ("RETRIEVE items LIMIT 501", "max_query_limit"),
        ("RETRIEVE items LIMIT 0", "max_query_limit"),
    ],
)
def test_limits_are_named(text: str, limit: str) -> None:
    with pytest.raises(LimitExceeded) as caught:
        make_plan(parse_query(text), default_schema())
    assert caught.value.limit == limit


def test_depth_is_limited_in_the_json_form_too() -> None:
    form: object = "seen"
    for _ in range(20):
        form = {"not": form}
    with pytest.raises(LimitExceeded):
        from_json({"retrieve": "items", "filter": form})


@pytest.mark.parametrize(
    ("form", "path"),
    [
        ({"retrieve": "items", "limt": 3}, "limt"),
        ({"limit": 3}, "retrieve"),
        ({"retrieve": "items", "limit": -1}, "limit"),
        ({"retrieve": "items", "limit": "²"}, "limit"),
        ({"retrieve": "items", "seed": "9" * 5_000}, "seed"),
        ({"retrieve": "items", "seed": 2**64}, "seed"),
        ({"retrieve": "films"}, "retrieve"),
        ({"retrieve": "items", "within": "trendin"}, "within"),
        ({"retrieve": "items", "filter": {"field": "a", "op": "~"}}, "filter"),
        ({"retrieve": "items", "filter": {"and": []}}, "filter"),
        ({"retrieve": "items", "filter": {"or": "seen"}}, "filter.or"),
        ({"retrieve": "items", "filter": {"and": ["seen"], "or": ["liked"]}}, "filter"),
        ({"retrieve": "items", "filter": {"not": {"not": "seen", "flag": "seen"}}}, "filter.not"),
        ({"retrieve": "items", "filter": {"field": "a", "op": "="}}, "filter"),
        ({"retrieve": "items", "filter": {"field": "a", "op": "<", "value": [1, 2]}}, "filter"),
        ({"retrieve": "items", "filter": {"field": "a", "op": "IN", "value": "b"}}, "filter"),
        ({"retrieve": "items", "filter": {"field": "a", "op": "IN", "value": []}}, "filter"),
        ({"retrieve": "items", "filter": {"field": "a", "op": "BETWEEN", "value": [1, 2, 3]}}, "filter"),
        ({"retrieve": "items", "filter": {"field": "a", "op": "EXISTS", "value": 1}}, "filter"),
        ({"retrieve": "items", "filter": {"signal": "a", "read": "sum", "op": "IN", "value": 1}}, "filter"),
        ({"retrieve": "items", "diversity": {"max": 1}}, "diversity.max"),
        ({"retrieve": "items", "fields": 3}, "fields"),
        ({"retrieve": "items", "as_of": "soon"}, "as_of"),
        ({"retrieve": "items", "filter": "a b c"}, "filter"),
    ],
)
def test_mistakes_of_the_json_form_name_the_key(form: dict[str, object], path: str) -> None:
    with pytest.raises(QueryError) as caught:
        from_json(form)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("RETRIEVE items USING PROFILE trendin", "did you mean 'trending'"),
        ("RETRIEVE items USING PROFILE trending@99", "no profile"),
        ("RETRIEVE items USING PROFILE trending COHORT local:US", "did you mean 'locale'"),
        ("RETRIEVE items USING PROFILE trending COHORT age:18-25", "did you mean '18-24'"),
        ("RETRIEVE items USING PROFILE trending WINDOW 25h", "is no window"),
        ("RETRIEVE items USING PROFILE trending SIGNAL viewz", "did you mean 'view'"),
        ('SEARCH items QUERY "x" COHORT locale:US', "COHORT changes nothing"),
        ('SEARCH items QUERY "x" WINDOW 24h', "WINDOW changes nothing"),
        ("RETRIEVE items SORT BY last_engaged", "no sort mode"),
        ("RETRIEVE items SORT BY new USING PROFILE trending", "instead of a profile"),
        ("RETRIEVE creators USING PROFILE trending", "not served yet"),
        ("RETRIEVE items WITHIN LIKED", "about a user"),
        ("SEARCH items", "needs something to search"),
        ('RETRIEVE items QUERY "x"', "belong to SEARCH"),
        ("RETRIEVE items DIVERSITY mmr:0.3", "mmr is not served"),
        ("RETRIEVE items FILTER sen", "did you mean 'seen'"),
    ],
)
def test_what_the_schema_lacks_or_is_not_served_is_refused_by_name(query: str, message: str) -> None:
    with pytest.raises(QueryFailed, match=message):
        make_plan(parse_query(query), default_schema())


def test_defaults() -> None:
    assert parse_query("RETRIEVE items") == Query()
    schema = default_schema()
    assert make_plan(parse_query("RETRIEVE items"), schema).profile.name == "trending"
    assert make_plan(parse_query("RETRIEVE items FOR USER @u"), schema).profile.name == "for_you"
