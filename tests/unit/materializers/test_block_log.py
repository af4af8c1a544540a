"""How bucket blocks are packed, rewritten, cut and merged."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from materializers import blocks
from materializers.blocks import BLOCK_ROWS_MAX, OPEN_ROWS_MAX, BlockLog
from materializers.rows.blocks import Resolution, decode_block, decode_deltas, split_block_key
from tests.memory_rows import MemoryRows, MemoryWriter

TABLE = "blocks"
CODES = np.array([77, 5, 900], dtype=np.uint32)
HORIZON_MS = 7_200_000
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
START_MS = 1_763_600_400_000 // HOUR_MS * HOUR_MS
KEPT_MS = 33 * DAY_MS


class Log:
    """A ``BlockLog`` over rows in memory."""

    def __init__(self, rows: MemoryRows | None = None, **settings: Any) -> None:
        self.rows = rows or MemoryRows()
        self.blocks = BlockLog(TABLE, self.rows, CODES, HORIZON_MS, **settings)
        self.blocks.restore(self.rows)

    def add(
        self, items: list[int], ts_ms: int, *, record_ms: int | None = None, signal: int = 0, profile: int = 0
    ) -> None:
        n = len(items)
        self.blocks.add(
            np.array(items, dtype=np.uint32),
            np.full(n, signal, dtype=np.uint16),
            np.full(n, 1_000_000),
            np.full(n, ts_ms),
            np.full(n, ts_ms if record_ms is None else record_ms),
            np.full(n, profile, dtype=np.uint32),
        )

    def flush(self) -> list[tuple[str, bytes, bytes | None]]:
        """One checkpoint; the rows that it changed."""
        writer = MemoryWriter(self.rows)
        self.blocks.checkpoint(writer)
        changes = list(writer.changes)
        writer.commit()
        return changes

    def block_keys(self) -> list[tuple[Resolution, int, int]]:
        return [split_block_key(key) for key, _ in self.rows.scan(TABLE)]

    def counts(self, minutes: int = 60) -> Counter[tuple[int, int]]:
        """(item, hour, or bucket of so many minutes) -> events."""
        totals: Counter[tuple[int, int]] = Counter()
        for key, value in self.rows.scan(TABLE):
            block = decode_block(value)
            for item, count in zip(block.item.tolist(), block.count.tolist(), strict=True):
                totals[item, split_block_key(key)[1] // minutes] += count
        return totals

    def resolutions(self) -> set[Resolution]:
        return {resolution for resolution, _, _ in self.block_keys()}


def minute(ts_ms: int) -> int:
    return ts_ms // MINUTE_MS


def test_a_flush_has_one_row_for_each_cell_and_rewrites_the_open_block() -> None:
    log = Log()
    log.add([1, 1, 2, 1], START_MS)
    log.flush()
    log.add([2, 3], START_MS + 5)
    log.flush()
    assert log.block_keys() == [(Resolution.MINUTE, minute(START_MS), 0)]
    [(_, value)] = log.rows.scan(TABLE)
    block = decode_block(value)
    assert block.item.tolist() == [1, 2, 3]
    assert block.count.tolist() == [3, 2, 1]
    assert block.signal.tolist() == [77, 77, 77]


def test_the_feed_has_only_what_is_new() -> None:
    log = Log()
    log.add([1, 1], START_MS)
    log.flush()
    log.add([1], START_MS)
    log.flush()
    sections = [decode_deltas(payload) for _, payload in log.rows.fed]
    assert [deltas.cells.count.tolist() for deltas in sections] == [[2], [1]]
    assert [deltas.bucket.tolist() for deltas in sections] == [[minute(START_MS)], [minute(START_MS)]]


def test_an_idle_flush_writes_nothing() -> None:
    log = Log()
    assert log.flush() == []
    log.add([1], START_MS)
    log.flush()
    assert log.flush() == []
    assert len(log.rows.fed) == 1


def test_a_full_block_is_closed_and_the_next_begins() -> None:
    log = Log()
    log.add(list(range(OPEN_ROWS_MAX)), START_MS)
    log.flush()
    log.add([1], START_MS)
    changes = log.flush()
    assert [split_block_key(key)[2] for _, key, _ in changes] == [1], "the full block is not written again"
    assert log.counts()[1, START_MS // HOUR_MS] == 2


def test_a_bulk_is_cut_into_bounded_blocks() -> None:
    log = Log()
    log.add(list(range(2 * BLOCK_ROWS_MAX + 10)), START_MS)
    log.flush()
    sizes = [len(decode_block(value)) for _, value in log.rows.scan(TABLE)]
    assert sizes == [BLOCK_ROWS_MAX, BLOCK_ROWS_MAX, 10]
    log.add([5], START_MS)
    log.flush()
    assert [key[2] for key in log.block_keys()] == [0, 1, 2]


def test_old_events_go_to_hour_buckets() -> None:
    log = Log()
    log.add([1], START_MS, record_ms=START_MS + HORIZON_MS)
    log.add([2], START_MS, record_ms=START_MS + HORIZON_MS + 1)
    log.flush()
    assert log.block_keys() == [
        (Resolution.MINUTE, minute(START_MS), 0),
        (Resolution.HOUR, minute(START_MS), 0),
    ]


def test_closed_minutes_become_their_hour_without_a_change_of_content() -> None:
    log = Log()
    for number in range(90):
        log.add([number % 7, 3], START_MS + number * MINUTE_MS)
        log.flush()
    before = log.counts()
    log.add([3], START_MS + 4 * HOUR_MS + 30 * MINUTE_MS)
    log.flush()
    before[3, START_MS // HOUR_MS + 4] += 1
    assert log.counts() == before
    hours = [start for resolution, start, _ in log.block_keys() if resolution is Resolution.HOUR]
    assert hours == [minute(START_MS)], "the second hour ends less than three hours ago"
    assert (
        min(start for kind, start, _ in log.block_keys() if kind is Resolution.MINUTE)
        == minute(START_MS) + 60
    )


def test_minutes_stay_while_a_window_before_the_last_can_see_them() -> None:
    log = Log()
    log.add([1], START_MS + 59 * MINUTE_MS)
    log.flush()
    log.add([1], START_MS + 4 * HOUR_MS - 1)
    log.flush()
    assert {kind for kind, _, _ in log.block_keys()} == {Resolution.MINUTE}
    log.add([1], START_MS + 4 * HOUR_MS)
    log.flush()
    assert (Resolution.HOUR, minute(START_MS), 0) in log.block_keys()


def test_an_event_of_a_merged_hour_joins_the_hour() -> None:
    log = Log()
    log.add([1], START_MS)
    log.flush()
    log.add([2], START_MS + 5 * HOUR_MS)
    log.flush()
    log.add([1], START_MS, record_ms=START_MS + 1)
    log.flush()
    log.flush()
    assert log.counts()[1, START_MS // HOUR_MS] == 2
    assert (Resolution.MINUTE, minute(START_MS), 0) not in log.block_keys()


def test_merging_is_bounded_in_each_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_MERGE_ROWS_MIN", 40)
    log = Log()
    for number in range(60):
        log.add(list(range(10)), START_MS + number * MINUTE_MS)
        log.flush()
    log.add([1], START_MS + 10 * HOUR_MS)
    expected = log.counts() + Counter({(1, START_MS // HOUR_MS + 10): 1})
    waiting = []
    for _ in range(20):
        log.flush()
        assert log.counts() == expected
        waiting.append(sum(kind is Resolution.MINUTE for kind, _, _ in log.block_keys()))
    assert waiting[0] == 61 - 4, "four minutes of ten rows"
    assert waiting[-1] == 1, "only the newest minute is left"


def test_a_restart_goes_on_where_the_rows_end() -> None:
    log = Log()
    log.add(list(range(OPEN_ROWS_MAX)), START_MS)
    log.add([1, 2], START_MS + MINUTE_MS)
    log.flush()
    again = Log(log.rows)
    again.add([1], START_MS)
    again.add([1], START_MS + MINUTE_MS)
    again.flush()
    assert [key[1:] for key in again.block_keys()] == [
        (minute(START_MS), 0),
        (minute(START_MS), 1),
        (minute(START_MS) + 1, 0),
    ]
    assert again.counts()[1, START_MS // HOUR_MS] == 4
    again.add([9], START_MS + 9 * HOUR_MS)
    again.flush()
    assert (Resolution.HOUR, minute(START_MS), 0) in again.block_keys(), "found its minutes after the restart"


def test_many_hours_stay_within_the_bound_of_open_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_OPEN_BLOCKS_MAX", 5)
    log = Log()
    for turn in range(3):
        for hour in range(20):
            log.add([turn, 7], START_MS + hour * HOUR_MS, record_ms=START_MS + 900 * HOUR_MS)
        log.flush()
    assert log.block_keys() == [(Resolution.HOUR, minute(START_MS) + 60 * hour, 0) for hour in range(20)]
    assert all(log.counts()[7, START_MS // HOUR_MS + hour] == 3 for hour in range(20))


def test_events_gathered_between_flushes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_GATHERED_MAX", 100)
    log = Log()
    for _ in range(50):
        log.add([1, 2, 3] * 10, START_MS)
    assert log.blocks._gathered_rows <= 100
    log.flush()
    assert log.counts()[2, START_MS // HOUR_MS] == 500


def test_cells_differ_by_signal_and_profile() -> None:
    log = Log()
    log.add([1], START_MS, signal=0, profile=4)
    log.add([1], START_MS, signal=1, profile=4)
    log.add([1], START_MS, signal=1, profile=5)
    log.add([1], START_MS, signal=1, profile=5)
    log.flush()
    [(_, value)] = log.rows.scan(TABLE)
    block = decode_block(value)
    assert block.profile is not None
    cells = zip(block.signal.tolist(), block.profile.tolist(), block.count.tolist(), strict=True)
    assert sorted(cells) == [(5, 4, 1), (5, 5, 2), (77, 4, 1)]


def test_hours_become_their_day_without_a_change_of_content() -> None:
    log = Log(hours_kept_ms=KEPT_MS)
    now_ms = START_MS
    for hour in range(60):
        log.add([hour % 5, 3], START_MS + hour * HOUR_MS)
        now_ms = START_MS + hour * HOUR_MS
        log.flush()
    before = log.counts(1440)
    assert Resolution.DAY not in log.resolutions()
    later_ms = now_ms + KEPT_MS + DAY_MS
    log.add([9], later_ms)
    log.flush()
    log.flush()  # the hours that the first one made of minutes
    before[9, minute(later_ms) // 1440] += 1
    assert log.counts(1440) == before
    assert log.resolutions() == {Resolution.DAY, Resolution.MINUTE}
    days = [start for resolution, start, _ in log.block_keys() if resolution is Resolution.DAY]
    assert days == sorted({minute(START_MS + hour * HOUR_MS) // 1440 * 1440 for hour in range(60)})


def test_a_day_is_kept_by_the_hour_until_all_of_it_is_old_enough() -> None:
    log = Log(hours_kept_ms=KEPT_MS)
    day_ms = START_MS // DAY_MS * DAY_MS
    log.add([1], day_ms, record_ms=day_ms + 4 * HOUR_MS)
    log.flush()
    log.add([2], day_ms + KEPT_MS + DAY_MS - 1)
    log.flush()
    assert Resolution.DAY not in log.resolutions()
    log.add([2], day_ms + KEPT_MS + DAY_MS)
    log.flush()
    assert (Resolution.DAY, minute(day_ms), 0) in log.block_keys()
    assert Resolution.HOUR not in log.resolutions()


def test_an_event_of_a_day_without_hours_joins_the_day() -> None:
    log = Log(hours_kept_ms=KEPT_MS)
    old_ms = START_MS - KEPT_MS - 5 * DAY_MS
    log.add([1], old_ms, record_ms=START_MS)
    log.flush()
    log.add([1, 2], old_ms + HOUR_MS, record_ms=START_MS)
    log.flush()
    assert log.block_keys() == [(Resolution.DAY, minute(old_ms) // 1440 * 1440, 0)]
    assert log.counts(1440) == Counter(
        {(1, minute(old_ms) // 1440): 2, (2, minute(old_ms + HOUR_MS) // 1440): 1}
    )


def test_days_are_merged_after_a_restart_and_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_MERGE_ROWS_MIN", 30)
    log = Log(hours_kept_ms=KEPT_MS)
    for hour in range(48):
        log.add(list(range(10)), START_MS + hour * HOUR_MS, record_ms=START_MS + 50 * HOUR_MS)
    log.flush()
    again = Log(log.rows, hours_kept_ms=KEPT_MS)
    later_ms = START_MS + KEPT_MS + 5 * DAY_MS
    again.add([1], later_ms)
    expected = again.counts(1440) + Counter({(1, minute(later_ms) // 1440): 1})
    waiting = []
    for _ in range(20):
        again.flush()
        assert again.counts(1440) == expected
        waiting.append(sum(kind is Resolution.HOUR for kind, _, _ in again.block_keys()))
    assert waiting[0] == 48 - 3, "three hours of ten rows"
    assert waiting[-1] == 0


def test_an_hour_that_was_just_written_is_merged_by_a_later_flush() -> None:
    log = Log(hours_kept_ms=KEPT_MS)
    log.add([1], START_MS)  # a minute
    log.add([2], START_MS + 2 * HOUR_MS, record_ms=START_MS + 9 * HOUR_MS)  # an hour
    log.flush()
    log.add([3], START_MS + KEPT_MS + 3 * DAY_MS)
    for _ in range(3):
        log.flush()
    assert Resolution.HOUR not in log.resolutions()
    assert log.counts(1440)[1, minute(START_MS) // 1440] == 1


def test_ten_thousand_buckets_in_a_flush_are_looked_up_together() -> None:
    class Counting(MemoryRows):
        calls = 0

        def get_many(self, table: str, keys: Any) -> list[bytes | None]:
            self.calls += 1
            return super().get_many(table, keys)

        def scan(self, table: str, start: bytes = b"", end: bytes | None = None) -> Any:
            self.calls += 1
            return super().scan(table, start, end)

    rows = Counting()
    log = Log(rows)
    hours = np.arange(10_000)
    for turn in range(3):
        rows.calls = 0
        for signal in (0, 1):
            log.blocks.add(
                (hours % 7 + turn).astype(np.uint32),
                np.full(len(hours), signal, dtype=np.uint16),
                np.full(len(hours), 1_000_000),
                START_MS - hours * HOUR_MS - DAY_MS,
                np.full(len(hours), START_MS),
            )
        log.flush()
        assert rows.calls <= 8
    assert sum(log.counts().values()) == 60_000
    assert len(log.block_keys()) == 10_000


def test_blocks_are_found_again_by_their_numbers() -> None:
    log = Log()
    for number in range(11):
        log.add(list(range(blocks.OPEN_OLD_ROWS_MAX)), START_MS, record_ms=START_MS + DAY_MS)
        log.flush()
        again = Log(log.rows)
        again.add([7], START_MS, record_ms=START_MS + DAY_MS)
        again.flush()
        assert [seq for _, _, seq in again.block_keys()] == list(range(number + 2))
        log = Log(again.rows)
    assert log.counts()[7, START_MS // HOUR_MS] == 22


def test_moments_are_those_of_the_events_at_every_resolution() -> None:
    log = Log(hours_kept_ms=KEPT_MS, timed=np.array([False, True, False]))
    expected = 0.0
    now_ms = START_MS
    for step, ago_ms in enumerate([0, 30_000, 5 * HOUR_MS, 40 * DAY_MS, 7, 3 * DAY_MS]):
        now_ms += step * HOUR_MS
        log.add([1], now_ms - ago_ms, record_ms=now_ms, signal=1)
        log.add([1], now_ms - ago_ms, record_ms=now_ms, signal=0)
        expected += 1_000_000 * ((now_ms - ago_ms) % DAY_MS)
        log.flush()
    for later_ms in (0, KEPT_MS + 4 * DAY_MS):
        log.add([2], now_ms + later_ms)
        log.flush()
        log.flush()
        read = [decode_block(value) for _, value in log.rows.scan(TABLE)]
        moments = {5: 0.0, 77: 0.0}
        for block in read:
            for code, moment in zip(block.signal.tolist(), _moments(block), strict=True):
                moments[code] += moment
        assert moments == {5: pytest.approx(expected, rel=1e-12), 77: 0.0}
    assert Resolution.DAY in log.resolutions()


def _moments(block: Any) -> list[float]:
    return [0.0] * len(block) if block.moment is None else block.moment.tolist()


def test_a_few_rows_stand_behind_a_large_open_block_until_they_are_many() -> None:
    log = Log()
    log.add(list(range(100)), START_MS)
    log.flush()
    for number in range(7):
        log.add([number, 200 + number], START_MS)
        log.flush()
    assert [key[2] for key in log.block_keys()] == list(range(8))
    log.add([300], START_MS)
    changed = log.flush()
    assert [key[2] for key in log.block_keys()] == [0]
    assert sum(value is not None for _, _, value in changed) == 1
    assert sum(log.counts().values()) == 100 + 2 * 7 + 1


@pytest.mark.parametrize("seed", range(6))
def test_small_blocks_change_no_count_and_leave_no_gap(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes that are open side by side, bulks, restarts, and hours that close meanwhile."""
    monkeypatch.setattr(blocks, "_TAILED_ROWS_MIN", 3)
    monkeypatch.setattr(blocks, "OPEN_ROWS_MAX", 24)
    monkeypatch.setattr(blocks, "OPEN_OLD_ROWS_MAX", 24)
    monkeypatch.setattr(blocks, "BLOCK_ROWS_MAX", 40)
    chance = np.random.default_rng(seed)
    log, expected = Log(), Counter[tuple[int, int]]()
    now_ms = START_MS
    for _ in range(120):
        now_ms += int(chance.choice([0, MINUTE_MS, 90 * MINUTE_MS], p=[0.9, 0.07, 0.03]))
        for _ in range(int(chance.integers(0, 3))):
            items = chance.integers(
                0, 60, int(chance.choice([1, 2, 5, 90], p=[0.4, 0.3, 0.27, 0.03]))
            ).tolist()
            ts_ms = now_ms - int(chance.integers(0, 2)) * MINUTE_MS
            log.add(items, ts_ms, record_ms=now_ms, profile=int(chance.integers(0, 3)))
            expected.update((item, minute(ts_ms) // 60) for item in items)
        log.flush()
        if chance.random() < 0.08:
            log = Log(log.rows)
        assert log.counts() == expected
    numbers: dict[tuple[Resolution, int], list[int]] = {}
    for resolution, bucket, number in log.block_keys():
        numbers.setdefault((resolution, bucket), []).append(number)
    assert all(found == list(range(len(found))) for found in numbers.values())
