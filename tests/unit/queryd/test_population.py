"""Sizes of cohorts from columns of users: whatever came, went and changed, as a plain count has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from materializers.rows.entities import EntityChange
from queryd.hot import population as module
from queryd.hot.arrays import U64
from queryd.hot.population import Population
from schemas.ids import entity_id
from schemas.model import Schema
from schemas.predicate import check, parse_predicate
from streams.partitioner import partition_for
from tests.engine_site import PARTITIONS, Site, small_schema

SCHEMA = small_schema()
COHORTS = {
    "locale:US": lambda user: user.get("locale") == "US",
    "NOT locale:US": lambda user: user.get("locale") != "US",
    "locale:US AND age:18-24": lambda user: user.get("locale") == "US" and 18 <= user.get("age", 0) <= 24,
    "locale EXISTS OR gender != F": lambda user: "locale" in user or user.get("gender", "F") != "F",
}


class Fans:
    """A segment whose members the test names."""

    def __init__(self, *members: str) -> None:
        self._members = members

    def members(self, name: str) -> U64:
        return np.array([entity_id(member) for member in self._members], dtype=np.uint64)


def counted(population: Population, schema: Schema, cohort: str) -> int:
    return population.count(check(parse_predicate(cohort), schema, "cohort"))


def change(user: str, record: dict[str, Any] | None) -> EntityChange:
    raw = None if record is None else json.dumps({"id": user, **record}).encode()
    return EntityChange("user", user, 0, 0, raw)


USERS = st.fixed_dictionaries(
    {},
    optional={
        "locale": st.sampled_from(["US", "DE", ""]),
        "age": st.sampled_from([17, 18, 24, 25]),
        "gender": st.sampled_from(["F", "M"]),
        "status": st.sampled_from(["active", "deleted"]),
    },
)
STEPS = st.lists(st.tuples(st.sampled_from([f"u{n}" for n in range(12)]), st.none() | USERS), max_size=40)


def _values(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value != ""}


@settings(max_examples=25)
@given(before=STEPS, after=STEPS, tail_max=st.sampled_from([0, 3, 100]))
async def test_sizes_equal_a_plain_count(
    before: list[tuple[str, Any]],
    after: list[tuple[str, Any]],
    tail_max: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    site = Site(tmp_path_factory.mktemp("site"), SCHEMA)
    users: dict[str, dict[str, Any]] = {}
    for user, record in before:
        if record is not None:
            site.user(user, **record)
            users[user] = record
    site.flush()
    population = Population(site.tables, SCHEMA, PARTITIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TAIL_MAX", tail_max)
        patch.setattr(module, "_ROWS_AT_ONCE", 2)
        await population.load()
        for user, record in after:
            population.apply(_home(user), [change(user, record)])
            users.pop(user, None)
            users |= {} if record is None else {user: record}
    alive = [_values(user) for user in users.values() if user.get("status") != "deleted"]
    for cohort, belongs in COHORTS.items():
        assert counted(population, SCHEMA, cohort) == sum(map(belongs, alive)), cohort


def _home(user: str) -> int:
    return partition_for(user.encode(), PARTITIONS)


async def test_segments_are_asked_of_whoever_keeps_them(tmp_path: Path) -> None:
    schema = small_schema(cohorts={"fans": "locale:US"})
    site = Site(tmp_path, schema)
    for user, locale in (("ann", "US"), ("bob", "US"), ("eve", "DE")):
        site.user(user, locale=locale)
    site.flush()
    population = Population(site.tables, schema, PARTITIONS, Fans("ann", "eve", "nobody"))
    await population.load()
    for cohort, size in (
        ("jazz", 3),
        ("NOT jazz", 1),
        ("jazz AND locale:US", 1),
        ("locale:US AND NOT jazz", 1),
        ("jazz OR locale:US", 4),
        ("jazz AND NOT locale EXISTS", 1),
    ):
        assert population.count(parse_predicate(cohort)) == size, cohort


async def test_numbers_truths_and_words_that_look_alike_are_not_one_value(tmp_path: Path) -> None:
    schema = small_schema(
        entities={"user": {"fields": {"plan": "keyword"}, "dimensions": {"plan": {"field": "plan"}}}}
    )
    population = Population(Site(tmp_path, schema).tables, schema, PARTITIONS)
    await population.load()
    population.apply(0, [change("a", {"plan": True}), change("b", {"plan": 1}), change("c", {"plan": "1"})])
    assert [counted(population, schema, f'plan:"{value}"') for value in ("true", "1")] == [1, 2]


async def test_a_partition_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    site = Site(tmp_path, SCHEMA)
    for number in range(20):
        site.user(f"u{number}", locale="US")
    site.flush()
    population = Population(site.tables, SCHEMA, PARTITIONS)
    assert not population.loaded
    await population.load()
    assert counted(population, SCHEMA, "locale:US") == 20
    population.drop(1)
    assert counted(population, SCHEMA, "locale:US") < 20
    await population.load()
    assert counted(population, SCHEMA, "locale:US") == 20
