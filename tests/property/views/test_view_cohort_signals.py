"""Cohort blocks equal the plain fold for every profile, and so for every composite of dimensions."""

from __future__ import annotations

import json
from collections import defaultdict

from hypothesis import given

from materializers.rows.blocks import decode_block, split_block_key
from materializers.rows.ordinals import decode_ordinal
from materializers.views.cohort_signals import VIEW
from tests.memory_rows import MemoryRows
from tests.oracle import CleanFold, Event
from tests.view_harness import Partition, run, small_schema
from tests.view_strategies import HOUR_MS, MINUTE_MS, Cuts, cuts, streams

SCHEMA = small_schema()
NAMES = {signal.code: signal.name for signal in SCHEMA.signal_list}
Cell = tuple[str, str, str, int]


def totals(rows: MemoryRows) -> dict[Cell, tuple[int, int]]:
    items = [decode_ordinal(value) for _, value in rows.scan("item_ids")]
    profiles = [decode_ordinal(value) for _, value in rows.scan("item_profiles")]
    found: dict[Cell, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for key, value in rows.scan("cohort_blocks"):
        hour = split_block_key(key)[1] * MINUTE_MS // HOUR_MS * HOUR_MS
        block = decode_block(value)
        assert block.profile is not None
        columns = (block.item, block.signal, block.profile, block.count.tolist(), block.sum.tolist())
        for item, signal, profile, count, total in zip(*columns, strict=True):
            cell = (items[item], NAMES[int(signal)], profiles[profile], hour)
            found[cell] = (found[cell][0] + count, found[cell][1] + total)
    return dict(found)


@given(streams(), cuts)
def test_blocks_equal_the_fold(events: list[Event], cut: Cuts) -> None:
    partition = run(
        Partition(SCHEMA),
        VIEW.build,
        "item_batch",
        cut.batches(events),
        flush_after=cut.flush_after,
        crash_after=cut.crash_after,
    )
    fold = CleanFold(SCHEMA)
    for event in events:
        fold.accept(event)
    found = totals(partition.rows)
    assert found == fold.cohort_buckets(HOUR_MS)
    young_abroad = [
        count
        for (item, signal, profile, _), (count, _) in found.items()
        if (item, signal) == ("i0", "glance")
        and json.loads(profile).get("age") == "18-24"
        and json.loads(profile).get("locale") != "US"
    ]
    assert sum(young_abroad) == fold.cohort_count(
        lambda profile: profile.get("age") == "18-24" and profile.get("locale") != "US", "i0", "glance"
    )
