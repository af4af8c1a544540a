"""A checked item predicate as a mask over all items, and how many items it is likely to leave."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from queryd.errors import NotServed, QueryError
from queryd.execute.context import Context
from queryd.hot.arrays import Mask
from queryd.hot.bucket_reads import EVERYBODY
from queryd.hot.fields import ABSENT_TIME, WordIndex, as_mask, as_words
from schemas.predicate import And, Comparison, Flag, Not, Or, Predicate, SignalComparison
from schemas.predicate_ast import COMPARE

_GUESS: Final = 0.33  # share that an inequality is taken to leave when nothing better is known


def mask_of(predicate: Predicate, context: Context) -> Mask:
    """The items that satisfy ``predicate``, bool[items]. An item without a value satisfies no comparison.

    Raises:
        QueryError: a user state without a user.
        NotServed: a comparison of a text field.
    """
    match predicate:
        case And(children):
            return np.asarray(np.logical_and.reduce([mask_of(child, context) for child in children]))
        case Or(children):
            return np.asarray(np.logical_or.reduce([mask_of(child, context) for child in children]))
        case Not(child):
            return ~mask_of(child, context)
        case Flag(name):
            return _state(name, context)
        case Comparison():
            return _field(predicate, context)
        case SignalComparison():
            return _aggregate(predicate, context)


def estimate(predicate: Predicate, context: Context) -> int:
    """About how many items satisfy ``predicate``, from cardinalities alone; never reads a column."""
    items = context.items
    match predicate:
        case And(children):
            return min(estimate(child, context) for child in children)
        case Or(children):
            return min(items, sum(estimate(child, context) for child in children))
        case Not(child):
            return items - estimate(child, context)
        case Comparison() if predicate.field in context.hot.items.fields.words and predicate.op in (
            "=",
            "IN",
        ):
            index = context.hot.items.fields.words[predicate.field]
            return sum(len(index.bitmap(word)) for word in as_words(predicate.value))
        case _:
            return round(items * _GUESS)


def _state(name: str, context: Context) -> Mask:
    if context.user is None:
        raise QueryError(f"FILTER {name} is about a user", expected=["FOR USER @id"])
    mask = np.zeros(context.items, dtype=np.bool_)
    mask[context.users.state(context.user, name)] = True
    return mask


def _field(comparison: Comparison, context: Context) -> Mask:
    fields = context.hot.items.fields
    name = comparison.field
    if name in fields.words:
        return _words(comparison, fields.words[name], context.items)
    if name in fields.numbers:
        values = fields.numbers[name].values(context.items)
        return _ordered(comparison, values) & ~np.isnan(values)
    if name in fields.times:
        moments = fields.times[name].values(context.items)
        return np.asarray(_ordered(comparison, moments) & (moments != ABSENT_TIME))
    if name == "creator":
        return _ids(comparison, context.hot.items.creator_column(), context.hot.items.creators.find)
    if name == "id":
        ordinals = np.arange(context.items, dtype=np.int32)
        return _ids(comparison, ordinals, context.hot.items.ordinals.find)
    if name == "status":
        return _status(comparison, context)
    raise NotServed(
        f"FILTER on the text field {name!r} is not served",
        expected=["SEARCH items QUERY …", "a keyword field"],
    )


def _words(comparison: Comparison, index: WordIndex, items: int) -> Mask:
    op = comparison.op
    if op == "EXISTS":
        return as_mask(index.present(), items)
    wanted = as_words(comparison.value)
    if op == "CONTAINS" and not index.many:
        wanted = tuple(word for word in index.words if any(part in word for part in wanted))
    mask = np.zeros(items, dtype=np.bool_)
    for word in wanted:
        mask |= as_mask(index.bitmap(word), items)
    return as_mask(index.present(), items) & ~mask if op == "!=" else mask


def _ordered(comparison: Comparison, values: Any) -> Mask:
    value = comparison.value
    if comparison.op == "EXISTS" or value is None:
        return np.ones(len(values), dtype=np.bool_)
    if isinstance(value, tuple):
        if comparison.op == "BETWEEN":
            return np.asarray((values >= value[0]) & (values <= value[1]))
        return np.isin(values, np.array(value))
    return np.asarray(COMPARE[comparison.op](values, value))


def _ids(comparison: Comparison, column: Any, find: Any) -> Mask:
    present = column >= 0
    if comparison.op == "EXISTS":
        return np.asarray(present)
    if comparison.op == "CONTAINS":
        raise NotServed(f"{comparison.field} CONTAINS is not served", expected=["=", "!=", "IN"])
    known = [
        ordinal for ordinal in (find(word) for word in as_words(comparison.value)) if ordinal is not None
    ]
    mask = np.isin(column, np.array(known, dtype=np.int32))
    return np.asarray(present & ~mask if comparison.op == "!=" else mask)


def _status(comparison: Comparison, context: Context) -> Mask:
    """Only active items are ever shown, so a status is the whole catalog or nothing."""
    recorded = context.hot.items.recorded()
    if comparison.op == "EXISTS" or (comparison.op == "!=") != ("active" in as_words(comparison.value)):
        return recorded
    return np.zeros(context.items, dtype=np.bool_)


def _aggregate(comparison: SignalComparison, context: Context) -> Mask:
    index = context.hot.schema.signal_index[comparison.signal]
    reads, window = context.reads, comparison.window
    values: Any
    if comparison.read == "decay":
        everything = np.arange(context.items, dtype=np.uint32)
        values = reads.decayed(index, window, EVERYBODY, everything, context.at_ms)
    elif comparison.read == "sum":
        values = reads.sums(index, window) / 1_000_000
    else:
        read = {"count": reads.counts, "mean": reads.mean, "velocity": reads.velocity}
        values = {**read, "acceleration": reads.acceleration}[comparison.read](index, window)
    return np.asarray(COMPARE[comparison.op](values, comparison.value))
