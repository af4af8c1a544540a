"""SORT BY: what the page is ordered by, which signals that counts, and where its candidates come from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from queryd.errors import NotServed, QueryError, nearest_name
from queryd.hot.history import WINDOWS_WITH_PAST
from queryd.language.ast import Query
from queryd.plan.plan import POOL_DEFAULT, Order
from queryd.ranking.sort_modes import SEARCH_MODES, SIGNAL_MEASURES, SORT_MODES, SortMode
from schemas.durations import ALL_TIME, WINDOWS
from schemas.model import Schema, SourceRef
from schemas.sort_names import ROLES_OF_SOURCES

_WINDOWS_OF: Final = {
    "trending_relative": WINDOWS_WITH_PAST,
    "rising": tuple(name for name in WINDOWS if name != ALL_TIME),
    "evergreen": tuple(name for name in WINDOWS if name != ALL_TIME),
}
"""Windows of the measures that cannot have every one."""


def make_order(query: Query, schema: Schema, usual: str) -> Order:
    """The order of a query with SORT BY; ``usual`` is the signal that trends count.

    Raises:
        QueryError: an unknown mode (with the nearest valid one), one that the schema has no signals for, or
            one that does not go with the rest of the query.
    """
    name = query.sort or ""
    mode = SORT_MODES.get(name)
    if mode is None:
        raise NotServed(
            f"there is no sort mode {name!r} in this version",
            expected=sorted(SORT_MODES),
            nearest=nearest_name(name, SORT_MODES),
        )
    _refuse_misplaced(query, name, mode)
    window = mode.window or ALL_TIME
    if mode.window is not None and not mode.fixed and query.window is not None:
        window = query.window
    signals: tuple[int, ...] = ()
    if mode.source in SIGNAL_MEASURES:
        names = _counted_names(query, schema, name, mode, usual)
        signals = tuple(signal_with_window(each, window, schema) for each in names)
    check_measures([mode.source], window, schema)
    found_elsewhere = query.verb == "search" or (query.within is not None and query.within.kind == "similar")
    retrieves = not (mode.is_measure and found_elsewhere)
    return Order(mode=name, measure=mode.source, signals=signals, window=window, retrieves=retrieves)


def order_sources(query: Query, order: Order) -> tuple[SourceRef, ...]:
    """Where the candidates of a query with SORT BY come from."""
    if query.verb == "retrieve":
        name = order.measure if order.retrieves else "item_neighbours"
        return (SourceRef(source=name, limit=POOL_DEFAULT),)
    names = []
    if query.text is not None and order.mode != "semantic":
        names.append("text")
    if (query.vector or query.like is not None) and order.mode != "relevance":
        names.append("item_neighbours")
    if order.mode == "hybrid" and query.within is not None and query.within.kind == "trending":
        names.append("trending")
    return tuple(SourceRef(source=name) for name in names)


def check_measures(sources: Iterable[str], window: str, schema: Schema) -> None:
    """Whether each source can be read over ``window``, and the schema declares the roles that it counts.

    Raises:
        QueryError: it cannot, or a role has no signal.
    """
    for source in sources:
        allowed = _WINDOWS_OF.get(source)
        if allowed is not None and window not in allowed:
            raise QueryError(f"{source} has no window {window!r}", expected=allowed)
        for role in ROLES_OF_SOURCES.get(source, ()):
            for name in _signals_of(role, schema, source):
                signal_with_window(name, window, schema)


def signal_with_window(name: str, window: str, schema: Schema) -> int:
    """Index of the signal ``name``, which must have ``window``; all_time every one has.

    Raises:
        QueryError: it is not declared, or has no such window.
    """
    if name not in schema.signals:
        raise QueryError(
            f"no signal is called {name!r}",
            expected=sorted(schema.signals)[:20],
            nearest=nearest_name(name, schema.signals),
        )
    windows = schema.signals[name].windows
    if window not in windows and window != ALL_TIME:
        raise QueryError(f"the signal {name!r} has no window {window!r}", expected=windows)
    return schema.signal_index[name]


def _counted_names(query: Query, schema: Schema, name: str, mode: SortMode, usual: str) -> tuple[str, ...]:
    if mode.takes_signal and query.signal is not None:
        return (query.signal,)
    return (usual,) if mode.role is None else _signals_of(mode.role, schema, f"SORT BY {name}")


def _signals_of(role: str, schema: Schema, wanted_by: str) -> tuple[str, ...]:
    signals = schema.roles.get(role, ())
    if not signals:
        raise QueryError(
            f"{wanted_by} counts what is {role}, and the schema says of no signal that it is",
            expected=[f"roles: {{{role}: NAME}} in the schema"],
        )
    return signals


def _refuse_misplaced(query: Query, name: str, mode: SortMode) -> None:
    if query.profile is not None:
        raise QueryError("SORT BY stands instead of a profile", expected=["one of the two"])
    if query.verb == "retrieve" and name in SEARCH_MODES:
        raise QueryError(f"SORT BY {name} belongs to SEARCH", expected=["SEARCH items"])
    if query.verb == "search" and name == "relevance" and query.text is None:
        raise QueryError("SORT BY relevance is about a text", expected=["QUERY"])
    if query.verb == "search" and name == "semantic" and query.text is not None and not _has_vector(query):
        raise QueryError("SORT BY semantic is about a vector", expected=["VECTOR", "LIKE"])
    of_user = not mode.is_measure and name not in SEARCH_MODES
    similar = query.within is not None and query.within.kind == "similar"
    if of_user and (query.verb == "search" or similar):
        raise NotServed(f"SORT BY {name} finds its own items", expected=["RETRIEVE items without SIMILAR TO"])


def _has_vector(query: Query) -> bool:
    return bool(query.vector) or query.like is not None
