"""EXPLAIN: the plan in words and numbers, before anything runs."""

from __future__ import annotations

from typing import Any

from queryd.execute.context import Context
from queryd.execute.pipeline import pool_of
from queryd.execute.predicates import estimate
from queryd.execute.sources import EXACT_NEIGHBOURS_MAX
from queryd.hot.history import DAYS_MAX
from queryd.language.text import to_text
from queryd.plan.plan import Order
from schemas.predicate_text import to_text as predicate_text
from schemas.sort_names import ROLES_OF_SOURCES


def plan_steps(context: Context) -> list[dict[str, Any]]:
    """Steps in the order of execution, each with an estimate of the rows that it leaves."""
    plan = context.plan
    left = context.items if plan.filter is None else estimate(plan.filter, context)
    steps: list[dict[str, Any]] = [{"stage": "parse", "name": "query", "text": to_text(plan.query)}]
    steps.append(
        {
            "stage": "profile",
            "name": plan.profile_reference,
            "window": plan.window,
            "signal": _signal(context),
        }
    )
    if plan.cohort is not None:
        profiles = int(context.hot.profiles.mask(plan.cohort).sum())
        summed = f"{profiles} of {len(context.hot.profiles)} profiles satisfy it"
        steps.append({"stage": "cohort", "name": predicate_text(plan.cohort), **_counted(context, summed)})
    if plan.filter is not None:
        steps.append(
            {
                "stage": "filter",
                "name": predicate_text(plan.filter),
                "estimate": left,
                "runs": "before retrieval",
                "why": "a mask over all items costs less than asking a source twice",
            }
        )
    if plan.order is not None:
        steps.append(_order(context, plan.order))
    for reference in plan.sources:
        steps.append(
            {
                "stage": "source",
                "name": reference.source,
                "estimate": min(left, pool_of(reference.limit, context.needed)),
                **_how(reference.source, left),
            }
        )
    for term in plan.terms:
        steps.append({"stage": "scorer", "name": term.term, "weight": term.weight, "signal": term.signal})
    steps.append({"stage": "selector", "name": "page", "estimate": min(left, plan.limit)})
    return steps


def _signal(context: Context) -> str:
    return context.hot.schema.signal_list[context.plan.signal].name


def _counted(context: Context, summed: str) -> dict[str, Any]:
    """How the events that trends count are counted in the cohort, and why so."""
    choice = context.reads.choice(context.plan.signal, context.plan.window, context.scope)
    if choice is None:
        return {"estimator": "exact", "why": summed}
    return {
        "estimator": choice.estimator,
        "rows": choice.rows,
        "rows_max": choice.rows_max,
        "why": f"{summed}; {choice.why}",
    }


def _order(context: Context, order: Order) -> dict[str, Any]:
    schema = context.hot.schema
    roles = ROLES_OF_SOURCES.get(order.measure, ())
    counted = [schema.signal_list[index].name for index in order.signals]
    counted += [name for role in roles for name in schema.roles[role]]
    step = {"stage": "order", "name": order.mode, "by": order.measure, "counts": counted}
    if not counted:
        return step
    step |= {"window": order.window, "scope": "everybody" if context.plan.cohort is None else "cohort"}
    if order.measure == "trending_relative":
        step["compares_with"] = f"windows at the same hour of up to {DAYS_MAX} days before"
    return step


def _how(source: str, left: int) -> dict[str, str]:
    if source.endswith("neighbours"):
        exact = left <= EXACT_NEIGHBOURS_MAX
        return {"method": "exact" if exact else "index", "why": f"about {left} items are allowed"}
    return {"method": "column" if source != "text" else "index"}
