"""Selectors: from scored candidates to the rows of the page."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import numpy as np

from queryd.execute.candidates import Candidates
from queryd.execute.context import Context
from queryd.hot.arrays import I32, I64
from queryd.ranking.diversity import demote
from queryd.ranking.order import top


class Selector(Protocol):
    """Reorders or cuts positions of candidates."""

    name: str

    def enable(self, context: Context) -> bool:
        """Whether the query asks for it."""
        ...

    def select(self, context: Context, candidates: Candidates, order: I64) -> I64:
        """Positions i64[m], best first, of those in ``order``."""
        ...


class Unshown:
    """Items of earlier pages are left out: no page repeats one."""

    name = "unshown"

    def enable(self, context: Context) -> bool:
        return len(context.shown) > 0

    def select(self, context: Context, candidates: Candidates, order: I64) -> I64:
        shown = np.isin(candidates.ordinals[order], context.shown)
        return order[~shown]


class Diversity:
    """max_per_creator and max_per_category over the whole list, pages before included."""

    name = "diversity"

    def enable(self, context: Context) -> bool:
        rules = context.plan.diversity
        return rules is not None and (rules.max_per_creator or rules.max_per_category) is not None

    def select(self, context: Context, candidates: Candidates, order: I64) -> I64:
        rules = context.plan.diversity
        assert rules is not None
        groups: list[tuple[I32, int, Counter[int]]] = []
        if rules.max_per_creator is not None:
            had = context.hot.items.creator(context.shown)
            groups.append((context.columns["creator"], rules.max_per_creator, Counter(had.tolist())))
        if rules.max_per_category is not None:
            index = context.hot.items.fields.words.get("category")
            had = np.zeros(0, dtype=np.int32) if index is None else index.codes(context.shown)
            groups.append((context.columns["category"], rules.max_per_category, Counter(had.tolist())))
        return demote(order, groups, context.plan.limit)


class Page:
    """The first LIMIT."""

    name = "page"

    def enable(self, context: Context) -> bool:
        return True

    def select(self, context: Context, candidates: Candidates, order: I64) -> I64:
        return order[: context.plan.limit]


SELECTORS: tuple[Selector, ...] = (Unshown(), Diversity(), Page())


def run_selectors(context: Context, candidates: Candidates) -> I64:
    """Positions i64[page] of the page's rows, best first (score descending, then id)."""
    with context.report.stage("selector", "order", len(candidates)) as stage:
        order = top(candidates.ordinals, candidates.scores, len(candidates), context.hot.items.ordinals)
        stage.rows_out = len(order)
    for each in SELECTORS:
        if each.enable(context):
            with context.report.stage("selector", each.name, len(order)) as stage:
                order = each.select(context, candidates, order)
                stage.rows_out = len(order)
    return order
