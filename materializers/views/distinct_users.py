"""Distinct users: who sent a signal about an item, by day, hour and cohort profile.

One structure answers every window, any time in the past and every cohort, for an item or for all items of a
creator: users are united, not added. Exact up to a number of users for each day, item and signal, a uniform
sample above it (``materializers.user_sample``). Only signals that declare ``distinct_users`` are kept.
"""

from __future__ import annotations

import numpy as np

from materializers.batches import ItemBatch
from materializers.canonical import dictionary, several
from materializers.canonical_users import distinct_users
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
from materializers.rows.distinct_users import TABLE, Entries
from materializers.rows.ordinals import ITEM_IDS, ITEM_PROFILES
from materializers.user_runs import UserRuns
from materializers.views.signal_columns import signal_codes
from schemas.durations import DAY_MS
from schemas.ids import NOBODY

_MINUTE_MS = 60_000
_MINUTES_IN_HOUR = 60
_HOURS_IN_DAY = 24


class DistinctUsers:
    """The fold of one item partition."""

    def __init__(self, context: PartitionContext) -> None:
        schema = context.schema
        self._codes = signal_codes(schema)
        self._declared = np.array([signal.distinct_users for signal in schema.signal_list], dtype=np.bool_)
        self._items = shared_ordinals(ITEM_IDS, context.rows, context.items)
        self._profiles = shared_ordinals(ITEM_PROFILES, context.rows, context.profiles)
        self._runs = UserRuns(context.rows, schema.limits.distinct_users_days)

    def on_batch(self, batch: ItemBatch) -> None:
        """Gather visits; an anonymous event is nobody's."""
        if not len(batch):
            return
        rows = np.flatnonzero(self._declared[batch.signal] & (batch.user != NOBODY))
        minute = batch.ts_ms[rows] // _MINUTE_MS
        hour, in_hour = np.divmod(minute, _MINUTES_IN_HOUR)
        day, of_day = np.divmod(hour, _HOURS_IN_DAY)
        first = in_hour.astype(np.uint8)
        entries = Entries(
            day=day.astype(np.uint32),
            item=self._items.of(batch.item[rows]),
            signal=self._codes[batch.signal[rows]],
            user=batch.user[rows],
            profile=self._profiles.of(batch.profile[rows]),
            hour=of_day.astype(np.uint8),
            first=first,
            last=first,
        )
        self._runs.add(entries, int(batch.record_ts_ms.max()) // DAY_MS)

    def checkpoint(self, writer: RowWriter) -> None:
        """New ordinals before the blocks that mention them."""
        self._items.checkpoint(writer)
        self._profiles.checkpoint(writer)
        self._runs.checkpoint(writer)

    def restore(self, reader: RowReader) -> None:
        """Both dictionaries; blocks are read when merged."""
        self._items.restore(reader)
        self._profiles.restore(reader)
        self._runs.restore(reader)

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        """Take the users out of every block: they are counted nowhere any more."""
        changed = self._runs.forget(users.entity_ids, writer)
        return {TABLE: changed} if changed else {}


VIEW = View(
    name="distinct_users",
    scope=Scope.ITEM,
    tables=(
        TableSpec(ITEM_IDS, "ordinal", bloom=False),
        TableSpec(ITEM_PROFILES, "ordinal", bloom=False),
        TableSpec(TABLE, "day, run, last item, block", bloom=False),
    ),
    build=DistinctUsers,
    canonical=several(dictionary(ITEM_IDS), dictionary(ITEM_PROFILES), distinct_users),
)
