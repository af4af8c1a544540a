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
from schemas.predicate_check import check
from schemas.predicate_match import matches_profile
from schemas.predicate_parser import (
    GRAMMAR_DIR,
    Condition,
    PredicateTransformer,
    parse_predicate,
    syntax_error,
)
from schemas.predicate_text import to_text

__all__ = [
    "GRAMMAR_DIR",
    "And",
    "Comparison",
    "Condition",
    "Flag",
    "Not",
    "Or",
    "Position",
    "Predicate",
    "PredicateTransformer",
    "SignalComparison",
    "check",
    "matches_profile",
    "parse_predicate",
    "syntax_error",
    "to_text",
]
