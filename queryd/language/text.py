"""From a query back to text that parses to an equal one: what EXPLAIN and logs show."""

from __future__ import annotations

import json
import re

from queryd.language.ast import LIMIT_DEFAULT, Query
from schemas.model import Diversity
from schemas.predicate_text import to_text as predicate_text

_BARE_ID = re.compile(r"[^\s,\"':@][^\s,\"':]*")


def to_text(query: Query) -> str:
    """The query in one canonical spelling, clauses in one order."""
    explain = {"no": "", "plan": "EXPLAIN ", "analyze": "EXPLAIN ANALYZE "}[query.explain]
    clauses = [f"{explain}{query.verb.upper()} {query.entities}"]
    clauses += _what(query)
    clauses += _where(query)
    clauses += _how(query)
    return " ".join(clauses)


def _what(query: Query) -> list[str]:
    clauses = []
    if query.text is not None:
        clauses.append(f"QUERY {_quoted(query.text)}")
    if query.vector:
        clauses.append(f"VECTOR [{', '.join(repr(value) for value in query.vector)}]")
    if query.like is not None:
        clauses.append(f"LIKE {_reference('item', query.like)}")
    if query.user is not None:
        clauses.append(f"FOR USER {_reference('', query.user)}")
    if query.profile is not None:
        clauses.append(f"USING PROFILE {query.profile}")
    return clauses


def _where(query: Query) -> list[str]:
    clauses = []
    if query.filter is not None:
        clauses.append(f"FILTER {predicate_text(query.filter)}")
    if query.within is not None:
        clauses.append(f"WITHIN {_scope(query.within.kind, query.within.target)}")
    if query.cohort is not None:
        clauses.append(f"COHORT {predicate_text(query.cohort)}")
    if query.signal is not None:
        clauses.append(f"SIGNAL {query.signal}")
    if query.window is not None:
        clauses.append(f"WINDOW {query.window}")
    return clauses


def _how(query: Query) -> list[str]:
    clauses = []
    if query.sort is not None:
        clauses.append(f"SORT BY {query.sort}")
    if query.diversity is not None and query.diversity != Diversity():
        clauses.append(f"DIVERSITY {{{_diversity(query.diversity)}}}")
    if query.fields:
        clauses.append(f"FIELDS {', '.join(query.fields)}")
    if query.limit != LIMIT_DEFAULT:
        clauses.append(f"LIMIT {query.limit}")
    for keyword, value in (("CURSOR", query.cursor), ("AFTER", query.after)):
        if value is not None:
            clauses.append(f"{keyword} {_quoted(value)}")
    if query.as_of_ms is not None:
        clauses.append(f"AS OF {query.as_of_ms}")
    if query.seed is not None:
        clauses.append(f"SEED {query.seed}")
    return clauses


def _scope(kind: str, target: str | None) -> str:
    if target is None:
        return kind.upper()
    return (
        f"SIMILAR TO {_reference('item', target)}"
        if kind == "similar"
        else f"CREATOR {_reference('', target)}"
    )


def _diversity(rules: Diversity) -> str:
    parts = [
        f"{name}:{value}"
        for name, value in (
            ("max_per_creator", rules.max_per_creator),
            ("max_per_category", rules.max_per_category),
        )
        if value is not None
    ]
    if rules.format_mix:
        shares = ", ".join(f"{_quoted(name)}:{share!r}" for name, share in rules.format_mix.items())
        parts.append(f"format_mix:{{{shares}}}")
    if rules.mmr is not None:
        parts.append(f"mmr:{rules.mmr!r}")
    return ", ".join(parts)


def _reference(kind: str, id_: str) -> str:
    if not _BARE_ID.fullmatch(id_):
        return _quoted(id_)
    return f"@{kind}:{id_}" if kind else f"@{id_}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
