"""What the stages of one query share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from materializers.rows.preference import Preference
from queryd.execute.report import Report
from queryd.hot.arrays import F32, F64, U32, U64, Mask
from queryd.hot.bucket_reads import Scope
from queryd.hot.columns import HotColumns
from queryd.hot.reads import SignalReads
from queryd.hot.users import UserReader
from queryd.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class TextHits:
    """Matches of a text query: ordinals u32[n], BM25 scores f64[n]; ``total`` of them in the index."""

    ordinals: U32
    scores: F64
    total: int
    warnings: tuple[str, ...] = ()


class TextSearch(Protocol):
    """The text index as the executor sees it."""

    @property
    def unavailable(self) -> str | None:
        """Why it cannot answer now, None when it can."""
        ...

    def search(self, text: str, limit: int, among: U32 | None = None) -> TextHits:
        """The best ``limit`` matches; ``among`` restricts them to some items, exactly."""
        ...


class VectorSearch(Protocol):
    """The vector index as the executor sees it."""

    def unavailable(self, slot: str) -> str | None:
        """Why a slot cannot be searched now, None when it can."""
        ...

    def nearest(self, slot: str, vector: F32, limit: int) -> tuple[U32, F64]:
        """Ordinals u32[n] and similarities f64[n] of approximate neighbours, best first."""
        ...


class TitleReads(Protocol):
    """Titles of items, for searches while the text index is not there."""

    def titles(self, ordinals: U32) -> list[str]:
        """One title for each item, "" where there is none."""
        ...


@dataclass
class Context:
    """One query in execution: its plan, the columns, times, and what the stages have loaded so far.

    ``allowed`` bool[items] is what all filters together leave; ``columns`` holds a column for each candidate
    under the name of the hydrator that loaded it. ``shown`` u32[m] are the items of earlier pages.
    """

    plan: Plan
    hot: HotColumns
    reads: SignalReads
    users: UserReader
    text: TextSearch
    vectors: VectorSearch
    titles: TitleReads
    report: Report
    at_ms: int
    seed: int
    shown: U32
    allowed: Mask = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def scope(self) -> Scope:
        """Whose events trends count."""
        return Scope(self.plan.cohort)

    @property
    def user(self) -> str | None:
        """For whom the page is."""
        return self.plan.query.user

    @property
    def needed(self) -> int:
        """Candidates that this page and the ones before take, and one more: whether there is a next page."""
        return len(self.shown) + self.plan.limit + 1

    @property
    def items(self) -> int:
        """Rows of every item column."""
        return len(self.hot.items)

    @cached_property
    def preferences(self) -> dict[str, Preference]:
        """The user's preference vectors by slot; none for nobody."""
        return {} if self.user is None else self.users.preferences(self.user)

    @cached_property
    def affinity(self) -> tuple[U64, F64]:
        """Targets (EntityIds) and weights of the user's edges."""
        if self.user is None:
            return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.float64)
        return self.users.affinity(self.user, self.at_ms)
