"""Compaction against a plain dict: what a reader of the whole topic ends up with must never change."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from streams.embedded.cleaner import cleanable
from streams.embedded.compaction import Job, Source, compact
from streams.embedded.compaction_files import install
from streams.embedded.segment import Segment, read_snapshot
from tests.unit.embedded.support import LogUnderTest, Row, make_batch

CONFIG = {"cleanup.policy": "compact", "segment.bytes": "1024"}

KEYS = st.sampled_from([b"a", b"b", b"c", b"d", None])
RECORDS = st.lists(st.tuples(KEYS, st.one_of(st.none(), st.binary(max_size=60))), min_size=1, max_size=4)


class Step(NamedTuple):
    records: list[tuple[bytes | None, bytes | None]]
    ends: str  # "": a plain batch, else how its transaction ends
    codec: int


STEPS = st.lists(
    st.one_of(
        st.builds(Step, RECORDS, st.sampled_from(["", "", "commit", "abort"]), st.sampled_from([0, 1, 4])),
        st.just("compact"),
        st.just("restart"),
    ),
    max_size=40,
)


def run_compaction(under_test: LogUnderTest, dirty_from: int, deletes_before: int) -> int:
    """One round as the cleaner does it, without its child process; returns the cleaned end."""
    log = under_test.log
    segments = cleanable(log, 0)
    if not segments:
        return dirty_from
    bases = [segment.base_offset for segment in log.segments]
    job = Job(
        str(log.directory),
        [Source(s.base_offset, bases[i + 1], s.size) for i, s in enumerate(segments)],
        dirty_from,
        deletes_before,
        list(log.aborted),
        log.config.segment_bytes,
        4096,
        1_000,
    )
    outcome = compact(job)
    assert outcome.error == ""
    for replacement in outcome.replacements:
        old = [
            s for s in log.segments[:-1] if replacement.base_offset <= s.base_offset < replacement.end_offset
        ]
        for segment in old:
            segment.close()
        path = install(log.directory, replacement.base_offset, replacement.end_offset)
        fresh = Segment(log.directory, replacement.base_offset, 4096)
        snapshot = read_snapshot(path)
        assert snapshot is not None
        fresh.adopt(snapshot)
        log.replace(old, fresh)
    log.forget_aborted(outcome.cleaned_end)
    return outcome.cleaned_end


def table(rows: list[Row]) -> dict[bytes, bytes]:
    """What a reader of the whole topic holds at the end."""
    state: dict[bytes, bytes] = {}
    for row in rows:
        if row.key is None:
            continue
        if row.value is None:
            state.pop(row.key, None)
        else:
            state[row.key] = row.value
    return state


@given(STEPS, st.booleans())
def test_readers_end_with_the_same_table(steps: list[Step | str], deletes_go: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        under_test = LogUnderTest(Path(folder), CONFIG)
        visible: list[Row] = []
        dirty_from = epoch = 0
        for step in [*steps, "compact", "restart"]:
            if step == "compact":
                dirty_from = run_compaction(under_test, dirty_from, dirty_from if deletes_go else 0)
            elif step == "restart":
                under_test = LogUnderTest(Path(folder), CONFIG)
            else:
                assert isinstance(step, Step)
                how = {}
                if step.ends:
                    how = {"producer_id": 3, "epoch": epoch, "sequence": 0, "transactional": True}
                offset = under_test.append(make_batch(step.records, codec=step.codec, **how))  # type: ignore[arg-type]
                if step.ends:
                    under_test.mark(3, epoch, commit=step.ends == "commit")
                    epoch += 1
                if step.ends != "abort":
                    visible += [
                        Row(offset + i, 1_000 + i, key, value) for i, (key, value) in enumerate(step.records)
                    ]
            found = under_test.read_all(committed=True)
            assert table(found) == table(visible)
            written = {row.offset: row for row in visible}
            assert all(written[row.offset] == row for row in found)
            assert [row for row in found if row.key is None] == [row for row in visible if row.key is None]


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.binary(max_size=80)), min_size=30, max_size=60)
)
def test_one_record_for_each_key_is_left_in_what_was_compacted(records: list[tuple[bytes, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        under_test = LogUnderTest(Path(folder), CONFIG)
        for record in records:
            under_test.append(make_batch([record]))
        end = run_compaction(under_test, 0, 0)
        left = [row.key for row in under_test.read_all() if row.offset < end]
        assert len(left) == len(set(left))
        again = LogUnderTest(Path(folder), CONFIG)
        assert again.read_all() == under_test.read_all()


def test_an_aborted_transaction_does_not_hide_the_next_one_after_compaction(tmp_path: Path) -> None:
    """A snapshot still names the aborted transaction whose marker is compacted away."""
    under_test = LogUnderTest(tmp_path, CONFIG)
    under_test.append(
        make_batch([(b"a", b"aborted")], producer_id=3, epoch=0, sequence=0, transactional=True)
    )
    under_test.mark(3, 0, commit=False)
    for number in range(30):
        under_test.append(make_batch([(b"b", b"%d" % number * 20)]))
    run_compaction(under_test, 0, 0)
    under_test.append(make_batch([(b"a", b"kept")], producer_id=3, epoch=0, sequence=1, transactional=True))
    under_test.mark(3, 0, commit=True)
    for log in (under_test, LogUnderTest(tmp_path, CONFIG)):
        assert table(log.read_all(committed=True))[b"a"] == b"kept"
        assert log.log.aborted == []


def test_producers_survive_a_compaction_and_a_restart(tmp_path: Path) -> None:
    under_test = LogUnderTest(tmp_path, CONFIG)
    for number in range(40):
        under_test.append(
            make_batch([(b"k", b"%03d" % number * 20)], producer_id=8, epoch=0, sequence=number)
        )
    under_test.log.roll()
    under_test.commit.cycle()
    end = run_compaction(under_test, 0, 0)
    again = LogUnderTest(tmp_path, CONFIG)
    # The active segment is empty, so the last batch stays where it is: readers wait for its offset.
    assert [row.offset for row in again.read_all()] == list(range(end - 1, 40))
    assert again.log.active.size == 0
    assert again.append(make_batch([(b"k", b"039" * 20)], producer_id=8, epoch=0, sequence=39)) == 39
    assert again.append(make_batch([(b"k", b"next")], producer_id=8, epoch=0, sequence=40)) == 40
