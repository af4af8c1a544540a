"""Counts of hours that are no longer apart in memory, read from the tables' blocks."""

from __future__ import annotations

import numpy as np

from materializers.materializer import Scope
from materializers.rows.blocks import BlockColumns, Resolution, block_range, decode_block, split_block_key
from queryd.hot.arrays import I64, U32, Mask
from queryd.hot.buckets import Cells, joined
from queryd.hot.columns import NOT_MAPPED, HotColumns
from queryd.hot.cube import BucketRange
from queryd.hot.tables import Tables

GLOBAL_BLOCKS = "global_blocks"
COHORT_BLOCKS = "cohort_blocks"
_MINUTES_IN_HOUR = 60
_BUCKET_MAX = 2**32 - 1


class ColdTier:
    """Hour (and, for hours not yet merged, minute) blocks of the item shard, exact at the hour."""

    def __init__(self, tables: Tables, hot: HotColumns) -> None:
        self._tables = tables
        self._hot = hot

    def cells(self, signal: int, wanted: BucketRange, mask: Mask | None, *, by_profile: bool) -> Cells:
        """Cells of one signal in a range of hours, of the profiles that ``mask`` allows."""
        assert not wanted.minutes, "minutes are merged into hours"
        table = COHORT_BLOCKS if by_profile else GLOBAL_BLOCKS
        code = self._hot.schema.signal_list[signal].code
        first = max(wanted.low, 0) * _MINUTES_IN_HOUR
        end = min((wanted.high + 1) * _MINUTES_IN_HOUR, _BUCKET_MAX)
        pieces = [_NOTHING]
        for partition in self._tables.partitions(Scope.ITEM):
            for resolution in (Resolution.MINUTE, Resolution.HOUR, Resolution.DAY):
                for _, value in self._tables.scan(table, partition, *block_range(resolution, first, end)):
                    pieces.append(self._piece(partition, decode_block(value), code, mask))
        return joined([piece for piece in pieces if len(piece)] or pieces[:1])

    def _piece(self, partition: int, block: BlockColumns, code: int, mask: Mask | None) -> Cells:
        rows = np.flatnonzero(block.signal == code)
        items = self._hot.item_maps[partition].translate(block.item[rows])
        kept = items != NOT_MAPPED
        if mask is not None and block.profile is not None:
            profiles = self._hot.profile_maps[partition].translate(block.profile[rows])
            kept &= (profiles != NOT_MAPPED) & mask[np.where(profiles == NOT_MAPPED, 0, profiles)]
        rows, items = rows[kept], items[kept]
        return Cells(items, None, block.count[rows].astype(np.uint32), block.sum[rows])


def hour_of(key: bytes) -> tuple[int | None, int]:
    """(minute bucket or None, hour bucket) of a block's key, in buckets since 1970."""
    resolution, bucket, _ = split_block_key(key)
    minute = bucket if resolution == Resolution.MINUTE else None
    return minute, bucket // _MINUTES_IN_HOUR


_EMPTY_U32: U32 = np.zeros(0, dtype=np.uint32)
_EMPTY_I64: I64 = np.zeros(0, dtype=np.int64)
_NOTHING = Cells(_EMPTY_U32, None, _EMPTY_U32, _EMPTY_I64)
