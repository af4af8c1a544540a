"""Random composites of dimensions, each as text for the engine and as a plain function of a profile."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

Profile: TypeAlias = Mapping[str, str]
"""``{dimension: value}``; a dimension without a value is absent."""


class Composite(NamedTuple):
    """A predicate, and whether somebody with a profile is in it."""

    text: str
    belongs: Callable[[Profile], bool]


def random_composites(
    seed: int, values: Mapping[str, Sequence[str]], count: int, depths: tuple[int, int] = (2, 4)
) -> list[Composite]:
    """``count`` composites with AND, OR and NOT, nested as deep as ``depths`` (least, most) says."""
    draw = random.Random(seed)
    return [_nested(draw, values, draw.randint(*depths)) for _ in range(count)]


def _nested(draw: random.Random, values: Mapping[str, Sequence[str]], depth: int) -> Composite:
    if depth == 1:
        return _leaf(draw, values)
    kind = draw.choice(("AND", "AND", "OR", "OR", "NOT"))
    first = _nested(draw, values, depth - 1)
    if kind == "NOT":
        return Composite(f"NOT ({first.text})", lambda profile: not first.belongs(profile))
    others = [_nested(draw, values, draw.randint(1, depth - 1)) for _ in range(draw.randint(1, 2))]
    parts = draw.sample([first, *others], len(others) + 1)
    decide = all if kind == "AND" else any
    text = f" {kind} ".join(f"({part.text})" for part in parts)
    return Composite(text, lambda profile: decide(part.belongs(profile) for part in parts))


def _leaf(draw: random.Random, values: Mapping[str, Sequence[str]]) -> Composite:
    name = draw.choice(sorted(values))
    chosen = draw.sample(list(values[name]), min(len(values[name]), draw.randint(1, 3)))
    quoted = [json.dumps(value, ensure_ascii=False) for value in chosen]
    form = draw.random()
    if form < 0.2:
        return Composite(f"{name} IN ({', '.join(quoted)})", lambda profile: profile.get(name) in chosen)
    if form < 0.3:
        return Composite(
            f"{name} != {quoted[0]}", lambda profile: name in profile and profile[name] != chosen[0]
        )
    if form < 0.35:
        return Composite(f"{name} EXISTS", lambda profile: name in profile)
    return Composite(f"{name}:{quoted[0]}", lambda profile: profile.get(name) == chosen[0])
