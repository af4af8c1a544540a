"""A query written in Python: each method adds one clause and returns a new builder, which clients take.

    retrieve("items").for_user("u1").using("for_you").filter("unseen").within_trending() \
        .cohort("locale:US, age:18-24").diversity(max_per_creator=2).limit(50)
"""

from __future__ import annotations

from typing import Any, Self

import msgspec

from queryd.language.ast import Entities, Query, Within
from queryd.language.json_form import from_json
from queryd.language.parse import from_predicate_error
from queryd.language.text import to_text
from schemas.errors import PredicateError
from schemas.model import Diversity
from schemas.predicate import Predicate, parse_predicate


def retrieve(entities: Entities = "items") -> QueryBuilder:
    """Begin ``RETRIEVE entities``."""
    return QueryBuilder(Query(verb="retrieve", entities=entities))


def search(text: str, entities: Entities = "items") -> QueryBuilder:
    """Begin ``SEARCH entities QUERY "text"``."""
    return QueryBuilder(Query(verb="search", entities=entities, text=text))


class QueryBuilder:
    """Clauses so far; immutable, so that a half-built query can be shared.

    Raises (from the methods that take a predicate):
        QueryError: it does not parse.
    """

    def __init__(self, query: Query) -> None:
        self._query = query

    def build(self) -> Query:
        """The query."""
        return self._query

    def text(self) -> str:
        """The same query in the query language."""
        return to_text(self._query)

    def for_user(self, user: str) -> Self:
        return self._with(user=user)

    def using(self, profile: str) -> Self:
        """``USING PROFILE``: ``name`` or ``name@version``."""
        return self._with(profile=profile)

    def filter(self, predicate: str | Predicate) -> Self:
        return self._with(filter=_predicate(predicate))

    def within_trending(self) -> Self:
        return self._with(within=Within("trending"))

    def within_following(self) -> Self:
        return self._with(within=Within("following"))

    def within_liked(self) -> Self:
        return self._with(within=Within("liked"))

    def within_saved(self) -> Self:
        return self._with(within=Within("saved"))

    def within_similar_to(self, item: str) -> Self:
        return self._with(within=Within("similar", item))

    def within_creator(self, creator: str) -> Self:
        return self._with(within=Within("creator", creator))

    def cohort(self, predicate: str | Predicate) -> Self:
        return self._with(cohort=_predicate(predicate))

    def signal(self, name: str) -> Self:
        return self._with(signal=name)

    def window(self, name: str) -> Self:
        return self._with(window=name)

    def sort_by(self, mode: str) -> Self:
        return self._with(sort=mode)

    def diversity(self, **rules: Any) -> Self:
        """``max_per_creator=2``, ``max_per_category=3``, ``format_mix={…}``, ``mmr=0.3``."""
        checked = from_json({"retrieve": "items", "diversity": rules}).diversity
        return self._with(diversity=checked or Diversity())

    def fields(self, *names: str) -> Self:
        return self._with(fields=names)

    def limit(self, count: int) -> Self:
        return self._with(limit=count)

    def cursor(self, cursor: str) -> Self:
        return self._with(cursor=cursor)

    def after(self, token: str) -> Self:
        return self._with(after=token)

    def as_of(self, at_ms: int) -> Self:
        return self._with(as_of_ms=at_ms)

    def seed(self, seed: int) -> Self:
        return self._with(seed=seed)

    def explain(self, *, analyze: bool = False) -> Self:
        return self._with(explain="analyze" if analyze else "plan")

    def _with(self, **clause: Any) -> Self:
        return type(self)(msgspec.structs.replace(self._query, **clause))


def _predicate(predicate: str | Predicate) -> Predicate:
    if not isinstance(predicate, str):
        return predicate
    try:
        return parse_predicate(predicate)
    except PredicateError as error:
        raise from_predicate_error(error) from None
