"""Strings become dense integers once, at the edge of the worker; every fold after that works on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
import numpy.typing as npt

from materializers.int_index import IntIndex
from schemas.errors import TidalError
from schemas.ids import entity_id

_GROWTH_MIN = 1024
_RECENT_MAX = 4_096
_KEY_MASK = (1 << 63) - 1


class IdCollisionError(TidalError):
    """Two different strings have the same 64-bit EntityId: the second one is refused, never merged."""

    def __init__(self, known: str, refused: str) -> None:
        super().__init__(
            f"id {refused!r} has the same 64-bit EntityId as {known!r}, which came first; "
            "give the entity another id and send the event again"
        )
        self.known = known
        self.refused = refused


class Interner:
    """A dictionary of strings local to one process: string -> dense u32 ("wid"), in order of first sight.

    ``""`` is always wid 0: the anonymous user, the item without a creator.
    Nothing durable hangs on these numbers: tables hold strings, EntityIds or a partition's own ordinals.
    """

    NONE = 0

    def __init__(self) -> None:
        self._wid_of: dict[str, int] = {"": 0}
        self._strings: list[str] = [""]
        self._entity_ids: npt.NDArray[np.uint64] = np.zeros(_GROWTH_MIN, dtype=np.uint64)
        self._by_entity = _EntityIds()

    def __len__(self) -> int:
        return len(self._strings)

    def ids(self, strings: Sequence[str]) -> npt.NDArray[np.uint32]:
        """Wids of ``strings``, u32[len(strings)], new strings dealt the next ones.

        Raises:
            IdCollisionError: a new string has the EntityId of a known one (nothing of it is kept).
        """
        looked_up = map(self._wid_of.get, strings, repeat(-1))
        found = np.fromiter(looked_up, dtype=np.int64, count=len(strings))
        for row in np.flatnonzero(found < 0).tolist():
            found[row] = self._deal(strings[row])
        return found.astype(np.uint32)

    def collisions(self, strings: Sequence[str]) -> list[IdCollisionError]:
        """The strings that ``ids`` would refuse, without dealing anything; call it when ``ids`` raised."""
        seen: dict[int, str] = {}
        refused: list[IdCollisionError] = []
        for string in strings:
            if string in self._wid_of:
                continue
            key = entity_id(string)
            known = self._by_entity.find(key, self._entity_ids)
            other = self._strings[known] if known is not None else seen.setdefault(key, string)
            if other != string:
                refused.append(IdCollisionError(other, string))
        return refused

    def find(self, string: str) -> int | None:
        """The wid of ``string`` if it has one."""
        return self._wid_of.get(string)

    def string(self, wid: int) -> str:
        return self._strings[wid]

    def strings(self, wids: npt.NDArray[np.uint32]) -> list[str]:
        """The strings of ``wids``, in order."""
        table = self._strings
        return [table[wid] for wid in wids.tolist()]

    @property
    def entity_ids(self) -> npt.NDArray[np.uint64]:
        """EntityId by wid, u64[len(self)]; 0 for the empty string. A view: do not keep it across ``ids``."""
        return self._entity_ids[: len(self._strings)]

    def forget(self, wid: int) -> None:
        """Drop a string from memory. Its number is never dealt again and stands for nothing: use it only
        when nothing refers to the number any more.
        """
        if wid == self.NONE:
            return
        self._wid_of.pop(self._strings[wid], None)
        self._strings[wid] = ""
        self._entity_ids[wid] = 0

    def _deal(self, string: str) -> int:
        wid = self._wid_of.get(string)
        if wid is not None:  # the same new string twice in one call
            return wid
        key = entity_id(string)
        known = self._by_entity.find(key, self._entity_ids)
        if known is not None:
            raise IdCollisionError(self._strings[known], string)
        wid = len(self._strings)
        if wid == len(self._entity_ids):
            self._entity_ids = np.concatenate([self._entity_ids, np.zeros_like(self._entity_ids)])
        self._wid_of[string] = wid
        self._strings.append(string)
        self._entity_ids[wid] = key
        self._by_entity.add(key, wid)
        return wid


class _EntityIds:
    """Who has an EntityId: 24 to 48 bytes for each, where a dict takes 116.

    It is asked for strings that are new only. What is found is held against the interner's own column, so a
    forgotten string, whose EntityId is 0 there, needs no removal.
    """

    def __init__(self) -> None:
        self._index = IntIndex()  # by the lower 63 bits, which IntIndex can hold
        self._alike: dict[int, int] = {}  # whose lower 63 bits the index has for another
        self._recent: dict[int, int] = {}

    def find(self, key: int, entity_ids: npt.NDArray[np.uint64]) -> int | None:
        """The wid that has the EntityId ``key`` now."""
        wid = self._recent.get(key)
        if wid is None:
            wid = self._alike.get(key)
        if wid is None:
            wid = self._index.find_one(key & _KEY_MASK)
        return wid if wid >= 0 and int(entity_ids[wid]) == key else None

    def add(self, key: int, wid: int) -> None:
        """``key`` belongs to ``wid`` from now on."""
        self._recent[key] = wid
        if len(self._recent) >= _RECENT_MAX:
            self._settle()

    def _settle(self) -> None:
        """Move the recent ones into the index, all at once."""
        lows = np.fromiter((key & _KEY_MASK for key in self._recent), dtype=np.int64, count=len(self._recent))
        held = self._index.find(lows) >= 0
        settling: dict[int, int] = {}
        for (key, wid), low, is_held in zip(self._recent.items(), lows.tolist(), held.tolist(), strict=True):
            if is_held or low in settling:
                self._alike[key] = wid
            else:
                settling[low] = wid
        self._recent.clear()
        keys = np.fromiter(settling, dtype=np.int64, count=len(settling))
        self._index.insert(keys, np.fromiter(settling.values(), dtype=np.int64, count=len(settling)))
