"""From a query to a plan: names against the schema, defaults, and a refusal of what is not served."""

from __future__ import annotations

from typing import Final

from queryd.errors import LimitExceeded, NotServed, QueryError, nearest_name
from queryd.language.ast import Query
from queryd.language.parse import from_predicate_error
from queryd.plan.ordering import check_measures, make_order, order_sources, signal_with_window
from queryd.plan.plan import POOL_DEFAULT, Fusion, Order, Plan
from queryd.ranking.sort_modes import (
    COUNTING_MEASURES,
    MEASURE_NAMES,
    SIGNAL_MEASURES,
    SORT_MODES,
    WINDOWED_MEASURES,
)
from schemas.durations import WINDOWS
from schemas.errors import PredicateError
from schemas.model import Profile, Schema, SourceRef, Term
from schemas.predicate import And, Predicate, check, parse_predicate
from schemas.sort_names import MEASURED_SOURCES

SOURCES_SERVED: Final = (
    "trending",
    "newest",
    "following",
    "preference_neighbours",
    "item_neighbours",
    "text",
    "matching",
    *MEASURED_SOURCES,
)
_SCOPE_SOURCES: Final = {
    "trending": "trending",
    "following": "following",
    "similar": "item_neighbours",
    "liked": "newest",
    "saved": "newest",
    "creator": "newest",
}
_USER_SCOPES: Final = ("following", "liked", "saved")
_USER_SOURCES: Final = ("following", "preference_neighbours")
DEFAULT_PROFILES: Final = ("for_you", "trending")
_BASE_ONLY: Final = (Term(term="base"),)


def make_plan(query: Query, schema: Schema) -> Plan:
    """The plan of ``query`` under ``schema``.

    Raises:
        QueryError: an unknown name (with the nearest valid one), clauses that contradict each other, or a
            clause that could have no effect.
        NotServed: what this version does not answer.
        LimitExceeded: LIMIT past the schema's ``max_query_limit``.
    """
    _refuse_unserved(query)
    if not 1 <= query.limit <= schema.limits.max_query_limit:
        raise LimitExceeded("max_query_limit", query.limit, schema.limits.max_query_limit)
    _check_fields(query, schema)
    if query.window is not None:
        _check_window(query.window)
    order = None if query.sort is None else make_order(query, schema, usual_signal(schema))
    profile = _profile(query, schema) if order is None else _sort_profile(query, order, schema)
    signal, window = _trend(query, profile, order, schema)
    sources = _sources(query, profile) if order is None else order_sources(query, order)
    if order is None:
        check_measures([source.source for source in sources], window, schema)
    plan = Plan(
        query=query,
        profile=profile,
        signal=signal,
        window=window,
        cohort=_cohort(query, schema),
        filter=_filter(query, profile, schema),
        sources=sources,
        terms=profile.terms or _BASE_ONLY,
        fusion="none" if order is not None and order.measure in MEASURE_NAMES else _fusion(query, sources),
        fill=query.within is None and query.verb == "retrieve" and len(sources) > 1,
        within=query.within,
        diversity=query.diversity or profile.diversity,
        order=order,
        limit=query.limit,
    )
    _refuse_idle_clauses(plan)
    _check_user(plan)
    return plan


def _refuse_unserved(query: Query) -> None:
    if query.entities != "items":
        raise NotServed(f"{query.verb.upper()} {query.entities} is not served yet", expected=["items"])
    if query.verb == "retrieve" and (query.text is not None or query.vector or query.like is not None):
        raise QueryError("QUERY, VECTOR and LIKE belong to SEARCH", expected=["SEARCH items"])
    if query.verb == "search" and query.text is None and not query.vector and query.like is None:
        raise QueryError("SEARCH needs something to search for", expected=["QUERY", "VECTOR", "LIKE"])
    rules = query.diversity
    if rules is not None and (rules.format_mix or rules.mmr is not None):
        name = "mmr" if rules.mmr is not None else "format_mix"
        raise NotServed(
            f"DIVERSITY {name} is not served yet", expected=["max_per_creator", "max_per_category"]
        )


def _check_fields(query: Query, schema: Schema) -> None:
    known = {"id", "creator", "status", *schema.entities["item"].fields}
    for name in query.fields:
        if name not in known and schema.entities["item"].strict:
            raise QueryError(
                f"items have no field {name!r}", expected=sorted(known), nearest=nearest_name(name, known)
            )


def _profile(query: Query, schema: Schema) -> Profile:
    if query.profile is None:
        return _default_profile(query, schema)
    try:
        profile = schema.profile(query.profile)
    except KeyError:
        known = [*schema.profiles, *(f"{each.name}@{each.version}" for each in schema.profile_versions)]
        raise QueryError(
            f"there is no profile {query.profile!r}",
            expected=sorted(schema.profiles),
            nearest=nearest_name(query.profile, known),
        ) from None
    _refuse_unserved_profile(profile)
    return profile


def _sort_profile(query: Query, order: Order, schema: Schema) -> Profile:
    """The profile that SORT BY stands for. WITHIN TRENDING has a signal and a window of its own."""
    usual = usual_signal(schema)
    counted = schema.signal_list[order.signals[0]].name if order.signals else usual
    trends = _within_trending(query)
    return Profile(
        name=f"sort:{order.mode}",
        signal=query.signal or usual if trends else counted,
        window=query.window or "24h" if trends else order.window,
        terms=_BASE_ONLY,
        normalize="none",
    )


def _default_profile(query: Query, schema: Schema) -> Profile:
    """Without a profile: a search ranks by its own lists, a user's page by for_you, all else by trend."""
    if query.verb == "search":
        return Profile(name="search", signal=usual_signal(schema), terms=_BASE_ONLY, normalize="none")
    wanted = DEFAULT_PROFILES if query.user is not None else DEFAULT_PROFILES[1:]
    for name in wanted:
        if name in schema.profiles:
            _refuse_unserved_profile(schema.profiles[name])
            return schema.profiles[name]
    raise QueryError(
        "the query names no profile, and the schema has none called trending", expected=["USING PROFILE"]
    )


def usual_signal(schema: Schema) -> str:
    """What trends count when nothing says otherwise: as the trending profile does, else the first signal."""
    trending = schema.profiles.get("trending")
    return next(iter(schema.signals)) if trending is None else trending.signal


def _refuse_unserved_profile(profile: Profile) -> None:
    where = f"profile {profile.name}@{profile.version}"
    if profile.composition != "sum":
        raise NotServed(f"{where}: composition {profile.composition!r} is not served yet", expected=["sum"])
    for source in profile.sources:
        if source.source not in SOURCES_SERVED:
            raise NotServed(f"{where}: source {source.source!r} is not served yet", expected=SOURCES_SERVED)
    for term in profile.terms:
        if term.scope == "creator":
            raise NotServed(
                f"{where}: terms at creator scope are not served yet", expected=["global", "cohort"]
            )
    rules = profile.diversity
    if rules is not None and (rules.format_mix or rules.mmr is not None):
        raise NotServed(
            f"{where}: diversity by format_mix or mmr is not served yet", expected=["max_per_creator"]
        )


def _check_window(name: str) -> None:
    if name not in WINDOWS:
        raise QueryError(
            f"{name!r} is no window", expected=list(WINDOWS), nearest=nearest_name(name, WINDOWS)
        )


def _trend(query: Query, profile: Profile, order: Order | None, schema: Schema) -> tuple[int, str]:
    """The signal and the window that trends count, in WITHIN TRENDING and in sources."""
    if order is not None and not _within_trending(query):
        return schema.signal_index[profile.signal], profile.window
    window = query.window or profile.window
    return signal_with_window(query.signal or profile.signal, window, schema), window


def _within_trending(query: Query) -> bool:
    return query.within is not None and query.within.kind == "trending"


def _sources(query: Query, profile: Profile) -> tuple[SourceRef, ...]:
    if query.verb == "search":
        return _search_sources(query)
    if query.within is not None:
        source = _SCOPE_SOURCES[query.within.kind]
        pools = [ref.limit for ref in profile.sources if ref.source == source]
        return (SourceRef(source=source, limit=pools[0] if pools else POOL_DEFAULT),)
    return profile.sources or (SourceRef(source="trending"),)


def _search_sources(query: Query) -> tuple[SourceRef, ...]:
    names = []
    if query.text is not None:
        names.append("text")
    if query.vector or query.like is not None:
        names.append("item_neighbours")
    if query.within is not None and query.within.kind == "trending":
        names.append("trending")
    return tuple(SourceRef(source=name) for name in names)


def _fusion(query: Query, sources: tuple[SourceRef, ...]) -> Fusion:
    return "rrf" if query.verb == "search" and len(sources) > 1 else "none"


def _cohort(query: Query, schema: Schema) -> Predicate | None:
    if query.cohort is None:
        return None
    try:
        return check(query.cohort, schema, "cohort")
    except PredicateError as error:
        raise from_predicate_error(error) from None


def _filter(query: Query, profile: Profile, schema: Schema) -> Predicate | None:
    parts: list[Predicate] = []
    try:
        if query.filter is not None:
            parts.append(check(query.filter, schema, "item"))
        parts += [check(parse_predicate(gate), schema, "item") for gate in profile.gates]
    except PredicateError as error:
        raise from_predicate_error(error) from None
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _refuse_idle_clauses(plan: Plan) -> None:
    """A clause that could change nothing is a mistake of the asker's, not ours to ignore."""
    query, order = plan.query, plan.order
    trends = _within_trending(query)
    mode = None if order is None else SORT_MODES[order.mode]
    read = {source.source for source in plan.sources} | ({order.measure} if order is not None else set())
    counts_cohort = any(term.scope == "cohort" for term in plan.terms)
    takes_signal = bool(read & SIGNAL_MEASURES) and (mode is None or mode.takes_signal)
    takes_window = bool(read & WINDOWED_MEASURES) and (mode is None or not mode.fixed)
    for clause, given, used in (
        ("COHORT", query.cohort is not None, trends or counts_cohort or read & COUNTING_MEASURES),
        ("SIGNAL", query.signal is not None, trends or takes_signal),
        ("WINDOW", query.window is not None, trends or counts_cohort or takes_window),
    ):
        if given and not used:
            raise QueryError(
                f"{clause} changes nothing here: nothing in this query reads it",
                expected=["WITHIN TRENDING", "a profile with a trending source"],
            )


def _check_user(plan: Plan) -> None:
    query = plan.query
    if query.user is not None:
        return
    if query.within is not None and query.within.kind in _USER_SCOPES:
        raise QueryError(f"WITHIN {query.within.kind.upper()} is about a user", expected=["FOR USER @id"])
    if all(source.source in _USER_SOURCES for source in plan.sources):
        raise QueryError(f"profile {plan.profile.name} needs a user", expected=["FOR USER @id"])
