"""Replies, in the shapes of the HTTP contract."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType


class TermOut(msgspec.Struct, frozen=True):
    """One term of a result's score."""

    term: str
    value: float
    weight: float
    contribution: float


class ResultOut(msgspec.Struct, frozen=True):
    """One row of the page; ``rank`` counts from 1 over all pages."""

    id: str
    rank: int
    score: float
    exploration: bool = False
    fields: dict[str, Any] | UnsetType = UNSET
    terms: list[TermOut] | UnsetType = UNSET


class ExplainOut(msgspec.Struct, frozen=True):
    """The plan and, after ANALYZE, the stages."""

    plan: list[dict[str, Any]]
    stages: list[dict[str, Any]]


class Reply(msgspec.Struct, frozen=True):
    """A ranked page. ``estimator`` says how counts of a cohort came about; here always exactly."""

    request_id: str
    results: list[ResultOut]
    cursor: str | None
    total_estimate: int
    estimator: str
    freshness_ms: int | None
    degraded: list[dict[str, str]]
    warnings: list[str]
    took_us: int
    explain: ExplainOut | UnsetType = UNSET


class TotalsOut(msgspec.Struct, frozen=True):
    """All events: ``sum`` of their weights; distinct users as in a window, left out if only another window
    was asked for.
    """

    count: int
    sum: float
    users: int | UnsetType | None = UNSET
    users_error: float | UnsetType | None = UNSET
    users_estimator: str | UnsetType | None = UNSET


class WindowOut(msgspec.Struct, frozen=True):
    """One window; velocity in events/s.

    ``users`` are distinct ones, ``users_error`` the standard error of their number (0 when exact),
    ``users_estimator`` one of ``queryd.hot.distinct.Estimator``; all null where the signal keeps none.
    """

    count: int
    sum: float
    mean: float | None
    velocity: float
    acceleration: float
    users: int | None = None
    users_error: float | None = None
    users_estimator: str | None = None
    resolution: str = ""


class LedgerOut(msgspec.Struct, frozen=True):
    """What one signal has amounted to for one entity.

    ``resolution`` is the length of the buckets that ``all_time`` and ``decay`` were summed from, or
    ``exact``; that of a window says the same of its counts.
    """

    id: str
    signal: str
    at: int
    cohort: str | None
    estimator: str
    all_time: TotalsOut
    windows: dict[str, WindowOut]
    decay: dict[str, float]
    resolution: str = "exact"
