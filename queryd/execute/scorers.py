"""Scorers: one for each kind of term; pure arithmetic on the columns that the hydrators loaded.

score = Σ weight · value, added in the order of the profile's terms in float64, so that the contributions
that EXPLAIN ANALYZE shows add up to the score to the last bit.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from queryd.execute.candidates import Candidates, TermColumn
from queryd.execute.context import Context
from queryd.execute.measure import Scored
from queryd.hot.arrays import F64
from queryd.hot.fields import ABSENT_TIME
from queryd.ranking.curves import recency
from queryd.ranking.fusion import ranks, reciprocal
from queryd.ranking.normalise import min_max
from schemas.durations import DAY_MS
from schemas.model import Term


class Scorer(Protocol):
    """Turns a term of the profile into columns of the score."""

    name: str

    def enable(self, context: Context) -> bool:
        """Whether what it reads is there; a term that is not enabled counts 0."""
        ...

    def score(self, context: Context, candidates: Candidates, place: int, term: Term) -> list[TermColumn]:
        """The term's columns, one row for each candidate."""
        ...


class Base:
    """The source score, or that of the order where sources do not have it.

    Fused lists give one column each, 1/(k + rank), so that their sum is the fusion. EXPLAIN ANALYZE shows
    beside it what a measure was made of, with the weight 0.
    """

    name = "base"

    def enable(self, context: Context) -> bool:
        return True

    def score(self, context: Context, candidates: Candidates, place: int, term: Term) -> list[TermColumn]:
        return [*self._columns(context, candidates, term), *_parts(context)]

    def _columns(self, context: Context, candidates: Candidates, term: Term) -> list[TermColumn]:
        order = context.plan.order
        if order is not None and not order.retrieves:
            return [TermColumn("base", term.weight, context.columns["measures"][order.measure].scores)]
        normalized = context.plan.profile.normalize == "minmax"
        if context.plan.fusion == "rrf":
            columns = _fused(context, candidates)
            if not normalized:
                return [TermColumn(f"rrf:{name}", term.weight, values) for name, values in columns.items()]
            fused = np.sum(list(columns.values()), axis=0)
            return [TermColumn("base", term.weight, min_max(fused))]
        return [TermColumn("base", term.weight, _strongest(candidates, normalized))]


class Personalization:
    """Cosine of preference and item, −1..1; 0 for a user who has no preference yet."""

    name = "personalization"

    def enable(self, context: Context) -> bool:
        return context.user is not None

    def score(self, context: Context, candidates: Candidates, place: int, term: Term) -> list[TermColumn]:
        return [TermColumn("personalization", term.weight, context.columns["similarity"])]


class Relationship:
    """The user's strongest edge to the creator, 0..1."""

    name = "relationship"

    def enable(self, context: Context) -> bool:
        return context.user is not None

    def score(self, context: Context, candidates: Candidates, place: int, term: Term) -> list[TermColumn]:
        return [TermColumn("relationship", term.weight, context.columns["affinity"])]


class Signal:
    """A declared aggregate; under min-max normalisation divided by the largest, a ratio clipped to 0..1."""

    def __init__(self, name: str) -> None:
        self.name = name

    def enable(self, context: Context) -> bool:
        return True

    def score(self, context: Context, candidates: Candidates, place: int, term: Term) -> list[TermColumn]:
        values = context.columns["signals"][place]
        if context.plan.profile.normalize == "minmax":
            values = np.clip(values, 0.0, 1.0) if term.read == "ratio" else _scaled_from_zero(values)
        label = f"{term.term}:{term.signal or 'signal'}.{term.read or 'count'}"
        return [TermColumn(label, term.weight, values)]


class Recency:
    """A curve on age; 0 for an item whose created_at is unknown."""

    name = "recency"

    def enable(self, context: Context) -> bool:
        return True

    def score(self, context: Context, candidates: Candidates, place: int, term: Term) -> list[TermColumn]:
        created = context.columns["created_at"]
        age_ms = (context.at_ms - np.where(created == ABSENT_TIME, 0, created)).astype(np.float64)
        values = recency(age_ms, term.curve or "exponential", term.scale_ms or DAY_MS, term.offset_ms)
        return [TermColumn("recency", term.weight, np.where(created == ABSENT_TIME, 0.0, values))]


SCORERS: dict[str, Scorer] = {
    scorer.name: scorer
    for scorer in (Base(), Personalization(), Relationship(), Signal("signal"), Recency(), Signal("penalty"))
}


def run_scorers(context: Context, candidates: Candidates) -> None:
    """Fill ``candidates.terms`` and ``candidates.scores``."""
    for place, term in enumerate(context.plan.terms):
        scorer = SCORERS[term.term]
        if not scorer.enable(context):
            candidates.terms.append(TermColumn(term.term, term.weight, np.zeros(len(candidates))))
            continue
        with context.report.stage("scorer", scorer.name, len(candidates)) as stage:
            candidates.terms += scorer.score(context, candidates, place, term)
            stage.rows_out = len(candidates)
    scores = np.zeros(len(candidates), dtype=np.float64)
    for column in candidates.terms:
        scores += column.contributions
    candidates.scores = scores


def _parts(context: Context) -> list[TermColumn]:
    """What each measure was made of, for EXPLAIN ANALYZE."""
    if context.plan.query.explain != "analyze":
        return []
    measures: dict[str, Scored] = context.columns.get("measures", {})
    return [
        TermColumn(f"{name}.{part}", 0.0, values)
        for name, scored in measures.items()
        for part, values in scored.parts.items()
    ]


def _fused(context: Context, candidates: Candidates) -> dict[str, F64]:
    """1/(k + rank) in each list, f64[n]; 0 where the list does not have the candidate."""
    ids = context.hot.items.ordinals
    columns = {}
    for name, scores in candidates.by_source.items():
        held = np.flatnonzero(~np.isnan(scores))
        values = np.zeros(len(candidates), dtype=np.float64)
        values[held] = reciprocal(ranks(candidates.ordinals[held], scores[held], ids))
        columns[name] = values
    return columns


def _strongest(candidates: Candidates, normalized: bool) -> F64:
    """The largest source score of each candidate, each source normalised among its own; 0 for a fill."""
    strongest = np.zeros(len(candidates), dtype=np.float64)
    lists = list(candidates.by_source.values())
    if len(lists) == 1 and not normalized and not np.isnan(lists[0]).any():
        return lists[0].copy()
    for scores in lists:
        held = ~np.isnan(scores)
        values = min_max(scores[held]) if normalized else scores[held]
        strongest[held] = np.maximum(strongest[held], values)
    return strongest


def _scaled_from_zero(values: F64) -> F64:
    """Values divided by the largest magnitude, so that nothing stays 0 and the best is 1; 0 if all are 0."""
    largest = float(np.abs(values).max()) if len(values) else 0.0
    return values / largest if largest > 0 else np.zeros(len(values), dtype=np.float64)
