"""Filters: each a mask over all items; together they are what the sources may return.

Masks are taken before retrieval because they are cheap (a million items: well under a millisecond each)
and because a source that knows them never has to be asked twice to fill a page.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from queryd.errors import UnknownEntity
from queryd.execute.context import Context
from queryd.execute.predicates import mask_of
from queryd.hot.arrays import Mask

_COMPARED_MAX = 4  # up to so many creators, comparing the column beats a lookup table


class Filter(Protocol):
    """One reason for which an item may not be shown."""

    name: str

    def enable(self, context: Context) -> bool:
        """Whether the query needs it."""
        ...

    def mask(self, context: Context) -> Mask:
        """Items that pass, bool[items]."""
        ...


class Visible:
    """Deleted and archived items are never shown."""

    name = "visible"

    def enable(self, context: Context) -> bool:
        return True

    def mask(self, context: Context) -> Mask:
        return context.hot.items.visible()


class Predicates:
    """FILTER, and the profile's quality gates."""

    name = "predicate"

    def enable(self, context: Context) -> bool:
        return context.plan.filter is not None

    def mask(self, context: Context) -> Mask:
        assert context.plan.filter is not None
        return mask_of(context.plan.filter, context)


class HiddenCreators:
    """Items of creators that the user has blocked or muted."""

    name = "hidden_creators"

    def enable(self, context: Context) -> bool:
        return context.user is not None

    def mask(self, context: Context) -> Mask:
        assert context.user is not None
        return ~of_creators(context.users.hidden_creators(context.user, context.at_ms), context)


class WithinScope:
    """WITHIN: the scope that every candidate lies in. SIMILAR TO needs no mask: its source is the scope."""

    name = "within"

    def enable(self, context: Context) -> bool:
        within = context.plan.within
        return within is not None and within.kind != "similar"

    def mask(self, context: Context) -> Mask:
        within = context.plan.within
        assert within is not None
        if within.kind == "trending":
            return context.reads.counts(context.plan.signal, context.plan.window, context.scope) > 0
        if within.kind == "creator":
            assert within.target is not None
            if context.hot.items.creators.find(within.target) is None:
                context.report.warn(f"no item of the creator {within.target!r} is known")
            return of_creators([within.target], context)
        assert context.user is not None
        if within.kind == "following":
            return of_creators(context.users.followed(context.user, context.at_ms), context)
        return _in_state(within.kind, context)


FILTERS: tuple[Filter, ...] = (Visible(), Predicates(), HiddenCreators(), WithinScope())


def run_filters(context: Context) -> None:
    """Set ``context.allowed`` to what all enabled filters leave."""
    allowed = np.ones(context.items, dtype=np.bool_)
    for each in FILTERS:
        if not each.enable(context):
            continue
        with context.report.stage("filter", each.name, context.items) as stage:
            allowed &= each.mask(context)
            stage.rows_out = int(np.count_nonzero(allowed))
            stage.rows_in = context.report.stages[-1].rows_out if context.report.stages else context.items
    context.allowed = allowed


def of_creators(names: list[str], context: Context) -> Mask:
    """Items of any of these creators, bool[items]."""
    creators = context.hot.items.creators
    column = context.hot.items.creator_column()
    ordinals = [found for found in (creators.find(name) for name in names) if found is not None]
    if len(ordinals) <= _COMPARED_MAX:
        mask = np.zeros(context.items, dtype=np.bool_)
        for ordinal in ordinals:
            mask |= column == ordinal
        return mask
    wanted = np.zeros(len(creators) + 1, dtype=np.bool_)  # the last is that of NO_CREATOR, −1
    wanted[ordinals] = True
    return wanted[column]


def _in_state(state: str, context: Context) -> Mask:
    if state not in context.hot.schema.states:
        raise UnknownEntity(f"the schema has no user state {state!r}; declare it, or leave WITHIN out")
    assert context.user is not None
    mask = np.zeros(context.items, dtype=np.bool_)
    mask[context.users.state(context.user, state)] = True
    return mask
