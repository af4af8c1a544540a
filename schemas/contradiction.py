"""Whether a cohort is one that nobody can ever be in: ``locale:US AND locale:CA``, ``x AND NOT x``.

Small case analysis: a predicate over dimensions can tell only few values apart (those that it names, anything
else, none at all), so it is tried with each, one dimension after the other, and a branch is left as soon as
what is chosen already makes it false. A contradiction is certain; where the cases would be too many, or a
dimension is continuous, the answer is no.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, count, pairwise
from typing import Final

from schemas.predicate_ast import And, Comparison, Flag, Not, Or, Predicate, Scalar, leaves, subject
from schemas.predicate_match import as_number, as_text, matches_profile

WORK_MAX: Final = 10_000
"""Conditions that are judged, over all cases: some 10 ms, once for each cohort that is asked for."""
_PARTS_MAX: Final = 4
_UNUSUAL: Final = 0xE000
"""First of the characters that stand for "anything else": the first that no value of the predicate has."""

Values = tuple[str | None, ...]
"""Values to try, None: the user has none."""


class _TooMany(Exception):  # noqa: N818 - ends the analysis, nobody else sees it
    pass


def is_contradiction(predicate: Predicate, labels: Mapping[str, Sequence[str]] | None = None) -> bool:
    """Whether no user can satisfy a checked predicate.

    Args:
        labels: all values of the dimensions that have buckets.
    """
    about: dict[str, list[Comparison | Flag]] = {}
    for leaf in leaves(predicate):
        if isinstance(leaf, Comparison | Flag):
            about.setdefault(subject(leaf), []).append(leaf)
    try:
        cases = {name: _cases(found, (labels or {}).get(name, ())) for name, found in about.items()}
        return not _Search(predicate, cases, WORK_MAX // max(1, sum(map(len, about.values())))).satisfiable()
    except _TooMany:
        return False


class _Search:
    def __init__(self, predicate: Predicate, cases: Mapping[str, Values], trials_max: int) -> None:
        self._predicate = predicate
        self._cases = cases
        self._names = sorted(cases, key=lambda name: len(cases[name]))
        self._trials_left = trials_max

    def satisfiable(self) -> bool:
        return self._possible({}, 0)

    def _possible(self, chosen: dict[str, str | None], depth: int) -> bool:
        self._trials_left -= 1
        if self._trials_left < 0:
            raise _TooMany
        verdict = _verdict(self._predicate, chosen)
        if verdict is not None:
            return verdict
        name = self._names[depth]
        return any(self._possible({**chosen, name: value}, depth + 1) for value in self._cases[name])


def _verdict(predicate: Predicate, chosen: Mapping[str, str | None]) -> bool | None:
    """What the predicate is with the values chosen so far; None while that is open."""
    match predicate:
        case And(children):
            return _joined([_verdict(child, chosen) for child in children], decisive=False)
        case Or(children):
            return _joined([_verdict(child, chosen) for child in children], decisive=True)
        case Not(child):
            inner = _verdict(child, chosen)
            return None if inner is None else not inner
        case Flag() | Comparison():
            return _leaf_verdict(predicate, chosen)
        case _:
            return None


def _joined(verdicts: Sequence[bool | None], *, decisive: bool) -> bool | None:
    if decisive in verdicts:
        return decisive
    return None if None in verdicts else not decisive


def _leaf_verdict(leaf: Flag | Comparison, chosen: Mapping[str, str | None]) -> bool | None:
    name = subject(leaf)
    if name not in chosen:
        return None
    value = chosen[name]
    return matches_profile(leaf, {} if value is None else {name: value})


def _cases(about: Sequence[Comparison | Flag], labels: Sequence[str]) -> Values:
    """Values of one name of which one satisfies any combination of ``about`` that can be satisfied."""
    if any(isinstance(leaf, Flag) for leaf in about):
        return ("true", None)
    if labels:
        return (*labels, None)
    comparisons = [leaf for leaf in about if isinstance(leaf, Comparison)]
    named = [value for leaf in comparisons for value in _operands(leaf) if leaf.op != "CONTAINS"]
    parts = {as_text(value) for leaf in comparisons if leaf.op == "CONTAINS" for value in _operands(leaf)}
    texts = [as_text(value) for value in named]
    return (*dict.fromkeys([*texts, *_between(named), *_containing(sorted(parts), texts)]), None)


def _operands(leaf: Comparison) -> tuple[Scalar, ...]:
    if leaf.value is None:
        return ()
    return leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)


def _between(named: Sequence[Scalar]) -> Iterator[str]:
    """Numbers below, between and above those that are named."""
    numbers = sorted({number for value in named if (number := as_number(value)) is not None})
    if numbers:
        yield from (repr(numbers[0] - 1.0), repr(numbers[-1] + 1.0))
        yield from (repr((low + high) / 2) for low, high in pairwise(numbers))


def _containing(parts: Sequence[str], texts: Sequence[str]) -> Iterator[str]:
    """Texts of none of the values, each with another choice of the parts and no part that is not in those."""
    if len(parts) > _PARTS_MAX:
        raise _TooMany
    spelt = {*"".join((*parts, *texts))}
    other = next(char for char in map(chr, count(_UNUSUAL)) if char not in spelt)
    for size in range(len(parts) + 1):
        for chosen in combinations(parts, size):
            yield other + other.join(chosen)
