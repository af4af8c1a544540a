"""A plan: a query with every name resolved and every default filled in. Equal queries have equal plans."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from queryd.language.ast import Query, Within
from schemas.model import Diversity, Profile, SourceRef, Term
from schemas.predicate import Predicate

Fusion: TypeAlias = Literal["none", "rrf"]

POOL_DEFAULT = 500


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What SORT BY orders a page by.

    Attributes:
        mode: the sort mode; ``measure`` what it scores items by, the name of a source.
        signals: indexes of the signals that the measure counts together; none if it counts roles, or nothing.
        window: over which it counts them.
        retrieves: whether the measure finds the candidates as well; if not, it scores those of other sources.
    """

    mode: str
    measure: str
    signals: tuple[int, ...]
    window: str
    retrieves: bool


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What will be done, before anything is known of the data.

    Attributes:
        query: the query as it was asked.
        profile: its ranking, with terms resolved.
        signal: index of the signal that trends count; ``window`` its window.
        cohort: the checked predicate whose users' events trends count; None = everybody's.
        filter: the checked predicate of FILTER and the profile's gates together.
        sources: where candidates come from and how many of each at most.
        fusion: how several lists become one score: ``rrf`` in searches over more than one list.
        fill: whether a page that the sources leave short is filled with the newest that match.
        within: the scope that candidates must lie in.
        order: the built-in mode that replaces the profile, if any.
    """

    query: Query
    profile: Profile
    signal: int
    window: str
    cohort: Predicate | None
    filter: Predicate | None
    sources: tuple[SourceRef, ...]
    terms: tuple[Term, ...]
    fusion: Fusion
    fill: bool
    within: Within | None
    diversity: Diversity | None
    order: Order | None
    limit: int

    @property
    def profile_reference(self) -> str:
        """``name@version``."""
        return f"{self.profile.name}@{self.profile.version}"
