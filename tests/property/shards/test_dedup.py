"""The vectorised horizon equals one that looks at an event at a time, whatever the batches and restarts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from materializers.shards.dedup import DedupHorizon, digests_of
from tests.memory_rows import MemoryRows, MemoryWriter

EVENTS = st.lists(
    st.tuples(
        st.integers(1, 3),  # user
        st.integers(1, 3),  # item
        st.integers(0, 2),  # code
        st.integers(0, 4_000),  # ts_ms
        st.integers(-60, 120),  # step of the log's clock, which may run back
    ),
    max_size=120,
)
CUTS = st.lists(st.integers(1, 30), min_size=1, max_size=8)

Digest = tuple[int, int, int, int]


class Slow:
    """The definition."""

    def __init__(self, generation_ms: int, digests_max: int) -> None:
        self.generation_ms, self.digests_max = generation_ms, digests_max
        self.epoch: int | None = None
        self.current: set[Digest] = set()
        self.previous: set[Digest] = set()

    def accepts(self, digest: Digest, record_ms: int) -> bool:
        epoch = record_ms // self.generation_ms
        if self.epoch is None or epoch > self.epoch:
            follows = self.epoch is not None and epoch == self.epoch + 1
            self.previous = self.current if follows else set()
            self.current, self.epoch = set(), epoch
        if digest in self.current or digest in self.previous:
            return False
        if len(self.current) == self.digests_max:
            self.previous, self.current = self.current, set()
        self.current.add(digest)
        return True


@given(events=EVENTS, cuts=CUTS, generation_ms=st.integers(50, 400), digests_max=st.integers(1, 40))
def test_equals_the_definition(
    events: list[tuple[int, ...]], cuts: list[int], generation_ms: int, digests_max: int
) -> None:
    record_ms = 100_000 + np.cumsum([event[4] for event in events], dtype=np.int64)
    slow = Slow(generation_ms, digests_max)
    expected = [
        slow.accepts((user, item, code, ts // 1000), int(at))
        for (user, item, code, ts, _), at in zip(events, record_ms, strict=True)
    ]
    columns = np.array(events, dtype=np.int64).reshape(-1, 5)
    digests = digests_of(
        columns[:, 0].astype(np.uint64),
        columns[:, 1].astype(np.uint64),
        columns[:, 2].astype(np.uint64),
        columns[:, 3],
    )
    horizon, rows, got = DedupHorizon(generation_ms, digests_max), MemoryRows(), []
    start, turn = 0, 0
    while start < len(events):
        end = start + cuts[turn % len(cuts)]
        got.extend(horizon.accept(digests[start:end], record_ms[start:end]).tolist())
        start, turn = end, turn + 1
        if turn % 2:
            horizon = _restarted(horizon, rows, generation_ms, digests_max)
    assert got == expected


def _restarted(horizon: DedupHorizon, rows: MemoryRows, generation_ms: int, digests_max: int) -> DedupHorizon:
    writer = MemoryWriter(rows)
    horizon.flush(writer)
    writer.commit()
    other = DedupHorizon(generation_ms, digests_max)
    other.restore(rows, horizon.counters())
    assert len(other) == len(horizon)
    return other


def test_forgotten_generations_leave_no_rows() -> None:
    horizon, rows = DedupHorizon(1000), MemoryRows()
    for step in range(6):
        digests = digests_of(*(np.array([step], dtype=np.uint64) for _ in range(3)), np.array([0]))
        assert horizon.accept(digests, np.array([step * 1000 + 10_000])).all()
        writer = MemoryWriter(rows)
        horizon.flush(writer)
        writer.commit()
    assert len(rows.tables["dedup"]) == 2


def test_two_digests_with_one_index_key_are_told_apart(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(
        "materializers.shards.dedup._index_keys", lambda digests: np.zeros(len(digests), dtype=np.int64)
    )
    horizon = DedupHorizon(1000)
    numbers = np.array([1, 2, 1, 3], dtype=np.uint64)
    digests = digests_of(numbers, numbers, numbers, np.zeros(4, dtype=np.int64))
    assert horizon.accept(digests, np.full(4, 5_000)).tolist() == [True, True, False, True]
    assert horizon.accept(digests, np.full(4, 5_000)).tolist() == [False] * 4


def test_alike_index_keys_and_blanked_digests_survive_growth_and_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("materializers.shards.dedup._index_keys", lambda digests: _few_keys(digests[:, 1]))
    chance = np.random.default_rng(3)
    horizon, rows = DedupHorizon(1_000_000), MemoryRows()
    seen: set[tuple[int, int]] = set()
    for turn in range(12):
        users, items = (chance.integers(1, bound, 600).astype(np.uint64) for bound in (40, 400))
        expected = []
        for pair in zip(users.tolist(), items.tolist(), strict=True):
            expected.append(pair not in seen)
            seen.add(pair)
        digests = digests_of(users, items, np.ones(600, dtype=np.uint64), np.zeros(600, dtype=np.int64))
        assert horizon.accept(digests, np.full(600, 5_000_000)).tolist() == expected
        horizon.flush(writer := MemoryWriter(rows))
        writer.commit()
        horizon.forget(np.array([turn + 1], dtype=np.uint64))
        seen = {(user, item) for user, item in seen if user != turn + 1}
        if turn % 4 == 3:
            horizon = _restarted(horizon, rows, 1_000_000, 1 << 20)


def _few_keys(items: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    return ((items % np.uint64(50)) << np.uint64(57)).astype(np.int64)
