"""The typed query: what text, JSON and the builder all become."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from schemas.model import Diversity
from schemas.predicate import Predicate

Verb: TypeAlias = Literal["retrieve", "search"]
Entities: TypeAlias = Literal["items", "creators", "users"]
Explain: TypeAlias = Literal["no", "plan", "analyze"]
ScopeKind: TypeAlias = Literal["trending", "following", "similar", "liked", "saved", "creator"]

SCOPES_WITH_TARGET: Final = ("similar", "creator")
LIMIT_DEFAULT: Final = 25


class Within(msgspec.Struct, frozen=True):
    """Where candidates must come from; ``target`` is the item or creator id of SIMILAR TO and CREATOR."""

    kind: ScopeKind
    target: str | None = None


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One query. None (or empty) means that the clause was not given.

    ``profile`` is ``name`` or ``name@version``; ``as_of_ms`` epoch milliseconds; ``cohort`` a predicate, in
    which a declared cohort is a bare name.
    """

    verb: Verb = "retrieve"
    entities: Entities = "items"
    explain: Explain = "no"
    text: str | None = None
    vector: tuple[float, ...] = ()
    like: str | None = None
    user: str | None = None
    profile: str | None = None
    filter: Predicate | None = None
    within: Within | None = None
    cohort: Predicate | None = None
    signal: str | None = None
    window: str | None = None
    sort: str | None = None
    diversity: Diversity | None = None
    fields: tuple[str, ...] = ()
    limit: int = LIMIT_DEFAULT
    cursor: str | None = None
    after: str | None = None
    as_of_ms: int | None = None
    seed: int | None = None
