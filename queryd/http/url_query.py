"""A query by URL parameters: the keys of the JSON form, with the values that a URL cannot nest made flat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from queryd.http.route import Parameter
from queryd.language.ast import SCOPES_WITH_TARGET

Verb = Literal["retrieve", "search", "suggest"]

_SHARED = (
    Parameter("for_user", "for whom the page is"),
    Parameter("using_profile", "ranking profile, `name` or `name@version`"),
    Parameter("filter", "predicate over items and the user's states, such as `unseen, format:video`"),
    Parameter("within", "`trending`, `following`, `liked`, `saved`, `similar:ITEM` or `creator:CREATOR`"),
    Parameter("cohort", "a declared cohort or a predicate, such as `locale:US, age:18-24`"),
    Parameter("signal", "the signal that `within=trending` counts"),
    Parameter("window", "the window of trends: 1h, 24h, 7d, 30d or all_time"),
    Parameter("sort_by", "a built-in sort mode, instead of a profile"),
    Parameter("max_per_creator", "rows of one creator before those of others come first", type=int, low=1),
    Parameter("max_per_category", "rows of one category before those of others come first", type=int, low=1),
    Parameter("fields", "record fields to return with each result", many=True),
    Parameter("limit", "rows of the page", type=int, low=1),
    Parameter("cursor", "where the page before ended"),
    Parameter("after", "position token of a write that the page must reflect"),
    Parameter("as_of", "the time to rank at: ms since the epoch, or ISO 8601"),
    Parameter("seed", "seed of everything random", type=int, low=0),
    Parameter(
        "explain", "`plan`, or `analyze` to run it and report on each stage", choices=("plan", "analyze")
    ),
)
RETRIEVE_PARAMETERS = (
    Parameter("entities", "what to retrieve; items by default", choices=("items", "creators", "users")),
    *_SHARED,
)
SEARCH_PARAMETERS = (
    Parameter("query", "the text to search for", required=True),
    Parameter("entities", "what to search; items by default", choices=("items", "creators")),
    Parameter("like", "id of an item to which results should be similar"),
    *_SHARED,
)
SUGGEST_PARAMETERS = (
    Parameter("prefix", "what has been typed so far", required=True),
    Parameter("for_user", "for whom"),
    Parameter("limit", "suggestions at most", type=int, low=1),
)

_DIVERSITY = ("max_per_creator", "max_per_category")


def query_of_parameters(verb: Verb, given: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON form of the query that these parameters state."""
    form: dict[str, Any] = {verb: given.get("entities", "items")}
    form |= {name: value for name, value in given.items() if name not in ("entities", *_DIVERSITY)}
    diversity = {name: given[name] for name in _DIVERSITY if name in given}
    if diversity:
        form["diversity"] = diversity
    if "within" in form:
        form["within"] = _scope(form["within"])
    return form


def _scope(text: str) -> str | dict[str, str]:
    kind, colon, target = text.partition(":")
    return {kind: target} if colon and kind in SCOPES_WITH_TARGET else text
