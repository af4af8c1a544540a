"""What a measure is: it scores items by signals and records, in the scope of the query.

A measure says which items it concerns at all (``qualifying``: what has no event does not trend), and scores
any item. A source takes the best of those that qualify; a search in the same order scores what it found.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from queryd.execute.context import Context
from queryd.hot.arrays import F64, I64, U32, Counts, Mask
from queryd.hot.leaders import KeptLeaders, Leaders


@dataclass(frozen=True, slots=True)
class Counted:
    """The events that a measure counts: indexes of signals, counted together, and the window.

    A measure that counts roles reads the window alone.
    """

    signals: tuple[int, ...]
    window: str


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores f64[n]; ``parts``, each f64[n], are what they were made of, ``notes`` what holds for all."""

    scores: F64
    parts: dict[str, F64] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


class Measure(Protocol):
    """Scores items."""

    name: str

    def qualifying(self, context: Context, of: Counted) -> Mask:
        """Items that a list in this order has, bool[items]."""
        ...

    def score(self, context: Context, of: Counted, rows: U32) -> Scored:
        """Scores of the items ``rows`` u32[n]."""
        ...


class ByCount:
    """Measures whose scores grow with the number of events, so that the best are found by it alone."""

    def qualifying(self, context: Context, of: Counted) -> Mask:
        return self.tallies(context, of) > 0

    def leaders(self, context: Context, of: Counted, limit: int) -> Leaders:
        """Allowed items with an event, among them the best ``limit`` and all that tie with the last."""
        if len(of.signals) == 1:
            return context.reads.leaders(of.signals[0], of.window, context.scope, context.allowed, limit)
        return KeptLeaders(counts_by_item(context, of)).among(context.allowed, limit)

    def tallies(self, context: Context, of: Counted) -> Counts:
        """Events by item, int[items]: to compare and to take from."""
        if len(of.signals) == 1:
            return context.reads.tallies(of.signals[0], of.window, context.scope)
        return counts_by_item(context, of)


class ByScore(ABC):
    """Measures that concern the items whose score is above 0."""

    def qualifying(self, context: Context, of: Counted) -> Mask:
        return self.score(context, of, everything(context)).scores > 0

    @abstractmethod
    def score(self, context: Context, of: Counted, rows: U32) -> Scored: ...


def everything(context: Context) -> U32:
    """All rows, u32[items]."""
    return np.arange(context.items, dtype=np.uint32)


def counts_by_item(context: Context, of: Counted) -> I64:
    """Events by item of all signals that are counted, i64[items]. Do not change it: it may be a kept sum."""
    return total([context.reads.counts(each, of.window, context.scope) for each in of.signals], context)


def total(columns: list[I64], context: Context) -> I64:
    """The sum of columns i64[items], 0 without one; of a single one itself."""
    if len(columns) == 1:
        return columns[0]
    return np.sum(columns, axis=0, dtype=np.int64) if columns else np.zeros(context.items, dtype=np.int64)
