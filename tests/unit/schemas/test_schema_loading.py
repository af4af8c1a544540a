"""A schema document: its forms, what the default adds, and the one report of everything that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas.builder import SchemaBuilder
from schemas.default import default_schema
from schemas.errors import Problem, SchemaError
from schemas.ids import code_of
from schemas.loading import load_schema, to_document
from schemas.model import Schema
from schemas.predicate import And, Comparison

SITE = """
name: my_site
entities:
  item:
    fields: {title: text, tags: tags, category: keyword, format: keyword, duration_s: float, created_at: time}
    embeddings: {content: {dim: 384, metric: cosine}}
  user:
    fields: {locale: keyword, language: keyword, age: int, gender: keyword}
    dimensions:
      locale: {field: locale}
      language: {field: language}
      age: {field: age, buckets: {13-17: [13, 17], 18-24: [18, 24], 55+: [55, null]}}
  creator: {fields: {name: text, country: keyword}}
signals:
  view: {category: exposure, polarity: 1, decay: {exponential: [1h, 24h, 7d]},
         windows: [1h, 24h, 7d, 30d, all_time],
         state: seen, relationship: {interaction_weight: 0.02}, preference: 0.05}
  unlike: {category: negative, polarity: -1, decay: none, windows: [24h, all_time], clears: liked}
relationships:
  {follows: {explicit: true}, blocks: {explicit: true, hides: true}, interaction_weight: {half_life: 30d}}
states: [seen, liked, saved, hidden, completed, in_progress, reported]
segments: {jazz_fans: "count(like, category = jazz, 30d) >= 5"}
cohorts: {young_us: "locale:US, age:18-24"}
profiles: {my_trending: {extends: trending, version: 1, window: 24h}}
limits: {max_query_limit: 500, min_cohort_size: 0}
"""


def problems_of(text: str) -> dict[str, Problem]:
    with pytest.raises(SchemaError) as caught:
        load_schema(text)
    return {problem.path: problem for problem in caught.value.problems}


def test_the_documented_form_is_valid_and_complete() -> None:
    schema = load_schema(SITE)
    assert schema.name == "my_site"
    assert schema.signals["view"].decay.half_lives_ms == (3_600_000, 86_400_000, 604_800_000)
    assert schema.signals["view"].decay.labels == ("1h", "24h", "7d")
    assert schema.signals["unlike"].clears == ("liked",)
    assert schema.relationships["blocks"].hides
    assert schema.cohorts["young_us"].predicate == And(
        (Comparison("locale", "=", "US"), Comparison("age", "=", "18-24"))
    )
    assert schema.profile("my_trending").sources == default_schema().profile("trending").sources
    assert {"like", "skip", "share", "completion", "dwell_time"} <= set(schema.signals)  # from the default


REGISTRY = {
    "exposure": "impression view open preview play_start scroll_past notification_open autoplay",
    "consumption": "dwell_time watch_time read_depth completion replay download listen pause resume",
    "positive": "like love save share comment reply repost rate follow_from_item add_to_list purchase"
    " click_through subscribe",
    "negative": "skip dislike hide not_interested unlike unsave mute_creator block_creator report bounce",
    "discovery": "search_click suggestion_accept profile_visit related_click share_receive",
}
BUILT_IN_NEEDS = {
    "view": 0.02,
    "like": 0.15,
    "skip": -0.05,
    "share": 0.25,
    "completion": 0.10,
    "dwell_time": None,
}


@pytest.mark.parametrize("category", REGISTRY)
def test_the_default_registry_has_every_signal_of_a_category(category: str) -> None:
    found = {signal.name for signal in default_schema().signal_list if signal.category == category}
    assert found == set(REGISTRY[category].split())


def test_what_one_signal_does_another_takes_back() -> None:
    signals = default_schema().signals
    for undo, done in (("unlike", "like"), ("unsave", "save"), ("dislike", "love")):
        assert signals[undo].clears == signals[done].state
        assert signals[undo].polarity == -1


def test_the_default_schema_has_what_every_site_needs() -> None:
    schema = default_schema()
    assert list(schema.signals)[:6] == list(BUILT_IN_NEEDS)
    assert [signal.name for signal in schema.signal_list] == list(schema.signal_index)
    assert all(signal.code == code_of(name) for name, signal in schema.signals.items())
    deltas = {name: signal.relationship.get("interaction_weight") for name, signal in schema.signals.items()}
    assert {name: deltas[name] for name in BUILT_IN_NEEDS} == BUILT_IN_NEEDS
    assert (deltas["hide"], deltas["block_creator"]) == (-0.30, -1.0)
    assert schema.signals["skip"].preference < 0 < schema.signals["like"].preference
    assert set(schema.dimensions) == {"locale", "language", "gender", "age"}
    assert [term.term for term in schema.profile("trending").terms] == ["base"]
    assert {"personalization", "relationship", "base", "recency"} <= {
        term.term for term in schema.profile("for_you").terms
    }


def test_yaml_json_python_and_a_file_give_the_same_schema(tmp_path: Path) -> None:
    built = (
        SchemaBuilder("films")
        .item(fields={"title": "text", "genres": "tags"})
        .user(fields={"gender": "keyword"}, dimensions={"gender": {}})
        .signal(
            "rate", category="positive", polarity=1, decay={"exponential": ["24h"]}, windows=("all_time",)
        )
        .relationship("likes", explicit=True)
        .state("watched")
        .segment("critics", "count(rate, 30d) >= 5")
        .cohort("women", "gender:F")
        .profile("mine", extends="trending")
        .profile("mine", extends="mine@1", version=2, window="7d")
        .limits(max_query_limit=100)
    )
    text = """
    name: films
    entities:
      item: {fields: {title: text, genres: tags}}
      user: {fields: {gender: keyword}, dimensions: {gender: {}}}
    signals: {rate: {category: positive, polarity: 1, decay: {exponential: 24h}, windows: [all_time]}}
    relationships: {likes: {explicit: true}}
    states: [watched]
    segments: {critics: "count(rate, 30d) >= 5"}
    cohorts: {women: "gender:F"}
    profiles: {mine: [{extends: trending}, {extends: mine@1, version: 2, window: 7d}]}
    limits: {max_query_limit: 100}
    """
    schema = built.build()
    assert load_schema(text) == schema
    assert load_schema(json.dumps(built.document())) == schema
    assert load_schema(json.dumps(built.document(), indent="\t")) == schema
    file = tmp_path / "films.yaml"
    file.write_text(text)
    assert load_schema(file) == load_schema(str(file)) == schema


def test_what_a_document_leaves_out_is_the_defaults() -> None:
    schema = load_schema({"entities": {"user": {"fields": {"locale": "keyword", "city": "keyword"}}}})
    assert list(schema.dimensions) == ["locale"]  # those of the default whose field is still there
    assert schema.entities["item"] == default_schema().entities["item"]
    assert schema.signals == default_schema().signals
    joined = load_schema({"states": ["watched", "seen"]})
    assert list(joined.states) == [*default_schema().states, "watched"]


def test_extends_none_starts_from_nothing() -> None:
    schema = load_schema("extends: none\nsignals: {ping: {}}")
    assert list(schema.signals) == ["ping"]
    assert (schema.states, schema.profiles, schema.relationships) == ({}, {}, {})
    assert problems_of("extends: nothing")["extends"].value == "nothing"


def test_every_problem_is_in_one_report() -> None:
    found = problems_of(
        """
        limit: {}
        entities: {user: {fields: {age: integer}, dimensions: {zone: {field: zon}}}, usr: {}}
        signals:
          vew: {categry: x, decay: {exponential: [1h, 3x]}, windows: [2h], state: sen, polarity: 3}
          9lives: {}
          click: {decay: often, preference: .nan, value_range: [2, 1],
                  relationship: {follows: 0.5, interation_weight: 1}}
        cohorts: {a: "locle:US", b: "zone:", c: c, d: 5}
        segments: {seen: "x"}
        relationships: {knows: {half_life: -3d}}
        profiles:
          p: {extends: trendin, sources: [tending], terms: [{term: signal, signal: lik, read: count}]}
        limits: {max_query_limit: 0}
        """
    )
    assert found["limit"].nearest == "limits"
    assert found["entities.usr"].nearest == "user"
    assert found["entities.user.fields.age"].value == "integer"
    assert found["entities.user.dimensions.zone.field"].expected == "a declared field"
    assert found["signals.vew.categry"].nearest == "category"
    assert found["signals.vew.decay.exponential[1]"].value == "3x"
    assert found["signals.vew.windows[0]"].value == "2h"
    assert found["signals.vew.state"].nearest == "seen"
    assert found["signals.vew.polarity"].value == 3
    assert "signals.9lives" in found
    assert found["signals.click.decay"].expected.startswith("none, {exponential")
    assert "implicit" in found["signals.click.relationship.follows"].expected
    assert found["signals.click.relationship.interation_weight"].nearest == "interaction_weight"
    assert "signals.click.preference" in found
    assert found["signals.click.value_range"].expected == "low <= high"
    assert "no declared dimension" in found["cohorts.a"].expected
    assert "line 1, column 6" in found["cohorts.b"].expected
    assert "defined by itself" in found["cohorts.c"].expected
    assert found["cohorts.d"].value == 5
    assert found["segments.seen"].expected == "a name that is not also in states"
    assert "relationships.knows.half_life" in found
    assert found["profiles.p.extends"].nearest == "trending"
    assert found["profiles.p.sources[0]"].nearest == "trending"
    assert found["profiles.p.terms[0].signal"].nearest == "like"
    assert "limits.max_query_limit" in found
    assert len(found) == 25


def test_what_readers_do_not_keep_apart_is_refused() -> None:
    found = problems_of(
        """
        signals:
          wane: {decay: {linear: 31d}}
          fine: {decay: {linear: 30d}}
        limits: {hour_buckets_kept_ms: 2764799999}
        """
    )
    assert found["signals.wane.decay.linear"].expected.startswith("at most 30d")
    assert "32 days" in found["limits.hour_buckets_kept_ms"].expected
    assert len(found) == 2


def test_a_decay_term_names_a_score_of_its_signal() -> None:
    def terms(half_life: str) -> str:
        return f"""
        signals: {{wane: {{decay: {{linear: 4d}}, windows: [24h]}}, sum: {{decay: none}}}}
        profiles:
          p:
            sources: [newest]
            terms:
              - {{term: signal, signal: wane, read: decay{half_life}}}
              - {{term: signal, signal: sum, read: decay}}
        """

    schema = load_schema(terms(""))
    assert load_schema(terms(", half_life: 4d")).signals == schema.signals
    assert schema.signals["wane"].decay.scores == ("4d",)
    assert schema.signals["sum"].decay.scores == ("all_time",)
    assert schema.signals["view"].decay.scores == ("1h", "24h", "7d")
    found = problems_of(terms(", half_life: 5d"))
    assert found["profiles.p.terms[0].half_life"].expected == "a decayed score of wane: 4d"


def test_a_signal_may_set_and_clear_several_states() -> None:
    schema = load_schema("signals: {adore: {state: [seen, liked], clears: hidden}, plain: {clears: []}}")
    assert schema.signals["adore"].state == ("seen", "liked")
    assert schema.signals["adore"].clears == ("hidden",)
    assert schema.signals["plain"].state == schema.signals["plain"].clears == ()
    assert load_schema(to_document(schema)) == schema


def test_an_implicit_edge_says_what_it_leads_to() -> None:
    schema = load_schema("relationships: {fondness: {target: item, half_life: 7d}, trust: {}}")
    assert [schema.relationships[name].target for name in ("fondness", "trust")] == ["item", "creator"]
    assert schema.relationships["engagement_affinity"].target == "item"
    assert load_schema(to_document(schema)) == schema


def test_edges_states_and_co_engagement_that_make_no_sense_are_named() -> None:
    found = problems_of(
        """
        relationships:
          knows: {explicit: true, target: item}
          shuns: {hides: true}
          likes: {target: itm}
        signals:
          both: {state: [seen, liked], clears: [liked]}
          twice: {state: [seen, seen]}
          odd: {state: 5, clears: [sen]}
        co_engagement: [liked, savd]
        """
    )
    assert "any two entities" in found["relationships.knows.target"].expected
    assert "users write" in found["relationships.shuns.hides"].expected
    assert found["relationships.likes.target"].nearest == "item"
    assert "does not set as well" in found["signals.both.clears"].expected
    assert found["signals.twice.state"].expected == "each name once"
    assert found["signals.odd.state"].expected == "a list"
    assert found["signals.odd.clears"].nearest == "seen"
    assert found["co_engagement"].nearest == "saved"


def test_roles_name_signals_and_sources_that_count_them_need_them() -> None:
    schema = load_schema("signals: {clap: {windows: [24h]}}\nroles: {liked: [like, clap], dwelt: null}")
    assert schema.roles["liked"] == ("like", "clap")
    assert schema.roles["viewed"] == ("view",), "what is not given is the default's"
    assert "dwelt" not in schema.roles
    assert load_schema(to_document(schema)) == schema
    assert SchemaBuilder().role("shared", "share", "repost").build().roles["shared"] == ("share", "repost")
    found = problems_of(
        """
        roles: {liked: [lke], adored: like, dwelt: null, commented: unlike}
        profiles:
          stays: {sources: [dwell]}
          talked_about: {window: 7d, sources: [discussed]}
        """
    )
    assert found["roles.liked"].nearest == "like"
    assert "liked" in found["roles.adored"].expected, "a role that no sort mode knows"
    assert "roles: {dwelt: NAME}" in found["profiles.stays.sources[0]"].expected
    assert "a window of unlike" in found["profiles.talked_about.sources[0]"].expected


def test_the_report_reads_as_path_value_expectation_and_hint() -> None:
    with pytest.raises(SchemaError) as caught:
        load_schema("signals: {ping: {state: sen}}")
    assert str(caught.value) == (
        "the schema has 1 problem:\n"
        "  signals.ping.state: 'sen' – expected a declared state; did you mean 'seen'?"
    )


@pytest.mark.parametrize(
    "text, path, words",
    [
        ("signals:\n  view: {decay: [", "line 2, column 18", "valid YAML"),
        ("signals: {view: {}}\nsignals: {}\n", "line 2, column 1", "valid YAML"),
        ('{"name": "a", "name": "b"}', "name", "each key once"),
        ("name: &a x\nversion: *a", "line 2, column 10", "valid YAML"),
        ("- a\n- b", "", "a mapping"),
        ("name: !!python/object/apply:os.system [ls]\n", "line 1, column 7", "valid YAML"),
        ("[" * 5_000 + "\n", "", "nesting"),
    ],
)
def test_text_that_is_no_document_says_where(text: str, path: str, words: str) -> None:
    found = problems_of(text)
    assert path in found
    assert words in found[path].expected


def test_yaml_reads_words_as_words() -> None:
    """``no`` is Norway's locale and not false, ``1:30`` is no number to the base of sixty."""
    text = (
        "entities: {user: {fields: {age: int}, dimensions: {age: {buckets: {no: [0, 9], 1:30: [10, 30]}}}}}"
    )
    assert load_schema(text).dimensions["age"].labels == ("no", "1:30")


@pytest.mark.parametrize(
    "profiles, path",
    [
        ("{a: {extends: b}, b: {extends: a}}", "profiles.b.extends"),
        ("{a: {extends: a}}", "profiles.a.extends"),
        ("{a: {extends: trending@7}}", "profiles.a.extends"),
        ("{a: [{extends: trending}, {extends: trending}]}", "profiles.a[1].version"),
        ("{a: {extends: trending, window: 12h}}", "profiles.a.window"),
        ("{a: {extends: trending, gates: ['vew.count(24h) > 1']}}", "profiles.a.gates[0]"),
        ("{a: {extends: trending, terms: [{term: recency}]}}", "profiles.a.terms[0]"),
        (
            "{a: {extends: trending, terms: "
            "[{term: signal, signal: view, read: velocity, window: all_time}]}}",
            "profiles.a.terms[0].window",
        ),
        (
            "{a: {extends: trending, terms: [{term: signal, signal: view, read: decay, half_life: 2h}]}}",
            "profiles.a.terms[0].half_life",
        ),
        (
            "{a: {extends: trending, terms: [{term: signal, signal: like, read: ratio, window: 24h}]}}",
            "profiles.a.terms[0].over",
        ),
        ("{a: {}}", "profiles.a.sources"),
    ],
)
def test_a_profile_reads_only_what_the_engine_keeps(profiles: str, path: str) -> None:
    assert path in problems_of(f"profiles: {profiles}")


def test_profile_versions_are_kept_and_the_newest_is_meant_by_the_name() -> None:
    schema = load_schema("profiles: {a: [{extends: trending}, {version: 2, extends: a@1, window: 7d}]}")
    assert schema.profile("a").version == 2
    assert schema.profile("a@1").window == "24h"
    assert schema.profile("a@2").terms == schema.profile("trending").terms
    with pytest.raises(KeyError):
        schema.profile("a@3")


@pytest.mark.parametrize(
    "dimensions, path",
    [
        ("{age: {buckets: {a: [5, 1]}}}", "entities.user.dimensions.age.buckets.a"),
        ("{age: {buckets: {a: [0, 10], b: [9, 20]}}}", "entities.user.dimensions.age.buckets.b"),
        ("{age: {buckets: {a: [0, null], b: [9, 20]}}}", "entities.user.dimensions.age.buckets.b"),
        ("{age: {buckets: {a: [1]}}}", "entities.user.dimensions.age.buckets.a"),
        ("{locale: {buckets: {a: [0, 1]}}}", "entities.user.dimensions.locale.field"),
        ("{and: {field: locale}}", "entities.user.dimensions.and"),
    ],
)
def test_buckets_and_dimensions_make_sense(dimensions: str, path: str) -> None:
    text = f"entities: {{user: {{fields: {{locale: keyword, age: int}}, dimensions: {dimensions}}}}}"
    assert path in problems_of(text)


def test_only_users_have_dimensions_and_no_field_hides_a_built_in_one() -> None:
    found = problems_of("entities: {item: {fields: {status: keyword}, dimensions: {a: {}}}}")
    assert set(found) == {"entities.item.dimensions", "entities.item.fields.status"}


def test_names_with_one_code_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.ids.code_of", len)
    found = problems_of("signals: {veiw: {}}")
    assert "32-bit code" in found["signals.veiw"].expected


@pytest.mark.parametrize(
    "age, label",
    [
        (13, "13-17"),
        (24, "18-24"),
        (25, "25-34"),
        (30.5, "25-34"),
        (99, "55+"),
        ("18-24", "18-24"),
        (12, None),
        ("x", None),
        (None, None),
        (True, None),
        ("", None),
    ],
)
def test_the_bucket_of_a_value(age: object, label: str | None) -> None:
    assert default_schema().dimensions["age"].value_of({"age": age}) == label


def test_a_profile_string_is_canonical() -> None:
    schema = default_schema()
    attributes = {"locale": "US", "age": 21, "gender": "F", "shoe_size": 40}
    assert schema.profile_string(attributes) == '{"age":"18-24","gender":"F","locale":"US"}'
    assert schema.profile_string({"age": "18-24", "locale": "US"}) == schema.profile_string(
        {"locale": "US", "age": 18}
    )
    assert schema.profile_string({"locale": "日本"}) == '{"locale":"日本"}'
    assert schema.profile_string({}) == "{}"


def test_a_document_is_complete_in_itself() -> None:
    document = to_document(load_schema(SITE))
    assert document["extends"] == "none"
    loaded: Schema = load_schema(document)
    assert loaded == load_schema(SITE)
