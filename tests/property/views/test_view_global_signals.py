"""Global cells and blocks equal the plain fold, whatever the batches, flushes and crashes."""

from __future__ import annotations

import random
from collections import defaultdict

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from materializers import decay
from materializers.rows.blocks import Resolution, decode_block, decode_deltas, split_block_key
from materializers.rows.cells import cell_key, decode_cells, decode_changes
from materializers.rows.ordinals import decode_new_ordinals, decode_ordinal
from materializers.views.global_signals import VIEW, GlobalSignals
from schemas.ids import entity_id
from tests.memory_rows import MemoryRows
from tests.oracle import CleanFold, Event
from tests.view_harness import Partition, flush, run, small_schema
from tests.view_strategies import DAY_MS, HOUR_MS, MINUTE_MS, Cuts, cuts, streams

SCHEMA = small_schema()


def folded(events: list[Event]) -> CleanFold:
    fold = CleanFold(SCHEMA)
    for event in events:
        fold.accept(event)
    return fold


def block_totals(rows: MemoryRows, table: str, bucket_ms: int) -> dict[tuple[str, str, int], tuple[int, int]]:
    """(item, signal, bucket start) -> count and sum, from every block of the table."""
    names = {signal.code: signal.name for signal in SCHEMA.signal_list}
    items = [decode_ordinal(value) for _, value in rows.scan("item_ids")]
    totals: dict[tuple[str, str, int], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for key, value in rows.scan(table):
        bucket = split_block_key(key)[1] * MINUTE_MS // bucket_ms * bucket_ms
        block = decode_block(value)
        for item, signal, count, total in zip(
            block.item, block.signal, block.count.tolist(), block.sum.tolist(), strict=True
        ):
            cell = (items[item], names[int(signal)], bucket)
            totals[cell] = (totals[cell][0] + count, totals[cell][1] + total)
    return dict(totals)


def check_cells(rows: MemoryRows, fold: CleanFold, at_ms: int) -> None:
    for item, signal in fold.cells():
        declared = SCHEMA.signals[signal]
        [value] = rows.get_many("global_cells", [cell_key(entity_id(item), declared.code)])
        assert value is not None
        cells = decode_cells([value])
        assert cells.count.tolist() == [fold.count(item, signal)]
        assert cells.sum.tolist() == [fold.sum(item, signal)]
        for column, half_life_ms in enumerate(declared.decay.half_lives_ms):
            expected = fold.decay(item, signal, half_life_ms, at_ms)
            scale = sum(abs(event.weight) for event in fold.events) / 1e6
            actual = decay.score(cells.acc[0, column], int(cells.ref_ms[0]), half_life_ms, at_ms)
            assert actual == pytest.approx(expected, rel=1e-9, abs=1e-12 * scale)


@given(streams(), cuts)
def test_cells_and_blocks_equal_the_fold(events: list[Event], cut: Cuts) -> None:
    partition = run(
        Partition(SCHEMA),
        VIEW.build,
        "item_batch",
        cut.batches(events),
        flush_after=cut.flush_after,
        crash_after=cut.crash_after,
    )
    fold = folded(events)
    check_cells(partition.rows, fold, max(event.ts_ms for event in events) + HOUR_MS)
    for bucket_ms in (HOUR_MS, DAY_MS):
        assert block_totals(partition.rows, "global_blocks", bucket_ms) == fold.buckets(bucket_ms)


@given(streams(), cuts)
def test_days_that_are_not_kept_by_the_hour_equal_the_fold(events: list[Event], cut: Cuts) -> None:
    limits = msgspec.structs.replace(SCHEMA.limits, hour_buckets_kept_ms=2 * DAY_MS)
    schema = msgspec.structs.replace(SCHEMA, limits=limits)
    last = events[-1]._replace(offset=len(events), record_ms=events[-1].record_ms + HOUR_MS)
    partition = run(
        Partition(schema),
        VIEW.build,
        "item_batch",
        [*cut.batches(events), [last]],
        flush_after=cut.flush_after,
        crash_after=cut.crash_after,
    )
    view = VIEW.build(partition.context())
    view.restore(partition.rows)
    view.on_batch(partition.item_batch([last._replace(offset=len(events) + 1)]))
    for _ in range(3):  # a flush merges what the ones before it wrote: minutes, then hours
        flush(view, partition.rows)
    fold = folded([*events, last, last])
    check_cells(partition.rows, fold, last.ts_ms)
    assert block_totals(partition.rows, "global_blocks", DAY_MS) == fold.buckets(DAY_MS)
    kept_from = (last.record_ms - 2 * DAY_MS) // DAY_MS * DAY_MS
    for key, _ in partition.rows.scan("global_blocks"):
        resolution, bucket, _ = split_block_key(key)
        assert (resolution is Resolution.DAY) == (bucket * MINUTE_MS < kept_from)


@given(streams(), cuts)
def test_minute_buckets_hold_recent_events_exactly(events: list[Event], cut: Cuts) -> None:
    batches = cut.batches(events)
    partition = run(Partition(SCHEMA), VIEW.build, "item_batch", batches, flush_after=cut.flush_after)
    newest = max(event.record_ms for event in events)
    since = (newest - 2 * HOUR_MS) // MINUTE_MS * MINUTE_MS
    horizon = SCHEMA.limits.late_minute_horizon_ms
    recent = [event for event in events if event.ts_ms >= since and event.record_ms - event.ts_ms <= horizon]
    rows = MemoryRows()
    rows.tables = {
        "item_ids": partition.rows.tables["item_ids"],
        "minutes": {
            key: value
            for key, value in partition.rows.tables["global_blocks"].items()
            if split_block_key(key)[0] is Resolution.MINUTE and split_block_key(key)[1] * MINUTE_MS >= since
        },
    }
    assert block_totals(rows, "minutes", MINUTE_MS) == folded(recent).buckets(MINUTE_MS)


@given(streams(), st.randoms(use_true_random=False))
def test_a_shuffled_stream_gives_the_same_scores(events: list[Event], chance: random.Random) -> None:
    shuffled = chance.sample(events, len(events))
    one = run(Partition(SCHEMA), VIEW.build, "item_batch", [events])
    other = run(Partition(SCHEMA), VIEW.build, "item_batch", [shuffled[:7], shuffled[7:]])
    for key, value in one.rows.scan("global_cells"):
        [again] = other.rows.get_many("global_cells", [key])
        assert again is not None
        left, right = decode_cells([value]), decode_cells([again])
        assert left.count.tolist() == right.count.tolist()
        assert left.ref_ms.tolist() == right.ref_ms.tolist()
        np.testing.assert_allclose(left.acc, right.acc, rtol=1e-9, atol=1e-9)


@given(streams(), cuts)
def test_the_feed_tells_a_reader_the_same(events: list[Event], cut: Cuts) -> None:
    rows = run(
        Partition(SCHEMA), VIEW.build, "item_batch", cut.batches(events), flush_after=cut.flush_after
    ).rows
    items: list[str] = []
    counts: dict[tuple[str, int], int] = {}
    deltas: dict[tuple[str, int, int], int] = defaultdict(int)
    for section, payload in rows.fed:
        if section == "item_ids":
            fresh = decode_new_ordinals(payload)
            assert fresh.first == len(items)
            items += fresh.strings
        elif section == "global_cells":
            changes = decode_changes(payload)
            for item, code, count in zip(changes.item, changes.signal, changes.cells.count, strict=True):
                counts[items[item], int(code)] = int(count)
        else:
            added = decode_deltas(payload)
            for item, code, bucket, count in zip(
                added.cells.item, added.cells.signal, added.bucket, added.cells.count, strict=True
            ):
                deltas[items[item], int(code), int(bucket) // 60] += int(count)
    fold = folded(events)
    codes = {name: signal.code for name, signal in SCHEMA.signals.items()}
    assert counts == {(item, codes[signal]): fold.count(item, signal) for item, signal in fold.cells()}
    assert dict(deltas) == {
        (item, codes[signal], start // HOUR_MS): count
        for (item, signal, start), (count, _) in fold.buckets(HOUR_MS).items()
    }


@given(streams(), cuts, st.integers(1, 6))
def test_a_tiny_memory_bound_loses_no_count(events: list[Event], cut: Cuts, cells_max: int) -> None:
    partition = run(
        Partition(SCHEMA),
        lambda context: GlobalSignals(context, cells_max=cells_max),
        "item_batch",
        cut.batches(events),
        flush_after=frozenset(range(100)),
    )
    check_cells(partition.rows, folded(events), max(event.ts_ms for event in events))
