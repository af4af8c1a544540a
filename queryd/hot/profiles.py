"""Cohort profiles as dictionary-encoded columns: a predicate over dimensions is a mask over profiles."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from queryd.hot.arrays import I32, U32, Mask, grown
from schemas.cohort_profile import parse_profile
from schemas.predicate import And, Comparison, Flag, Not, Or, Predicate
from schemas.predicate_match import matches_profile

_MASKS_MAX = 256
_ABSENT = -1


class _Dimension:
    """The values of one dimension and each profile's value as a number (−1: none)."""

    def __init__(self) -> None:
        self.values: list[str] = []
        self._code_of: dict[str, int] = {}
        self.codes: I32 = np.full(0, _ABSENT, dtype=np.int32)

    def __contains__(self, value: str) -> bool:
        return value in self._code_of

    def set(self, profile: int, value: str) -> None:
        code = self._code_of.get(value)
        if code is None:
            code = self._code_of[value] = len(self.values)
            self.values.append(value)
        self.codes = grown(self.codes, profile + 1, _ABSENT)
        self.codes[profile] = code


class ProfileTable:
    """Every profile seen, numbered by queryd, and the masks of the cohorts that were asked for.

    A profile never changes, so a mask is extended when profiles are added and never computed again.
    """

    def __init__(self) -> None:
        self.strings: list[str] = []
        self._ordinal_of: dict[str, int] = {}
        self._dimensions: dict[str, _Dimension] = {}
        self._masks: OrderedDict[Predicate, Mask] = OrderedDict()

    def __len__(self) -> int:
        return len(self.strings)

    def deal(self, strings: Sequence[str]) -> U32:
        """Ordinals u32[n] of profile strings; a new one gets the next."""
        return np.array([self._deal(string) for string in strings], dtype=np.uint32)

    def mask(self, predicate: Predicate) -> Mask:
        """The profiles that satisfy a checked predicate, bool[len(self)] (do not change it)."""
        mask = self._masks.pop(predicate, None)
        if mask is None or len(mask) < len(self):
            mask = self._evaluate(predicate)
        self._masks[predicate] = mask
        if len(self._masks) > _MASKS_MAX:
            self._masks.popitem(last=False)
        return mask

    def knows(self, dimension: str, value: str) -> bool:
        """Whether any profile has this value."""
        found = self._dimensions.get(dimension)
        return found is not None and value in found

    def values(self, dimension: str) -> list[str]:
        """Values of a dimension that any profile has."""
        found = self._dimensions.get(dimension)
        return [] if found is None else list(found.values)

    def _deal(self, string: str) -> int:
        ordinal = self._ordinal_of.get(string)
        if ordinal is None:
            ordinal = self._ordinal_of[string] = len(self.strings)
            self.strings.append(string)
            for dimension, value in parse_profile(string).items():
                self._dimensions.setdefault(dimension, _Dimension()).set(ordinal, value)
        return ordinal

    def _evaluate(self, predicate: Predicate) -> Mask:
        match predicate:
            case And(children):
                return np.asarray(np.logical_and.reduce([self._evaluate(child) for child in children]))
            case Or(children):
                return np.asarray(np.logical_or.reduce([self._evaluate(child) for child in children]))
            case Not(child):
                return ~self._evaluate(child)
            case Flag(name):
                return self._leaf(predicate, name)
            case Comparison():
                return self._leaf(predicate, predicate.field)
            case _:
                return np.zeros(len(self), dtype=np.bool_)

    def _leaf(self, leaf: Flag | Comparison, name: str) -> Mask:
        """One value of a dimension is judged once, however many profiles have it."""
        mask = np.zeros(len(self), dtype=np.bool_)
        dimension = self._dimensions.get(name)
        if dimension is None:
            return mask
        verdicts = [matches_profile(leaf, {name: value}) for value in dimension.values]
        held = len(dimension.codes[: len(self)])
        # The last verdict is that of the number −1: a profile without a value matches nothing.
        mask[:held] = np.array([*verdicts, False], dtype=np.bool_)[dimension.codes[: len(self)]]
        return mask
