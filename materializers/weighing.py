"""How much memory objects hold, by looking at them: no class has to keep count of itself.

Arrays are weighed exactly. Of a long container a few members are weighed and stand for all, so that a look at
millions of ids takes microseconds; what is outside of Python (RocksDB, producers) is not seen.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

import msgspec
import numpy as np
from pyroaring import BitMap

_SAMPLE: Final = 32
_ATOMS: Final = (str, bytes, bytearray, int, float, complex, bool)
_CODE: Final = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, property)
_BITMAP_PARTS: Final = ("n_bytes_array_containers", "n_bytes_run_containers", "n_bytes_bitset_containers")
_BITMAP_BYTES: Final = 120
"""Of an empty bitmap, with Python's object."""


class Scale:
    """Weighs objects. What was weighed once weighs nothing when it is met again.

    Args:
        without: objects that weigh nothing: shared ones, which somebody else counts.
    """

    def __init__(self, without: Iterable[object] = ()) -> None:
        self._without = list(without)  # alive as long as we are, or their ids would be others'
        self._seen = {id(each) for each in self._without}

    def weigh(self, thing: object) -> int:
        """Bytes of ``thing`` and of everything that only it leads to; files in memory are left out."""
        total = 0.0
        waiting: list[tuple[Any, float]] = [(thing, 1.0)]
        while waiting:
            found, times = waiting.pop()
            if found is None or isinstance(found, _CODE) or id(found) in self._seen:
                continue
            self._seen.add(id(found))
            self._without.append(found)
            own, members, count = _look(found)
            total += own * times
            sample = list(islice(members, _SAMPLE))
            if sample:
                share = times * max(1.0, count / len(sample))
                waiting.extend((member, share) for member in sample)
        return int(total)


def _look(found: Any) -> tuple[int, Iterator[Any], int]:
    """An object's own bytes, what it leads to, and how many of those there are (0 = all are told)."""
    if isinstance(found, np.ndarray):
        return _array(found)
    if isinstance(found, BitMap):
        statistics = found.get_statistics()
        return _BITMAP_BYTES + sum(statistics[part] for part in _BITMAP_PARTS), iter(()), 0
    own = sys.getsizeof(found)
    if isinstance(found, _ATOMS):
        return own, iter(()), 0
    if isinstance(found, dict):
        return own, (each for entry in found.items() for each in entry), 2 * len(found)
    if isinstance(found, (list, tuple, set, frozenset, deque)):
        return own, iter(found), len(found)
    return own, _attributes(found), 0


def _array(array: np.ndarray[Any, Any]) -> tuple[int, Iterator[Any], int]:
    if isinstance(array, np.memmap):
        return 0, iter(()), 0
    if array.base is None:
        return int(array.nbytes) + sys.getsizeof(array.dtype), iter(()), 0
    return 0, iter((array.base,)), 1


def _attributes(found: Any) -> Iterator[Any]:
    if isinstance(found, msgspec.Struct):
        names: Iterable[str] = found.__struct_fields__
    else:
        yield from getattr(found, "__dict__", {}).values()
        names = (name for kind in type(found).__mro__ for name in _slots(kind))
    for name in names:
        yield getattr(found, name, None)


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)
