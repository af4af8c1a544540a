"""Any query survives the way to text and back; no text, however broken, fails with anything but our error."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from queryd.errors import QueryFailed
from queryd.language.ast import SCOPES_WITH_TARGET, Query, Within
from queryd.language.json_form import from_json
from queryd.language.parse import parse_query
from queryd.language.text import to_text
from queryd.plan.planner import make_plan
from schemas.default import default_schema
from schemas.model import Diversity
from schemas.predicate import And, Comparison, Flag, Not, Or, Predicate, SignalComparison
from tests.unit.queryd.test_language import COMPOSED

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
IDS = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\u2028\u2029\x85"),
    min_size=1,
    max_size=12,
)
NUMBERS = st.integers(0, 1000) | st.floats(-1e6, 1e6, allow_nan=False).map(lambda number: number + 0.0)
SCALARS = IDS | st.integers(-1000, 1000) | st.booleans()
LEAVES = (
    st.builds(Flag, NAMES)
    | st.builds(Comparison, NAMES, st.sampled_from(["=", "!=", "<", ">=", "CONTAINS"]), SCALARS)
    | st.builds(Comparison, NAMES, st.just("IN"), st.lists(SCALARS, min_size=1, max_size=3).map(tuple))
    | st.builds(Comparison, NAMES, st.just("EXISTS"))
    | st.builds(
        SignalComparison,
        NAMES,
        st.sampled_from(["count", "decay", "mean"]),
        st.sampled_from(["1h", "24h", "all_time"]),
        st.sampled_from(["<", ">="]),
        st.floats(0, 1e6),
    )
)


def _joined(kind: type[And] | type[Or], children: list[Predicate]) -> Predicate:
    flat: list[Predicate] = []
    for child in children:
        flat += child.children if isinstance(child, kind) else [child]
    return kind(tuple(flat))


PREDICATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(Not, inner)
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: _joined(And, parts))
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: _joined(Or, parts))
    ),
    max_leaves=6,
)
WITHINS = st.sampled_from(["trending", "following", "liked", "saved"]).map(Within) | st.builds(
    Within, st.sampled_from(SCOPES_WITH_TARGET), IDS
)
DIVERSITIES = st.builds(
    Diversity,
    max_per_creator=st.none() | st.integers(1, 9),
    max_per_category=st.none() | st.integers(1, 9),
    format_mix=st.dictionaries(IDS, st.floats(0, 1), max_size=2),
    mmr=st.none() | st.floats(0, 1),
).filter(lambda rules: rules != Diversity())


@st.composite
def queries(draw: st.DrawFn) -> Query:
    search = draw(st.booleans())
    optional = {
        "user": IDS,
        "profile": NAMES | NAMES.map(lambda name: f"{name}@3"),
        "filter": PREDICATES,
        "cohort": PREDICATES,
        "within": WITHINS,
        "signal": NAMES,
        "window": st.sampled_from(["1h", "24h", "all_time"]),
        "sort": NAMES,
        "diversity": DIVERSITIES,
        "fields": st.lists(NAMES, min_size=1, max_size=3).map(tuple),
        "limit": st.integers(0, 500),
        "cursor": IDS,
        "after": IDS,
        "as_of_ms": st.integers(0, 2**41),
        "seed": st.integers(0, 2**31),
        "explain": st.sampled_from(["plan", "analyze"]),
    }
    if search:
        optional |= {"vector": st.lists(st.floats(-1, 1), min_size=1, max_size=3).map(tuple), "like": IDS}
    chosen = draw(st.sets(st.sampled_from(sorted(optional))))
    values = {name: draw(optional[name]) for name in sorted(chosen)}
    if search:
        values["text"] = draw(IDS)
    return Query(verb="search" if search else "retrieve", **values)


@given(queries())
def test_to_text_and_back(query: Query) -> None:
    assert parse_query(to_text(query), text_bytes_max=1 << 20, depth_max=1000) == query


@given(st.text(max_size=80))
def test_no_text_fails_with_anything_but_our_error(text: str) -> None:
    with contextlib.suppress(QueryFailed):
        parse_query(text)


@given(st.data())
def test_a_damaged_query_fails_with_nothing_but_our_error(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(COMPOSED)))
    end = data.draw(st.integers(start, len(COMPOSED)))
    with contextlib.suppress(QueryFailed):
        parse_query(COMPOSED[:start] + data.draw(st.text(max_size=5)) + COMPOSED[end:])


SCHEMA = default_schema()
WORDS = st.sampled_from(
    [
        "items",
        "category",
        "duration_s",
        "view",
        "count",
        "24h",
        "=",
        "<",
        "IN",
        "BETWEEN",
        "EXISTS",
        "1e999",
        "²",
    ]
)
PLACES = st.sampled_from(
    ["and", "or", "not", "flag", "field", "op", "value", "signal", "read", "window", "max_per_creator", "mmr"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(PLACES | st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
OPERATORS = st.sampled_from(["=", "!=", "<", "IN", "BETWEEN", "CONTAINS", "EXISTS"])
CONDITION = st.fixed_dictionaries(
    {"field": st.sampled_from(["category", "duration_s", "tags"]), "op": OPERATORS}, optional={"value": JSON}
) | st.fixed_dictionaries(
    {"signal": st.just("view"), "read": st.just("count"), "op": OPERATORS, "value": JSON}
)
CLAUSES = {
    "filter": JSON | CONDITION,
    "cohort": JSON,
    "within": JSON,
    "limit": JSON,
    "diversity": JSON | st.dictionaries(PLACES, JSON, max_size=2),
    "fields": JSON,
    "as_of": JSON,
    "seed": JSON,
}


@given(st.fixed_dictionaries({"retrieve": st.just("items") | JSON}, optional=CLAUSES))
def test_no_json_fails_with_anything_but_our_error(document: dict[str, object]) -> None:
    with contextlib.suppress(QueryFailed):
        query = from_json(document)
        assert query.seed is None or 0 <= query.seed < 2**64
        assert parse_query(to_text(make_plan(query, SCHEMA).query)) is not None
