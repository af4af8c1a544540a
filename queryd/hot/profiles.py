"""Cohort profiles as dictionary-encoded columns: a predicate over dimensions is a mask over profiles.

With ten dimensions and some segments there are nearly as many profiles as users, so what is kept of one is
small: a byte for each dimension (two or four when it has many values), and 24 to 48 bytes of an index from
the hash of its string. The string itself is not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from materializers.int_index import IntIndex
from queryd.hot.arrays import I64, U32, Mask, grown
from schemas.cohort_profile import parse_profile
from schemas.ids import entity_ids
from schemas.predicate import And, Comparison, Flag, Not, Or, Predicate
from schemas.predicate_match import as_text, matches_profile

_MASK_BYTES_MAX = 64 << 20
_COMPARED_MAX = 8  # up to so many values, comparing the column with each is quicker than looking up verdicts
_ABSENT = 0
_KEY_MASK = np.uint64((1 << 63) - 1)
_CODE_TYPES: tuple[type[np.unsignedinteger], ...] = (np.uint8, np.uint16, np.uint32)


class _Dimension:
    """The values of one dimension and each profile's value as a number: 1 for the first, 0 for none."""

    def __init__(self) -> None:
        self.code_of: dict[str, int] = {}
        self._codes: npt.NDArray[np.unsignedinteger] = np.zeros(0, dtype=np.uint8)

    @property
    def nbytes(self) -> int:
        return int(self._codes.nbytes)

    def set(self, profiles: Sequence[int], values: Sequence[str]) -> None:
        """These profiles, ascending, have these values."""
        codes = [self.code_of.setdefault(value, len(self.code_of) + 1) for value in values]
        kind = next(each for each in _CODE_TYPES if len(self.code_of) <= np.iinfo(each).max)
        if self._codes.dtype != kind:
            self._codes = self._codes.astype(kind)
        self._codes = grown(self._codes, profiles[-1] + 1, _ABSENT)
        self._codes[profiles] = codes

    def code(self, profile: int) -> int:
        """The number of a profile's value."""
        return int(self._codes[profile]) if profile < len(self._codes) else _ABSENT

    def matching(self, leaf: Flag | Comparison, name: str, begin: int, end: int) -> Mask:
        """Of profiles ``begin`` to before ``end``, those whose value satisfies ``leaf``, bool[end − begin].

        A value is judged once, however many profiles have it; no value matches nothing.
        """
        holds = [self.code_of[value] for value in self._named(leaf) if matches_profile(leaf, {name: value})]
        mask = np.zeros(end - begin, dtype=np.bool_)
        held = self._codes[begin:end]
        if len(holds) <= _COMPARED_MAX:
            for code in holds:
                mask[: len(held)] |= held == held.dtype.type(code)
            return mask
        verdicts = np.zeros(len(self.code_of) + 1, dtype=np.bool_)
        verdicts[holds] = True
        mask[: len(held)] = verdicts.take(held)
        return mask

    def _named(self, leaf: Flag | Comparison) -> Iterable[str]:
        """The values that can satisfy ``leaf``: those that it names, all where it compares."""
        if not isinstance(leaf, Comparison) or leaf.op not in ("=", "IN") or leaf.value is None:
            return self.code_of
        named = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
        return {text for text in map(as_text, named) if text in self.code_of}


@dataclass(slots=True)
class _Kept:
    """A mask of the first ``length`` profiles, with room for more."""

    mask: Mask
    length: int


class ProfileTable:
    """Every profile seen, numbered by queryd, and the masks of the cohorts that were asked for.

    A profile never changes, so a mask is extended when profiles are added and never computed again. One that
    was seen before its schema had a dimension has no value of it: it matches no comparison of it, and so the
    NOT of each. Two profile strings with the same 64-bit EntityId would be taken for one.
    """

    def __init__(self) -> None:
        self._count = 0
        self._index = IntIndex()
        self._dimensions: dict[str, _Dimension] = {}
        self._masks: OrderedDict[Predicate, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of the columns and the index, without the kept masks."""
        return self._index.nbytes + sum(dimension.nbytes for dimension in self._dimensions.values())

    def deal(self, strings: Sequence[str]) -> U32:
        """Ordinals u32[n] of profile strings; a new one gets the next."""
        if not strings:
            return np.zeros(0, dtype=np.uint32)
        keys = (np.asarray(entity_ids(list(strings)), dtype=np.uint64) & _KEY_MASK).astype(np.int64)
        found = self._index.find(keys)
        unknown = np.flatnonzero(found < 0)
        if len(unknown):
            found[unknown] = self._append(strings, keys, unknown)
        return found.astype(np.uint32)

    def mask(self, predicate: Predicate) -> Mask:
        """The profiles that satisfy a checked predicate, bool[len(self)] (do not change it)."""
        kept = self._masks.pop(predicate, None)
        if kept is None:
            kept = _Kept(self._evaluate(predicate, 0, self._count), self._count)
        elif kept.length < self._count:
            kept.mask = grown(kept.mask, self._count)
            kept.mask[kept.length : self._count] = self._evaluate(predicate, kept.length, self._count)
            kept.length = self._count
        self._masks[predicate] = kept
        self._evict()
        return kept.mask[: self._count]

    def profile(self, ordinal: int) -> dict[str, str]:
        """``{dimension: value}`` of a profile."""
        found = {}
        for name, dimension in self._dimensions.items():
            code = dimension.code(ordinal)
            if code != _ABSENT:
                found[name] = list(dimension.code_of)[code - 1]
        return found

    def knows(self, dimension: str, value: str) -> bool:
        """Whether any profile has this value."""
        found = self._dimensions.get(dimension)
        return found is not None and value in found.code_of

    def values(self, dimension: str) -> list[str]:
        """Values of a dimension that any profile has."""
        found = self._dimensions.get(dimension)
        return [] if found is None else list(found.code_of)

    def _append(self, strings: Sequence[str], keys: I64, unknown: I64) -> list[int]:
        """Deal ordinals to the strings at ``unknown``, some of which may be equal."""
        ordinals: list[int] = []
        dealt: dict[int, int] = {}
        columns: dict[str, tuple[list[int], list[str]]] = {}
        for row, key in zip(unknown.tolist(), keys[unknown].tolist(), strict=True):
            ordinal = dealt.get(key)
            if ordinal is None:
                ordinal = dealt[key] = self._count + len(dealt)
                for name, value in parse_profile(strings[row]).items():
                    profiles, values = columns.setdefault(name, ([], []))
                    profiles.append(ordinal)
                    values.append(value)
            ordinals.append(ordinal)
        for name, (profiles, values) in columns.items():
            self._dimensions.setdefault(name, _Dimension()).set(profiles, values)
        fresh = np.fromiter(dealt, dtype=np.int64, count=len(dealt))
        self._index.insert(fresh, np.arange(self._count, self._count + len(dealt)))
        self._count += len(dealt)
        return ordinals

    def _evaluate(self, predicate: Predicate, begin: int, end: int) -> Mask:
        match predicate:
            case And(children):
                mask = np.ones(end - begin, dtype=np.bool_)
                for child in children:
                    mask &= self._part(child, begin, end)
                return mask
            case Or(children):
                mask = np.zeros(end - begin, dtype=np.bool_)
                for child in children:
                    mask |= self._part(child, begin, end)
                return mask
            case Not(child):
                return ~self._part(child, begin, end)
            case Flag(name) | Comparison(name):
                dimension = self._dimensions.get(name)
                if dimension is not None:
                    return dimension.matching(predicate, name, begin, end)
        return np.zeros(end - begin, dtype=np.bool_)

    def _part(self, predicate: Predicate, begin: int, end: int) -> Mask:
        """As ``_evaluate``; of all profiles, the masks of leaves are kept for other predicates with them."""
        if begin == 0 and isinstance(predicate, Flag | Comparison):
            return self.mask(predicate)
        return self._evaluate(predicate, begin, end)

    def _evict(self) -> None:
        """Bound the bytes of masks; the least recently used go first."""
        masks_max = max(16, _MASK_BYTES_MAX // max(1, self._count))
        while len(self._masks) > masks_max:
            self._masks.popitem(last=False)
