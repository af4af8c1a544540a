"""The executor: filters, sources, hydrators, scorers, selectors, in this order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from queryd.execute.candidates import Candidates, Retrieved, united
from queryd.execute.context import Context
from queryd.execute.filters import run_filters
from queryd.execute.hydrators import run_hydrators
from queryd.execute.scorers import run_scorers
from queryd.execute.selectors import run_selectors
from queryd.execute.sources import SOURCES
from queryd.hot.arrays import I64

_FILL = "fill"


@dataclass(frozen=True, slots=True)
class Page:
    """The page: positions i64[m] among ``candidates``; ``total`` that qualify, whether ``more`` follow."""

    candidates: Candidates
    rows: I64
    total: int
    more: bool


def execute(context: Context) -> Page:
    """Run a plan. Synchronous and without I/O but for the user's rows: a few milliseconds."""
    run_filters(context)
    candidates, total = retrieve(context)
    run_hydrators(context, candidates)
    run_scorers(context, candidates)
    rows = run_selectors(context, candidates)
    total = max(total, len(candidates))
    more = len(candidates) > len(context.shown) + len(rows)
    return Page(candidates, rows, total, more)


def retrieve(context: Context) -> tuple[Candidates, int]:
    """Candidates of every source, and how many qualify in all."""
    found: dict[str, Retrieved] = {}
    fused = context.plan.fusion == "rrf"
    for reference in context.plan.sources:
        source = SOURCES[reference.source]
        if not source.enable(context) or (fused and source.name == "trending"):
            continue
        if found and context.report.out_of_time():
            context.report.degrade(source.name, "the deadline passed before its turn")
            continue
        with context.report.stage("source", source.name, int(np.count_nonzero(context.allowed))) as stage:
            found[source.name] = source.retrieve(context, pool_of(reference.limit, context.needed))
            stage.rows_out = len(found[source.name].ordinals)
            retrieved = found[source.name]
            stage.notes = {"total": retrieved.total, "exact": retrieved.exact, **retrieved.notes}
    candidates = united(found)
    if fused and any(reference.source == "trending" for reference in context.plan.sources):
        _add_trend(context, candidates)
    if context.plan.fill and len(candidates) < context.needed:
        candidates = _filled(context, found, candidates)
    return candidates, _total(context, found)


def pool_of(limit: int, needed: int) -> int:
    """How many candidates a source gives: its limit, doubled until the pages so far fit."""
    while limit < needed:
        limit *= 2
    return limit


def _add_trend(context: Context, candidates: Candidates) -> None:
    """In a search the trend is one more list over the matches, which the scope has already cut down."""
    plan = context.plan
    with context.report.stage("source", "trending", len(candidates)) as stage:
        velocity = context.reads.velocity(plan.signal, plan.window, context.scope)
        candidates.by_source["trending"] = velocity[candidates.ordinals]
        stage.rows_out = len(candidates)


def _filled(context: Context, found: dict[str, Retrieved], candidates: Candidates) -> Candidates:
    """The newest that match, for a page that the sources leave short; their source score is 0."""
    missing = context.needed - len(candidates)
    with context.report.stage("source", _FILL, len(candidates)) as stage:
        kept = context.allowed.copy()
        kept[candidates.ordinals] = False
        context.allowed, before = kept, context.allowed
        more = SOURCES["matching"].retrieve(context, missing)
        context.allowed = before
        stage.rows_out = len(more.ordinals)
    if not len(more.ordinals):
        return candidates
    unscored = Retrieved(more.ordinals, np.full(len(more.ordinals), np.nan), more.total)
    return united({**found, _FILL: unscored})


def _total(context: Context, found: dict[str, Retrieved]) -> int:
    """Exact for one source; for several, at most what the filters leave."""
    if context.plan.fill:
        return int(np.count_nonzero(context.allowed))
    totals = [retrieved.total for retrieved in found.values()]
    return min(sum(totals), int(np.count_nonzero(context.allowed))) if len(totals) > 1 else sum(totals)
