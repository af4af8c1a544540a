"""Cohort profiles with the segments that hold added: what an event is stamped with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from materializers.interner import Interner
from schemas.cohort_profile import encode_profile, parse_profile

U32 = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]

_STAMPS_MAX: Final = 1 << 16
_HOLDS: Final = "true"


class SegmentStamps:
    """Profiles with the segments that hold added, each made once."""

    def __init__(self, names: Sequence[str], profiles: Interner) -> None:
        self._names = tuple(names)
        self._profiles = profiles
        self._stamped: dict[tuple[int, int], int] = {}

    def of(self, profile: U32, member: Sequence[Flags]) -> U32:
        """Profile wids u32[n] with segments added, of each segment bool[n]."""
        word = np.zeros(len(profile), dtype=np.uint64)
        for place, holds in enumerate(member):
            word |= holds.astype(np.uint64) << np.uint64(place)
        rows = np.flatnonzero(word)
        if not len(rows):
            return profile
        words, of_word = np.unique(word[rows], return_inverse=True)
        pairs, of_pair = np.unique((of_word << 32) | profile[rows].astype(np.int64), return_inverse=True)
        wids = [self._wid(int(pair & 0xFFFFFFFF), int(words[pair >> 32])) for pair in pairs.tolist()]
        stamped = profile.copy()
        stamped[rows] = np.array(wids, dtype=np.uint32)[of_pair]
        return stamped

    def _wid(self, profile: int, word: int) -> int:
        known = self._stamped.get((profile, word))
        if known is None:
            values = parse_profile(self._profiles.string(profile))
            held = {name: _HOLDS for place, name in enumerate(self._names) if word >> place & 1}
            known = int(self._profiles.ids([encode_profile({**values, **held})])[0])
            if len(self._stamped) >= _STAMPS_MAX:
                self._stamped.clear()
            self._stamped[profile, word] = known
        return known
