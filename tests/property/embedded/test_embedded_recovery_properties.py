"""A log that is damaged anywhere opens, and every record that it then serves is one that was written."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from streams.embedded.errors import CorruptBatchError
from tests.unit.embedded.support import LogUnderTest, Row, last_header, make_batch, rows

CONFIG = {"segment.bytes": "1500"}


def written_log(directory: Path, seed: int) -> list[Row]:
    """Several segments of plain, compressed, idempotent and transactional batches; returns all records."""
    rng = random.Random(seed)
    under_test = LogUnderTest(directory, CONFIG, index_interval_bytes=200, checkpoint_bytes=600)
    sequence = 0
    for number in range(30):
        records = [
            (b"k%d" % rng.randrange(9), rng.randbytes(rng.randrange(60))) for _ in range(rng.randrange(1, 5))
        ]
        kind = rng.randrange(3)
        if kind == 0:
            under_test.append(make_batch(records, timestamp=number * 10, codec=rng.choice([0, 4])))
        else:
            transactional = kind == 2
            producer_id, epoch = (5, 0) if transactional else (6, 0)
            at = sequence if not transactional else number * 10
            if transactional:
                # One batch for each transaction, with an epoch of its own, so that sequences start at zero.
                epoch, at = number, 0
            under_test.append(
                make_batch(
                    records, timestamp=number * 10, producer_id=producer_id, epoch=epoch, sequence=at,
                    transactional=transactional,
                )
            )  # fmt: skip
            if transactional:
                under_test.mark(producer_id, epoch, commit=rng.random() < 0.5)
            else:
                sequence += len(records)
    found = under_test.read_all()
    if rng.random() < 0.5:
        under_test.log.close()
    return found


def damage(directory: Path, rng: random.Random) -> None:
    """Cut, flip, overwrite or lengthen files at random places."""
    for _ in range(rng.randrange(1, 4)):
        path = rng.choice(sorted(p for p in directory.iterdir() if p.is_file()))
        content = bytearray(path.read_bytes())
        how = rng.randrange(4)
        if how == 0:
            content = content[: rng.randrange(len(content) + 1)]
        elif how == 1 and content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        elif how == 2 and content:
            start = rng.randrange(len(content))
            content[start : start + 40] = rng.randbytes(len(content[start : start + 40]))
        else:
            content += rng.randbytes(rng.randrange(200))
        path.write_bytes(content)


def readable(under_test: LogUnderTest) -> list[Row]:
    """What can be read, going on behind damage that a reader is told of."""
    found: list[Row] = []
    log = under_test.log
    offset = log.start_offset
    while offset < log.end_offset:
        try:
            data = log.read(offset, 500, committed=False)
        except CorruptBatchError:
            offset += 1
            continue
        assert data
        found += [row for row in rows(data) if row.offset >= offset]
        offset = last_header(data).next_offset
    return found


@given(st.integers(0, 1 << 32))
@example(387330)  # one altered bit moves a batch onto the end of the one before it
def test_damaged_logs_serve_only_what_was_written(seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        written = written_log(directory, seed)
        damage(directory, rng)
        again = LogUnderTest(directory, CONFIG, index_interval_bytes=200)
        found = readable(again)
        by_offset = {row.offset: row for row in written}
        assert all(by_offset[row.offset] == row for row in found)
        assert [row.offset for row in found] == sorted({row.offset for row in found})
        end = again.log.end_offset
        offset = again.append(make_batch([(b"new", b"record")], timestamp=9_999))
        assert offset == end
        assert readable(again)[-1] == Row(offset, 9_999, b"new", b"record")


@given(st.integers(0, 1 << 32), st.data())
def test_a_cut_tail_loses_the_tail_only(seed: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        written = written_log(directory, seed)
        last = sorted(directory.glob("*.log"))[-1]
        size = last.stat().st_size
        cut = data.draw(st.integers(0, size))
        with last.open("r+b") as file:
            file.truncate(cut)
            file.seek(cut)
            file.write(random.Random(seed).randbytes(data.draw(st.integers(0, 50))))
        found = readable(LogUnderTest(directory, CONFIG))
        assert found == written[: len(found)]
        base = int(last.stem)
        assert [row for row in written if row.offset < base] == [row for row in found if row.offset < base]
