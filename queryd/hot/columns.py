"""The hot columns as a whole: items, profiles, counts at both scopes, decayed scores, ordinal maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from queryd.hot.arrays import I64, U32, grown
from queryd.hot.cube import CountCube
from queryd.hot.decayed import DecayedColumns
from queryd.hot.history import HistoryCache
from queryd.hot.items import ItemColumns
from queryd.hot.profiles import ProfileTable
from schemas.model import Schema

NOT_MAPPED = np.uint32(0xFFFFFFFF)


class OrdinalMap:
    """The ordinals that one partition dealt, as queryd's: u32[local], ``NOT_MAPPED`` where not yet read."""

    def __init__(self) -> None:
        self._of: U32 = np.full(0, NOT_MAPPED, dtype=np.uint32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def set(self, first: int, ordinals: U32) -> None:
        """Local ordinals ``first``, first + 1, … are ``ordinals``."""
        end = first + len(ordinals)
        self._of = grown(self._of, end, NOT_MAPPED)
        self._of[first:end] = ordinals
        self._count = max(self._count, end)

    def translate(self, local: U32) -> U32:
        """queryd's ordinals u32[n] of local ones; those that are not known are ``NOT_MAPPED``."""
        translated = np.full(len(local), NOT_MAPPED, dtype=np.uint32)
        known = local < self._count
        translated[known] = self._of[local[known]]
        return translated

    def mapped(self) -> U32:
        """Every ordinal that the partition maps to."""
        known = self._of[: self._count]
        mapped: U32 = known[known != NOT_MAPPED]
        return mapped


class HotColumns:
    """Everything that queries read from memory. Written by the loader and the feeder, on one thread.

    Args:
        standing_bytes_max: bound on the kept sums of each of the two cubes.
    """

    def __init__(self, schema: Schema, standing_bytes_max: int = 256 << 20) -> None:
        self.schema = schema
        self.items = ItemColumns(schema.entities["item"])
        self.profiles = ProfileTable()
        self.everybody = CountCube(standing_bytes_max)
        self.by_profile = CountCube(standing_bytes_max)
        self.history = HistoryCache()
        self.decayed = [DecayedColumns(signal.decay.half_lives_ms) for signal in schema.signal_list]
        self.item_maps: dict[int, OrdinalMap] = {}
        self.profile_maps: dict[int, OrdinalMap] = {}
        self.user_item_maps: dict[int, OrdinalMap] = {}
        self._signal_of_code = {signal.code: index for index, signal in enumerate(schema.signal_list)}

    def signal_index(self, code: int) -> int | None:
        """Dense index of a stored signal code, None when the schema no longer has it."""
        return self._signal_of_code.get(code)

    def drop_item_partitions(self, partitions: Sequence[int]) -> None:
        """Forget every count of partitions whose rows were replaced; all at once, since each pass costs."""
        maps = [self.item_maps.pop(partition, OrdinalMap()) for partition in partitions]
        owned: U32 = np.concatenate([each.mapped() for each in maps])
        for partition in partitions:
            self.profile_maps.pop(partition, None)
        mask = np.zeros(len(self.items), dtype=np.bool_)
        mask[owned] = True
        self.everybody.drop_items(mask)
        self.by_profile.drop_items(mask)
        for columns in self.decayed:
            columns.drop(owned)

    def total_counts(self, signal: int) -> I64:
        """All-time counts i64[items] of the whole population."""
        return self.decayed[signal].counts(len(self.items))

    def total_sums(self, signal: int) -> I64:
        """All-time sums i64[items] in micro-units."""
        return self.decayed[signal].sums(len(self.items))
