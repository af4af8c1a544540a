"""A schema survives the way to a document and back in every form; a broken document gives one report."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.builder import SchemaBuilder
from schemas.default import default_schema
from schemas.errors import SchemaError
from schemas.loading import default_document, load_schema, to_document

NAME = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True).map(lambda name: "x_" + name)
NAMES = st.lists(NAME, unique=True, max_size=3)
DURATION = st.sampled_from(["30s", "90m", "1h", "24h", "36h", "7d", "250ms"])
WEIGHT = st.floats(-1, 1) | st.integers(-1, 1)
CONDITION = st.sampled_from(
    [
        "locale:US",
        "age:18-24, locale:IN",
        "NOT (language:en OR age EXISTS)",
        "age IN (13-17, 55+), language:hi",
    ]
)


@st.composite
def builders(draw: Callable[..., Any]) -> SchemaBuilder:
    builder = SchemaBuilder(draw(NAME), version=draw(st.integers(1, 9)))
    if draw(st.booleans()):
        builder.item(embeddings={name: {"dim": draw(st.integers(1, 64))} for name in draw(NAMES)})
    if draw(st.booleans()):
        builder.creator(fields={name: draw(st.sampled_from(["text", "int", "time"])) for name in draw(NAMES)})
    states = draw(NAMES)
    builder.state(*states)
    for name in draw(NAMES):
        builder.signal(
            name,
            category=draw(st.sampled_from(["exposure", "positive", "negative"])),
            polarity=draw(st.integers(-1, 1)),
            decay=draw(
                st.just("none")
                | st.fixed_dictionaries({"linear": DURATION})
                | st.fixed_dictionaries({"exponential": st.lists(DURATION, min_size=1, max_size=3)})
            ),
            windows=draw(st.lists(st.sampled_from(["1h", "24h", "7d", "30d", "all_time"]), max_size=4)),
            state=draw(st.sampled_from([*states, "seen"]) | st.just(["seen", "liked"])),
            clears=draw(st.sampled_from(["saved", ["saved", "hidden"], []])),
            relationship={"interaction_weight": draw(WEIGHT), "engagement_affinity": draw(WEIGHT)},
            preference=draw(WEIGHT),
            value_range=draw(st.none() | st.tuples(st.integers(-5, 0), st.integers(1, 5))),
            dedup=draw(st.sampled_from(["default", "none"])),
            distinct_users=draw(st.booleans()),
        )
    for name in draw(NAMES):
        builder.cohort("c" + name, draw(CONDITION))
    for name in draw(NAMES):
        for version in range(1, draw(st.integers(1, 2)) + 1):
            builder.profile(
                "p" + name,
                version=version,
                extends=draw(st.sampled_from(["trending", "for_you"])),
                gates=draw(st.sampled_from([[], ["view.count(24h) >= 10", "unseen"]])),
                diversity=draw(st.none() | st.just({"max_per_creator": 2, "format_mix": {"video": 0.6}})),
            )
    return builder


@given(builders())
def test_a_document_loads_to_the_schema_that_it_came_from(builder: SchemaBuilder) -> None:
    schema = builder.build()
    document = to_document(schema)
    assert load_schema(document) == schema
    assert load_schema(json.dumps(document)) == schema
    assert load_schema(yaml.safe_dump(document, sort_keys=False)) == schema
    assert load_schema(yaml.safe_dump(builder.document(), sort_keys=False)) == schema


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(found for key, child in entries for found in _paths(child, (*path, key)))]


PATHS = _paths(default_document())
NOISE = st.sampled_from(
    [None, True, -1, 3, 1e300, float("nan"), "", "x", "24h", [], ["x"], {}, {"x": 1}, [None], 2**70]
)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(PATHS[1:]), NOISE), min_size=1, max_size=4), st.booleans())
def test_a_broken_document_gives_a_schema_or_one_report(
    changes: list[tuple[tuple[Any, ...], Any]], alone: bool
) -> None:
    document = copy.deepcopy(default_document())
    for path, noise in changes:
        parent: Any = document
        for key in path[:-1]:
            parent = parent[key] if _has(parent, key) else None
        if _has(parent, path[-1]):
            parent[path[-1]] = noise
    if alone:
        document["extends"] = "none"
    try:
        schema = load_schema(document)
    except SchemaError as error:
        paths = [problem.path for problem in error.problems]
    else:
        assert load_schema(to_document(schema)) == schema
        return
    assert paths
    assert len(set(paths)) == len(paths)


def _has(parent: Any, key: Any) -> bool:
    if isinstance(parent, dict):
        return key in parent
    return isinstance(parent, list) and isinstance(key, int) and key < len(parent)


@given(st.text(max_size=60) | st.text("abc:{}[]- \n\"'&*!|#,1", max_size=60))
def test_any_text_is_a_schema_or_one_report(text: str) -> None:
    try:
        schema = load_schema(text + "\n")  # a line break: never the name of a file
    except SchemaError:
        return
    assert load_schema(to_document(schema)) == schema


def test_the_default_document_is_the_default_schema() -> None:
    assert load_schema(default_document()) == default_schema() == load_schema("name: tidal\n")
