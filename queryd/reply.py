"""Ranked pages and ledgers, as the engine makes them, as HTTP sends them and as the clients read them.

A field that is left out of the JSON is None here.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

Resolution: TypeAlias = Literal["exact", "1m", "1h", "1d"]


class ScoreTerm(msgspec.Struct, frozen=True):
    """One term of a result's score; the contributions of a result add up to its score."""

    term: str
    value: float
    weight: float
    contribution: float


class QueryResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row of the page; `rank` counts from 1 over all pages."""

    id: str
    rank: int
    score: float
    exploration: bool
    fields: dict[str, Any] | None = None
    terms: list[ScoreTerm] | None = None


class Degradation(msgspec.Struct, frozen=True):
    """A stage that was cut or skipped, and why."""

    stage: str
    why: str


class Explanation(msgspec.Struct, frozen=True):
    """The plan, and for EXPLAIN ANALYZE what each stage did."""

    plan: list[dict[str, Any]]
    stages: list[dict[str, Any]]


class QueryReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """A ranked page.

    `estimator` says how the counts of its cohort were made. In at least 95 % of the cases such a count of a
    result shown, if it is not 0, lies within `error_bound`, relatively, of the truth: 0 when all are exact,
    absent without a cohort.
    """

    request_id: str
    results: list[QueryResult]
    cursor: str | None
    total_estimate: int
    estimator: Literal["exact", "ipf", "independence"]
    freshness_ms: int | None
    degraded: list[Degradation]
    warnings: list[str]
    took_us: int
    explain: Explanation | None = None
    error_bound: float | None = None


class Totals(msgspec.Struct, frozen=True, omit_defaults=True):
    """Events and their summed weight since the beginning of the log; distinct users as in a window, absent
    where the signal keeps none or only another window was asked for."""

    count: int
    sum: float
    users: int | None = None
    users_error: float | None = None
    users_estimator: Literal["exact", "sketch", "expired", "too_many_rows"] | None = None


class WindowTotals(msgspec.Struct, frozen=True, omit_defaults=True):
    """One window of a ledger; velocity in events a second, acceleration its change since one window ago.

    `users` are distinct users, `users_error` the standard error of that number: 0 when it is `exact`, else it
    is a `sketch`. Null with `expired` or `too_many_rows` as the reason, or when the signal keeps no users.
    `resolution` is the length of the buckets that it was counted in: `1m`, `1h` or `1d`. Where only days are
    kept, a shorter window is the day that holds `at`.
    """

    count: int
    sum: float
    mean: float | None
    velocity: float
    acceleration: float
    users: int | None
    users_error: float | None
    users_estimator: Literal["exact", "sketch", "expired", "too_many_rows"] | None
    resolution: Resolution


class ComparedCohort(msgspec.Struct, frozen=True):
    """One side of a comparison: distinct users who are in it now, and all its events in the window."""

    cohort: str
    users: int
    events: int


class ComparedItem(msgspec.Struct, frozen=True):
    """An item in two cohorts: its events, its share of each side's events, and the ratio of the shares.

    `lift` has half an event added to each count, so that it is defined where one side has none; the truth
    lies between `lift_low` and `lift_high` with the stated confidence.
    """

    id: str
    rank: int
    count_a: int
    count_b: int
    rate_a: float
    rate_b: float
    lift: float
    lift_low: float
    lift_high: float


class CohortComparison(msgspec.Struct, frozen=True):
    """Items by lift of cohort `a` over cohort `b`, the highest first.

    `items_compared` items had `min_count` events or more in both cohorts together; `items_left_out` had
    fewer. `estimator` and `error_bound` of the counts are as in a page.
    """

    a: ComparedCohort
    b: ComparedCohort
    signal: str
    window: str
    at: int
    confidence: float
    min_count: int
    estimator: Literal["exact", "ipf", "independence"]
    error_bound: float | None
    results: list[ComparedItem]
    items_compared: int
    items_left_out: int
    warnings: list[str]


class Ledger(msgspec.Struct, frozen=True):
    """What one signal has amounted to for one entity at time `at`.

    `decay` has a score for each half-life, for the lifetime of a linear decay, or `all_time` where nothing
    fades. `resolution` is the length of the buckets that `all_time` and `decay` were summed from; `exact`
    when events are known one by one. `warnings`: why the cohort may not be the one that was meant.
    """

    id: str
    signal: str
    at: int
    cohort: str | None
    estimator: Literal["exact", "ipf", "independence"]
    all_time: Totals
    windows: dict[str, WindowTotals]
    decay: dict[str, float]
    resolution: Resolution
    warnings: list[str] = []
