"""Which rows of a run belong to which profile: a chosen set of profiles becomes stretches of rows."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from queryd.hot.arrays import I64, U32, Mask, edges

_FEW: Final = 16  # looking up a row's profile costs as much as writing out those of so many
_LONG: Final = 64  # copying a stretch of so many rows costs as much as writing out their numbers
_TAKEN_AT_ONCE: Final = 65_536  # the numbers of so many rows stay in the processor's cache

Column = TypeVar("Column", bound=npt.NDArray[Any])


class Selection:
    """The profiles that a cohort allows: ``mask`` bool[profiles known]."""

    def __init__(self, mask: Mask) -> None:
        self.mask = mask

    @cached_property
    def edges(self) -> I64:
        """The allowed profiles as stretches of consecutive ones: first, last + 1, first, …"""
        return edges(self.mask)

    @property
    def others(self) -> Selection:
        """The profiles that it does not allow."""
        return Selection(~self.mask)


class Stretches:
    """Stretches of rows: where each begins, u32[n] ascending, and how many rows it has, u32[n], none 0."""

    def __init__(self, begins: U32, lengths: U32) -> None:
        self._begins = begins
        self._lengths = lengths

    def __len__(self) -> int:
        return int(self._lengths.sum(dtype=np.int64))

    @cached_property
    def rows(self) -> I64:
        """The rows, ascending."""
        return expanded(self._begins, self._lengths)

    def of(self, column: Column) -> Column:
        """What ``column`` has in these rows: not to be changed."""
        total = len(self)
        if not total:
            return column[:0]  # type: ignore[return-value]
        if total >= _LONG * len(self._begins):
            ends_of = zip(self._begins.tolist(), (self._begins + self._lengths).tolist(), strict=True)
            parts = [column[begin:end] for begin, end in ends_of]
            return parts[0] if len(parts) == 1 else np.concatenate(parts)  # type: ignore[return-value]
        taken = np.empty(total, dtype=column.dtype)
        ends = np.cumsum(self._lengths, dtype=np.int64)
        cuts = np.searchsorted(ends, np.arange(_TAKEN_AT_ONCE, total, _TAKEN_AT_ONCE))
        begin = 0
        for first, last in pairwise([0, *np.unique(cuts[cuts > 0]).tolist(), len(ends)]):
            end = int(ends[last - 1])
            rows = expanded(self._begins[first:last], self._lengths[first:last])
            column.take(rows, out=taken[begin:end], mode="clip")  # checking the rows would copy ``out``
            begin = end
        return taken  # type: ignore[return-value]


class ProfileIndex:
    """Which rows of a run each profile has: row ranges, ascending by profile.

    ``_profiles`` u32[m] with ``_starts`` u32[m + 1]; without the former, starts of every profile from 0. A
    profile may stand in ``_profiles`` twice in a row, and may have no rows.
    """

    __slots__ = ("_profiles", "_starts")

    def __init__(self, profiles: U32 | None, starts: U32) -> None:
        self._profiles = profiles
        self._starts = starts

    @classmethod
    def of(cls, profiles: U32, starts: U32) -> ProfileIndex:
        """The smaller of both forms for ``profiles`` u32[m], ascending, and ``starts`` u32[m + 1]."""
        known = int(profiles[-1]) + 1 if len(profiles) else 0
        if known > 2 * len(profiles):
            return cls(profiles, starts)
        ends = np.zeros(known + 1, dtype=np.uint32)
        # Of equal profiles the last is written last; an absent one begins where the next present one does.
        ends[profiles.astype(np.int64) + 1] = starts[1:]
        return cls(None, np.maximum.accumulate(ends))

    @property
    def nbytes(self) -> int:
        return int(self._starts.nbytes + (0 if self._profiles is None else self._profiles.nbytes))

    def ranges(self, chosen: Selection) -> Stretches:
        """Where stretches of rows of allowed profiles begin, and how many rows they have; none is empty.

        Profiles that lie beside each other share a stretch: a wide cohort has fewer of them than profiles.
        """
        if self._profiles is None:
            # Profiles that the run does not know yet have no rows: their stretch is empty, or ends sooner.
            places = np.minimum(chosen.edges, len(self._starts) - 1)
        else:
            places = edges(chosen.mask.take(self._profiles))
        bounds = self._starts.take(places)
        begins = bounds[::2]
        lengths = bounds[1::2] - begins
        held = np.flatnonzero(lengths)
        if len(held) == len(lengths):
            return Stretches(begins, lengths)
        return Stretches(begins.take(held), lengths.take(held))

    def rows_of(self, profile: int) -> tuple[int, int]:
        """First row of a profile, and the first row of a later one."""
        if self._profiles is None:
            last = len(self._starts) - 1
            return int(self._starts[min(profile, last)]), int(self._starts[min(profile + 1, last)])
        key = np.uint32(profile)
        low = int(np.searchsorted(self._profiles, key))
        high = int(np.searchsorted(self._profiles, key, side="right"))
        return int(self._starts[low]), int(self._starts[high])

    def column(self, low: int, high: int) -> U32:
        """The profile of each row from ``low`` to before ``high``."""
        if low == high:
            return np.zeros(0, dtype=np.uint32)
        first = int(np.searchsorted(self._starts, np.uint32(low), side="right")) - 1
        last = int(np.searchsorted(self._starts, np.uint32(high)))
        clipped: I64 = np.clip(self._starts[first : last + 1].astype(np.int64), low, high)
        lengths: I64 = clipped[1:] - clipped[:-1]
        if self._profiles is None:
            return np.repeat(np.arange(first, last, dtype=np.uint32), lengths)
        return np.repeat(self._profiles[first:last], lengths)

    def at(self, rows: I64) -> U32:
        """The profiles of ``rows``."""
        if len(rows) * _FEW > int(self._starts[-1]):
            return self.column(0, int(self._starts[-1])).take(rows)
        places = np.searchsorted(self._starts, rows.astype(np.uint32), side="right") - 1
        if self._profiles is None:
            return places.astype(np.uint32)
        return self._profiles.take(places)

    def keeping(self, kept: Mask) -> ProfileIndex:
        """The index after only the rows of bool[n] are kept."""
        before = np.concatenate([[0], np.cumsum(kept)]).astype(np.uint32)
        return ProfileIndex(self._profiles, before[self._starts])


def expanded(begins: U32, lengths: U32) -> I64:
    """begins[0], begins[0] + 1, … for ``lengths[0]`` rows, then those of the next range; none is empty.

    One sum over steps: half the time of repeating the begins and adding an arange.
    """
    if not len(begins):
        return np.zeros(0, dtype=np.int64)
    ends = np.cumsum(lengths, dtype=np.int64)
    steps = np.ones(int(ends[-1]), dtype=np.int64)
    steps[0] = begins[0]
    begin = begins.astype(np.int64)
    steps[ends[:-1]] = begin[1:] - (begin[:-1] + lengths[:-1] - 1)
    return np.cumsum(steps, out=steps)
