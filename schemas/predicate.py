"""Predicates, the public face: ``locale:US, age:18-24``, ``unseen``, ``view.count(24h) >= 10``."""

from __future__ import annotations

from schemas.predicate_ast import (
    And,
    Comparison,
    Flag,
    Leaf,
    Not,
    Or,
    Position,
    Predicate,
    SignalComparison,
    joined,
    leaves,
    subject,
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
    "Leaf",
    "Not",
    "Or",
    "Position",
    "Predicate",
    "PredicateTransformer",
    "SignalComparison",
    "check",
    "joined",
    "leaves",
    "matches_profile",
    "parse_predicate",
    "subject",
    "syntax_error",
    "to_text",
]
