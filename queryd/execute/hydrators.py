"""Hydrators: load the columns that scoring and selection read, for the candidates alone."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from queryd.execute.candidates import Candidates
from queryd.execute.context import Context
from queryd.execute.measure import Scored
from queryd.execute.measures import MEASURES, counted
from queryd.hot.arrays import F64, I32, I64
from queryd.hot.bucket_reads import EVERYBODY
from schemas.model import Term
from schemas.weights import WEIGHT_SCALE

CATEGORY_FIELD = "category"


class Hydrator(Protocol):
    """Loads one column (or a few) into ``context.columns``."""

    name: str

    def enable(self, context: Context) -> bool:
        """Whether anything in the plan reads it."""
        ...

    def load(self, context: Context, candidates: Candidates) -> Any:
        """The column, one row for each candidate."""
        ...


class Creator:
    """Creator ordinal, i32[n]."""

    name = "creator"

    def enable(self, context: Context) -> bool:
        rules = context.plan.diversity
        limited = rules is not None and rules.max_per_creator is not None
        return limited or _has_term(context, "relationship")

    def load(self, context: Context, candidates: Candidates) -> I32:
        return context.hot.items.creator(candidates.ordinals)


class Category:
    """Category number, i32[n]."""

    name = "category"

    def enable(self, context: Context) -> bool:
        rules = context.plan.diversity
        return rules is not None and rules.max_per_category is not None

    def load(self, context: Context, candidates: Candidates) -> I32:
        index = context.hot.items.fields.words.get(CATEGORY_FIELD)
        if index is None:
            context.report.warn("max_per_category has no effect: items have no keyword field 'category'")
            return np.full(len(candidates), -1, dtype=np.int32)
        return index.codes(candidates.ordinals)


class CreatedAt:
    """created_at in epoch ms, i64[n]."""

    name = "created_at"

    def enable(self, context: Context) -> bool:
        return _has_term(context, "recency")

    def load(self, context: Context, candidates: Candidates) -> I64:
        return context.hot.items.created_column()[candidates.ordinals]


class Similarity:
    """Cosine of the user's long-term preference and the item, f64[n]: mean over the slots that both have."""

    name = "similarity"

    def enable(self, context: Context) -> bool:
        return _has_term(context, "personalization")

    def load(self, context: Context, candidates: Candidates) -> F64:
        total = np.zeros(len(candidates), dtype=np.float64)
        slots = np.zeros(len(candidates), dtype=np.int64)
        for slot, preference in context.preferences.items():
            matrix = context.hot.items.embeddings[slot]
            total += matrix.similarity(candidates.ordinals, preference.long)
            slots += matrix.has(candidates.ordinals)
        return np.divide(total, slots, out=np.zeros(len(total)), where=slots > 0)


class Affinity:
    """The user's strongest edge to the item's creator, f64[n] in 0..1; 0 without one."""

    name = "affinity"

    def enable(self, context: Context) -> bool:
        return _has_term(context, "relationship")

    def load(self, context: Context, candidates: Candidates) -> F64:
        targets, weights = context.affinity
        found = context.hot.items.creators.find_entities(targets)
        known = found >= 0
        # One row more than creators: NO_CREATOR, −1, reads the last, which stays 0.
        strongest = np.zeros(len(context.hot.items.creators) + 1, dtype=np.float64)
        np.maximum.at(strongest, found[known], np.clip(weights[known], 0.0, 1.0))
        creators: I32 = context.columns["creator"]
        return strongest[creators]


class SignalColumns:
    """The aggregate of each signal and penalty term, f64[n], by the term's place in the profile."""

    name = "signals"

    def enable(self, context: Context) -> bool:
        return _has_term(context, "signal") or _has_term(context, "penalty")

    def load(self, context: Context, candidates: Candidates) -> dict[int, F64]:
        return {
            place: aggregate(term, context, candidates)
            for place, term in enumerate(context.plan.terms)
            if term.term in ("signal", "penalty")
        }


class Measures:
    """What measures say of each candidate, ``Scored`` by name.

    The order of a search needs it, and EXPLAIN ANALYZE shows what the scores of sources were made of.
    """

    name = "measures"

    def enable(self, context: Context) -> bool:
        return bool(_measures(context))

    def load(self, context: Context, candidates: Candidates) -> dict[str, Scored]:
        of = counted(context)
        return {name: MEASURES[name].score(context, of, candidates.ordinals) for name in _measures(context)}


HYDRATORS: tuple[Hydrator, ...] = (
    Creator(),
    Category(),
    CreatedAt(),
    Similarity(),
    Affinity(),
    SignalColumns(),
    Measures(),
)


def aggregate(term: Term, context: Context, candidates: Candidates) -> F64:
    """The value of a term's aggregate for each candidate, f64[n], before any normalisation.

    ``read`` defaults to count; ``window`` to the plan's. At cohort scope without a cohort it is everybody's.
    """
    schema, reads = context.hot.schema, context.reads
    name = term.signal or schema.signal_list[context.plan.signal].name
    signal = schema.signal_index[name]
    window = term.window or context.plan.window
    scope = context.scope if term.scope == "cohort" else EVERYBODY
    rows = candidates.ordinals
    if term.read == "decay":
        names = schema.signal_list[signal].decay.scores
        return reads.decayed(signal, term.half_life or names[0], scope, rows, context.at_ms)
    counts = reads.counts(signal, window, scope)[rows].astype(np.float64)
    if term.read == "ratio":
        assert term.over is not None
        over = reads.counts(schema.signal_index[term.over], window, scope)[rows]
        return np.divide(counts, over, out=np.zeros(len(rows)), where=over > 0)
    if term.read in ("sum", "mean"):
        sums = reads.sums(signal, window, scope)[rows] / WEIGHT_SCALE
        return (
            sums if term.read == "sum" else np.divide(sums, counts, out=np.zeros(len(rows)), where=counts > 0)
        )
    if term.read == "velocity":
        return reads.velocity(signal, window, scope)[rows]
    if term.read == "acceleration":
        return reads.acceleration(signal, window, scope)[rows]
    return counts


def run_hydrators(context: Context, candidates: Candidates) -> None:
    """Load every column that the plan reads."""
    for each in HYDRATORS:
        if each.enable(context):
            with context.report.stage("hydrator", each.name, len(candidates)) as stage:
                context.columns[each.name] = each.load(context, candidates)
                stage.rows_out = len(candidates)


def _measures(context: Context) -> list[str]:
    plan = context.plan
    wanted = [] if plan.order is None or plan.order.retrieves else [plan.order.measure]
    if plan.query.explain == "analyze":
        wanted += [source.source for source in plan.sources]
    return [name for name in dict.fromkeys(wanted) if name in MEASURES]


def _has_term(context: Context, kind: str) -> bool:
    return any(term.term == kind for term in context.plan.terms)
