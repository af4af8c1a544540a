"""The partition that each id belongs to, computed once for each string that the worker has seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from materializers.interner import Interner
from streams.partitioner import partitions_for

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]

_CHUNK = 65_536


class Homes:
    """Partition by wid, u16; 2 bytes for each string."""

    def __init__(self, strings: Interner, partitions: int) -> None:
        self._strings = strings
        self._partitions = partitions
        self._homes: U16 = np.empty(1024, dtype=np.uint16)
        self._size = 0

    def of(self, wids: U32) -> U16:
        """Home partitions of ``wids``, u16[n]."""
        if len(self._strings) > self._size:
            self._extend()
        homes: U16 = self._homes[wids]
        return homes

    def _extend(self) -> None:
        end = len(self._strings)
        if end > len(self._homes):
            longer = np.empty(1 << end.bit_length(), dtype=np.uint16)
            longer[: self._size] = self._homes[: self._size]
            self._homes = longer
        for start in range(self._size, end, _CHUNK):
            wids = np.arange(start, min(end, start + _CHUNK), dtype=np.uint32)
            self._homes[wids] = partitions_for(self._strings.strings(wids), self._partitions)
        self._size = end
