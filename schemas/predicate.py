"""Predicates, the public face: ``locale:US, age:18-24``, ``unseen``, ``view.count(24h) >= 10``."""

from __future__ import annotations

from schemas.predicate_ast import (
    And,
    Comparison,
    Flag,
    Not,
    Or,
    Position,
    Predicate,
    SignalComparison,
)

__all__ = ["And", "Comparison", "Flag", "Not", "Or", "Position", "Predicate", "SignalComparison"]
