"""Filling holes: a log that is told the steps gives each record the offset that it had."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import MirrorError
from streams.mirror import runs
from streams.mirror.comparing import Comparison, compare_records
from streams.mirror.runs import Copied, Runs, Step


def record(offset: int, key: bytes | None = b"k", value: bytes | None = b"v") -> Copied:
    return Copied(offset, 1_000 + offset, key, value, ())


class Target:
    """A log that gives offsets, and what a reader of committed records sees of it."""

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        self.visible: list[Copied] = []

    def write(self, steps: list[Step]) -> None:
        for step in steps:
            for found in step.records:
                self._append(found)
            if step.carrier is not None:
                self._append(step.carrier)
                self.next_offset += 1
            if step.fillers:
                self.next_offset += step.fillers + 1

    def _append(self, found: Copied) -> None:
        assert found.offset == self.next_offset
        self.visible.append(found)
        self.next_offset += 1


@given(
    st.lists(st.integers(0, 400), unique=True).map(sorted),
    st.integers(0, 5),
    st.lists(st.integers(1, 7), min_size=1),
)
def test_every_record_comes_to_its_offset(offsets: list[int], tail: int, batches: list[int]) -> None:
    if not offsets:
        return
    copied = Runs("t", offsets[0])
    target = Target(offsets[0])
    position = number = 0
    while position < len(offsets):
        size = batches[number % len(batches)]
        for offset in offsets[position : position + size]:
            target.write(copied.add(record(offset)))
        target.write(copied.flush())
        position += size
        number += 1
    end = offsets[-1] + 1 + tail
    target.write(copied.finish(end))
    assert target.next_offset == end
    assert target.visible == [record(offset) for offset in offsets]


@pytest.mark.parametrize("hole", [2, 3, 200_001, 200_002, 200_003, 400_001, 1_000_000])
def test_large_holes_are_cut_and_never_leave_one_offset(hole: int) -> None:
    copied, target = Runs("t", 0), Target(0)
    target.write(copied.add(record(0)))
    steps = copied.add(record(1 + hole))
    assert all(step.fillers <= runs._FILLERS_MAX + 1 for step in steps)
    target.write([*steps, *copied.finish(2 + hole)])
    assert target.next_offset == 2 + hole


def test_one_offset_with_nothing_before_it_is_refused() -> None:
    copied = Runs("t partition 3", 10)
    with pytest.raises(MirrorError, match="t partition 3: offset 10 is gone"):
        copied.add(record(11))


KEYS = [b"a", b"b", b"c"]
HISTORY = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([b"1", b"2", None])), max_size=30)


@given(HISTORY, st.data())
def test_two_compactions_of_the_same_history_are_the_same(
    history: list[tuple[bytes, bytes | None]], data: st.DataObject
) -> None:
    log = [record(offset, key, value) for offset, (key, value) in enumerate(history)]
    last = {found.key: found.offset for found in log}
    sides = []
    for _ in range(2):
        gone = data.draw(st.sets(st.integers(0, 30)))
        left = {
            r.offset for r in log if r.offset not in gone or (r.offset == last[r.key] and r.value is not None)
        }
        # A tombstone goes last: without it nothing is left of its key.
        sides.append([r for r in log if r.offset in left and last[r.key] in left])
    assert compare_records(iter(sides[0]), iter(sides[1]), is_compacted=True).differs_at == -1


@given(HISTORY, st.data())
def test_a_lost_last_value_is_found(history: list[tuple[bytes, bytes | None]], data: st.DataObject) -> None:
    log = [record(offset, key, value) for offset, (key, value) in enumerate(history)]
    last = {found.key: found.offset for found in log}
    needed = [found for found in log if last[found.key] == found.offset and found.value is not None]
    if not needed:
        return
    lost = data.draw(st.sampled_from(needed))
    copy = [found for found in log if found.offset != lost.offset]
    for left, right in ((log, copy), (copy, log)):
        assert compare_records(iter(left), iter(right), is_compacted=True).differs_at == lost.offset
        assert compare_records(iter(left), iter(right), is_compacted=False).differs_at == lost.offset


def test_an_altered_record_is_found() -> None:
    log = [record(0), record(1), record(2)]
    for altered in (
        record(1, b"other"), record(1, b"k", None), record(1)._replace(timestamp_ms=5),
        record(1)._replace(headers=(("h", b"x"),)),
    ):  # fmt: skip
        copy = [log[0], altered, log[2]]
        assert compare_records(iter(log), iter(copy), is_compacted=True) == Comparison(1, 1)
