"""One partition: watermarks, reads over segments, transactions, time, deletion, restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.embedded.segment import SNAPSHOT_SUFFIX
from tests.unit.embedded.support import LogUnderTest, last_header, make_batch, rows


def one(value: bytes, **how: object) -> bytearray:
    return make_batch([(b"k", value)], **how)  # type: ignore[arg-type]


def fill(under_test: LogUnderTest, count: int, *, size: int = 100) -> list[bytes]:
    values = [b"%05d" % i + b"x" * size for i in range(count)]
    for number, value in enumerate(values):
        under_test.append(one(value, timestamp=10_000 + number))
    return values


def test_nothing_is_readable_before_the_commit(tmp_path: Path) -> None:
    under_test = LogUnderTest(tmp_path)
    assert under_test.append_only(one(b"v")) == 0
    assert under_test.log.read(0, 1 << 20, committed=False) == b""
    assert (under_test.log.end_offset, under_test.log.high_watermark.offset) == (1, 0)
    under_test.commit.cycle()
    assert [row.value for row in rows(under_test.log.read(0, 1 << 20, committed=False))] == [b"v"]
    assert under_test.log.high_watermark.offset == 1
    assert under_test.commit.unsynced_bytes == 0


def test_readers_are_woken_by_the_commit(tmp_path: Path) -> None:
    under_test = LogUnderTest(tmp_path)
    woken: list[int] = []
    under_test.log.waiters[lambda: woken.append(under_test.log.high_watermark.offset)] = None
    under_test.append_only(one(b"v"))
    assert woken == []
    under_test.commit.cycle()
    assert woken == [1]


def test_every_offset_is_found_over_segments(tmp_path: Path) -> None:
    under_test = LogUnderTest(tmp_path, {"segment.bytes": "2000"}, index_interval_bytes=300)
    values = fill(under_test, 100)
    assert len(under_test.log.segments) > 5
    assert [row.value for row in under_test.read_all(bytes_max=700)] == values
    for offset in range(100):
        first = rows(under_test.log.read(offset, 1, committed=False))[0]
        assert (first.offset, first.value) == (offset, values[offset])


def test_the_first_batch_is_whole_and_reads_end_at_batches(tmp_path: Path) -> None:
    under_test = LogUnderTest(tmp_path)
    values = fill(under_test, 50, size=1_000)
    assert [row.value for row in rows(under_test.log.read(0, 10, committed=False))] == values[:1]
    assert under_test.log.read(0, 10, committed=False, at_least_one=False) == b""
    data = under_test.log.read(0, 5_000, committed=False)
    assert 0 < len(data) <= 5_000
    assert [row.value for row in rows(data)] == values[: len(rows(data))]


def test_an_open_transaction_holds_the_stable_offset(tmp_path: Path) -> None:
    under_test = LogUnderTest(tmp_path)
    under_test.append(one(b"before"))
    under_test.append(one(b"mine", producer_id=4, epoch=0, sequence=0, transactional=True))
    under_test.append(one(b"after"))
    assert under_test.log.last_stable_offset == 1
    assert [row.value for row in under_test.read_all(committed=True)] == [b"before"]
    assert [row.value for row in under_test.read_all()] == [b"before", b"mine", b"after"]
    under_test.mark(4, 0, commit=True)
    assert under_test.log.last_stable_offset == 4
    assert [row.value for row in under_test.read_all(committed=True)] == [b"before", b"mine", b"after"]


def test_an_aborted_transaction_is_listed(tmp_path: Path) -> None:
    under_test = LogUnderTest(tmp_path)
    under_test.append(one(b"bad", producer_id=4, epoch=0, sequence=0, transactional=True))
    under_test.append(one(b"good"))
    under_test.mark(4, 0, commit=False)
    under_test.append(one(b"next", producer_id=4, epoch=0, sequence=1, transactional=True))
    under_test.mark(4, 0, commit=True)
    assert under_test.log.aborted_in(0, 5) == [(4, 0, 2)]
    assert under_test.log.aborted_in(3, 5) == []
    assert [row.value for row in under_test.read_all(committed=True)] == [b"good", b"next"]


def test_the_stable_offset_is_found_after_a_roll_and_a_restart(tmp_path: Path) -> None:
    config = {"segment.bytes": "1024"}
    under_test = LogUnderTest(tmp_path, config)
    under_test.append(one(b"open", producer_id=4, epoch=0, sequence=0, transactional=True))
    fill(under_test, 30)
    again = LogUnderTest(tmp_path, config)
    assert again.log.last_stable_offset == 0
    assert again.read_all(committed=True) == []
    assert again.log.producers.open_transactions() == {4: 0}


def test_lookup_by_time(tmp_path: Path) -> None:
    under_test = LogUnderTest(tmp_path, {"segment.bytes": "2000"}, index_interval_bytes=300)
    fill(under_test, 60)
    for number in range(60):
        found = under_test.log.offset_for_time(10_000 + number, committed=False)
        assert found == (number, 10_000 + number)
    assert under_test.log.offset_for_time(0, committed=False) == (0, 10_000)
    assert under_test.log.offset_for_time(20_000, committed=False) is None
    assert under_test.log.newest_time(committed=False) == (59, 10_059)


def test_lookup_by_time_inside_of_a_compressed_batch(tmp_path: Path) -> None:
    under_test = LogUnderTest(tmp_path)
    under_test.append(make_batch([(b"k", b"%d" % i) for i in range(10)], timestamp=100, codec=4))
    assert under_test.log.offset_for_time(107, committed=False) == (7, 107)


def test_the_start_moves_and_drops_whole_segments(tmp_path: Path) -> None:
    under_test = LogUnderTest(tmp_path, {"segment.bytes": "2000"})
    values = fill(under_test, 100)
    gone = under_test.log.advance_start(50)
    assert gone
    assert under_test.log.start_offset == 50
    assert [row.value for row in under_test.read_all()] == values[50:]
    under_test.log.advance_start(10_000)
    assert under_test.log.start_offset == 100
    assert under_test.append(one(b"next")) == 100


@pytest.mark.parametrize("clean", [True, False])
def test_everything_is_there_after_a_restart(tmp_path: Path, clean: bool) -> None:
    config = {"segment.bytes": "2000"}
    under_test = LogUnderTest(tmp_path, config, checkpoint_bytes=500)
    values = fill(under_test, 40)
    under_test.append(one(b"p", producer_id=4, epoch=0, sequence=0))
    if clean:
        under_test.log.close()
    again = LogUnderTest(tmp_path, config)
    assert again.log.lost_bytes == 0
    assert [row.value for row in again.read_all()] == [*values, b"p"]
    assert again.append(one(b"p", producer_id=4, epoch=0, sequence=0)) == 40
    assert again.append(one(b"q", producer_id=4, epoch=0, sequence=1)) == 41


def test_a_torn_tail_is_cut_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    under_test = LogUnderTest(tmp_path)
    values = fill(under_test, 5)
    path = under_test.log.active.path
    with path.open("ab") as file:
        file.write(one(b"torn")[:70])
    again = LogUnderTest(tmp_path)
    assert again.log.lost_bytes == 70
    assert "70 bytes cut off" in caplog.text
    assert [row.value for row in again.read_all()] == values
    assert again.append(one(b"next")) == 5


def test_a_lost_snapshot_costs_a_scan_only(tmp_path: Path) -> None:
    config = {"segment.bytes": "2000"}
    under_test = LogUnderTest(tmp_path, config)
    values = fill(under_test, 40)
    under_test.append(one(b"p", producer_id=4, epoch=0, sequence=0))
    under_test.log.close()
    for snapshot in tmp_path.glob("*" + SNAPSHOT_SUFFIX):
        snapshot.write_bytes(snapshot.read_bytes()[:-3])
    again = LogUnderTest(tmp_path, config)
    assert [row.value for row in again.read_all()] == [*values, b"p"]
    assert again.append_only(one(b"p", producer_id=4, epoch=0, sequence=0)) == 40


def test_an_old_segment_is_closed_by_age(tmp_path: Path) -> None:
    under_test = LogUnderTest(tmp_path, {"segment.ms": "1000"})
    under_test.append(one(b"a"), now_ms=10_000)
    under_test.append(one(b"b"), now_ms=10_900)
    assert len(under_test.log.segments) == 1
    under_test.append(one(b"c"), now_ms=11_500)
    assert len(under_test.log.segments) == 2


def test_few_files_stay_open(tmp_path: Path) -> None:
    under_test = LogUnderTest(tmp_path, {"segment.bytes": "1024"}, open_segments_max=3)
    values = fill(under_test, 100)
    assert len(under_test.log.segments) > 10
    assert [row.value for row in under_test.read_all()] == values
    assert sum(segment.is_open for segment in under_test.log.segments) <= 4


@pytest.mark.parametrize("lost", [False, True])
def test_closed_segments_read_their_index_when_they_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lost: bool
) -> None:
    settings = {"open_segments_max": 3, "index_interval_bytes": 200}
    before = LogUnderTest(tmp_path, {"segment.bytes": "2048"}, **settings)
    values = fill(before, 100)
    before.log.close()
    under_test = LogUnderTest(tmp_path, {"segment.bytes": "2048"}, **settings)
    closed = under_test.log.segments[:-1]
    assert not any(len(segment._offsets) for segment in closed)
    if lost:
        for path in tmp_path.glob("*" + SNAPSHOT_SUFFIX):
            path.write_bytes(b"no snapshot any more")
    assert [row.value for row in under_test.read_all()] == values
    for number in range(100):
        found = under_test.log.offset_for_time(10_000 + number, committed=False)
        assert found is not None
        assert found.offset == number
    assert ("no index" in caplog.text) == lost
    # Only as many as there are open files hold theirs.
    assert 1 <= sum(len(segment._offsets) > 1 for segment in closed) <= 4


def test_the_last_read_ends_at_the_last_batch(tmp_path: Path) -> None:
    under_test = LogUnderTest(tmp_path)
    fill(under_test, 3)
    assert last_header(under_test.log.read(0, 1 << 20, committed=False)).next_offset == 3


def test_a_segment_begun_ahead_of_lost_records_leaves_no_hole(tmp_path: Path) -> None:
    config = {"segment.bytes": "2000"}
    under_test = LogUnderTest(tmp_path, config)
    values = fill(under_test, 10)
    # A roll makes its file at once; the process ends before anything of this cycle is written.
    while len(under_test.log.segments) == 1:
        under_test.append_only(one(b"lost" + b"x" * 200))
    again = LogUnderTest(tmp_path, config)
    assert again.log.end_offset == 10
    assert again.append(one(b"next")) == 10
    assert [row.value for row in again.read_all()] == [*values, b"next"]
