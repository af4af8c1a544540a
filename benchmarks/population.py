"""A synthetic population: users with ten correlated dimensions and twenty segments that they enter and leave.

Attributes follow Zipf's law; language and region follow the country, the system follows the device, and all
segments lean on one hidden interest, as attributes and habits of people do. Few users send most events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Dimension:
    """``values`` by rank^−``skew``; ``follows``: one of ``values`` of its own for each of another's,
    or with ``loyalty`` one that is fixed by it."""

    name: str
    values: int
    skew: float
    follows: str | None = None
    loyalty: float = 0.0


DIMENSIONS: Final = (
    Dimension("gender", 3, 1.0),
    Dimension("age", 7, 0.6),
    Dimension("country", 40, 1.2),
    Dimension("language", 25, 1.2, "country", 0.85),
    Dimension("region", 12, 1.0, "country"),
    Dimension("device", 4, 1.0),
    Dimension("system", 6, 1.0, "device", 0.8),
    Dimension("plan", 4, 1.6),
    Dimension("occupation", 21, 0.9),
    Dimension("income", 6, 0.7),
)
SEGMENTS: Final = tuple(f"segment_{number}" for number in range(20))
_SEGMENT_SHARES: Final = np.geomspace(0.005, 0.3, len(SEGMENTS))
_MOVES_A_DAY: Final = 0.04  # a user's membership of a segment changes as often: enter and leave alike
_USER_SKEW: Final = 0.7
_ITEM_SKEW: Final = 0.8


class Population:
    """Users and items, and the draws of events among them."""

    def __init__(self, users: int, items: int, seed: int = 5) -> None:
        self.rng = np.random.default_rng(seed)
        self.users = users
        self.items = items
        self.values = self._values()
        self._interest = self.rng.normal(size=users)
        self.segments = np.zeros(users, dtype=np.uint32)
        for number in range(len(SEGMENTS)):
            self._settle(number, np.arange(users))
        self._user_edges = _edges(users, _USER_SKEW)
        self._item_edges = _edges(items, _ITEM_SKEW)
        self._item_order = self.rng.permutation(items).astype(np.uint32)

    def draw_users(self, count: int) -> I64:
        """Users of ``count`` events."""
        return np.searchsorted(self._user_edges, self.rng.random(count))

    def draw_items(self, count: int) -> U32:
        """Items of ``count`` events."""
        return self._item_order[np.searchsorted(self._item_edges, self.rng.random(count))]

    def pass_hours(self, hours: int = 1) -> None:
        """Some users enter and leave segments."""
        for number in range(len(SEGMENTS)):
            moves = self.rng.binomial(self.users, _MOVES_A_DAY * hours / 24)
            self._settle(number, self.rng.integers(0, self.users, moves))

    def dimension_keys(self) -> U32:
        """The same number for users with the same values of all dimensions, u32[users], from 0."""
        key = np.zeros(self.users, dtype=np.int64)
        for dimension in DIMENSIONS:
            column = self.values[dimension.name]
            key = key * (int(column.max()) + 1) + column
        return np.unique(key, return_inverse=True)[1].astype(np.uint32)

    def strings(self, users: I64, segments: U32 | None) -> list[str]:
        """Profile strings of ``users``, with the segments in the bits of u32[n], or without any."""
        before = sorted(name for name in self.values if name < SEGMENTS[0])
        after = sorted(name for name in self.values if name > SEGMENTS[0])
        heads = self._parts(before, users)
        tails = self._parts(after, users)
        if segments is None:
            middles = [""] * len(users)
        else:
            distinct, place = np.unique(segments, return_inverse=True)
            known = [_flags(held) for held in distinct.tolist()]
            middles = [known[number] for number in place.tolist()]
        return [
            f"{{{head[:-1]}{middle},{tail[:-1]}}}"
            for head, middle, tail in zip(heads, middles, tails, strict=True)
        ]

    def value(self, dimension: str, number: int) -> str:
        """The name of a dimension's value."""
        return f"{dimension[0]}{number}"

    def _parts(self, names: list[str], users: I64) -> list[str]:
        template = "".join(f'"{name}":"{name[0]}%d",' for name in names)
        columns = [self.values[name][users].tolist() for name in names]
        return [template % row for row in zip(*columns, strict=True)]

    def _values(self) -> dict[str, I64]:
        found: dict[str, I64] = {}
        for dimension in DIMENSIONS:
            drawn = np.searchsorted(_edges(dimension.values, dimension.skew), self.rng.random(self.users))
            if dimension.follows is not None:
                leader = found[dimension.follows]
                if dimension.loyalty:
                    loyal = self.rng.random(self.users) < dimension.loyalty
                    drawn = np.where(loyal, leader % dimension.values, drawn)
                else:
                    drawn = leader * dimension.values + drawn
            found[dimension.name] = drawn
        return found

    def _settle(self, number: int, users: I64) -> None:
        """Decide anew whether ``users`` are in a segment."""
        pull = 0.6 * self._interest[users] * (1 if number % 2 else -1)
        share = np.clip(_SEGMENT_SHARES[number] * np.exp(pull - 0.18), 0.0, 1.0)
        inside = self.rng.random(len(users)) < share
        bit = np.uint32(1 << number)
        self.segments[users] = np.where(inside, self.segments[users] | bit, self.segments[users] & ~bit)


def _flags(held: int) -> str:
    names = sorted(name for number, name in enumerate(SEGMENTS) if held >> number & 1)
    return "".join(f',"{name}":"true"' for name in names)


def _edges(count: int, skew: float) -> F64:
    edges: F64 = np.cumsum(1.0 / np.arange(1, count + 1) ** skew)
    edges /= edges[-1]
    return edges
