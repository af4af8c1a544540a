"""Cohort signals: counts by item, signal, cohort profile at event time, and bucket.

A profile is one combination of dimension values; a cohort, declared or composed tomorrow, is the exact sum
over the profiles that satisfy it.
"""

from __future__ import annotations

from materializers.batches import ItemBatch
from materializers.canonical import bucket_blocks, dictionary, several
from materializers.materializer import (
    Forgotten,
    PartitionContext,
    RowReader,
    RowWriter,
    Scope,
    TableSpec,
    View,
)
from materializers.ordinals import shared_ordinals
from materializers.rows.ordinals import ITEM_IDS, ITEM_PROFILES
from materializers.views.signal_blocks import block_log

BLOCKS_TABLE = "cohort_blocks"


class CohortSignals:
    """The fold of one item partition."""

    def __init__(self, context: PartitionContext) -> None:
        self._items = shared_ordinals(ITEM_IDS, context.rows, context.items)
        self._profiles = shared_ordinals(ITEM_PROFILES, context.rows, context.profiles)
        self._blocks = block_log(BLOCKS_TABLE, context)

    def on_batch(self, batch: ItemBatch) -> None:
        """Gather events, anonymous ones under the empty profile, for the bucket blocks."""
        if not len(batch):
            return
        self._blocks.add(
            self._items.of(batch.item),
            batch.signal,
            batch.weight,
            batch.ts_ms,
            batch.record_ts_ms,
            profile=self._profiles.of(batch.profile),
        )

    def checkpoint(self, writer: RowWriter) -> None:
        """New ordinals before the blocks that mention them."""
        self._items.checkpoint(writer)
        self._profiles.checkpoint(writer)
        self._blocks.checkpoint(writer)

    def restore(self, reader: RowReader) -> None:
        """Both dictionaries; blocks are read when touched."""
        self._items.restore(reader)
        self._profiles.restore(reader)
        self._blocks.restore(reader)

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        """Counts and sums name no user: nothing to erase."""
        return {}


VIEW = View(
    name="cohort_signals",
    scope=Scope.ITEM,
    tables=(
        TableSpec(ITEM_IDS, "ordinal", bloom=False),
        TableSpec(ITEM_PROFILES, "ordinal", bloom=False),
        TableSpec(BLOCKS_TABLE, "resolution, bucket, seq", bloom=False),
    ),
    build=CohortSignals,
    canonical=several(
        dictionary(ITEM_IDS), dictionary(ITEM_PROFILES), bucket_blocks(BLOCKS_TABLE, profiles=True)
    ),
)
