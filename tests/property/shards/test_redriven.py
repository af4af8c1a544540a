"""A dead letter that is sent again counts once: whatever the retries, the batches and the restarts."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from materializers.materializer import Scope
from materializers.shards.user_shard import UserShard
from materializers.tables.meta import ShardMeta
from materializers.tables.pending import Letter
from schemas.loading import load_schema
from schemas.records.dead_letter import letter_from_headers
from schemas.records.rekeyed import decode_rekeyed
from streams.partitioner import partition_for
from streams.topics import SIGNALS
from tests.memory_rows import MemoryRows
from tests.shard_harness import NOW_MS, PARTITIONS, Record, ShardSite, flushed

HOME = 1
HOUR_MS = 3_600_000
SCHEMA = load_schema(
    "name: redriven\nsignals: {tap: {category: positive, windows: [all_time], dedup: none},"
    " press: {category: positive, windows: [all_time]}}\n"
)
USER = next(name for name in map(str, range(99)) if partition_for(name.encode(), PARTITIONS) == HOME)
STRANGER = next(name for name in map(str, range(99)) if partition_for(name.encode(), PARTITIONS) == 2)

# What is refused first: (events of the record, of them good ones, dedup, user of another partition).
FIRST = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 2), st.sampled_from(["tap", "press"]), st.booleans()),
    min_size=1,
    max_size=4,
)
# Each time that letters are sent again: which (modulo their number), when, and whether a restart follows.
AGAIN = st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.booleans()), max_size=14)
CUTS = st.lists(st.integers(1, 4), min_size=1, max_size=5)


def _event(number: int, kind: str, stranger: bool, *, good: bool) -> dict[str, object]:
    """A bad one lies an hour ahead of its record: it is good for a record of two hours later."""
    user = STRANGER if stranger else USER
    return {"kind": kind, "item": f"i{number}", "user": user, "ts": NOW_MS + (0 if good else HOUR_MS)}


@dataclass
class Run:
    """One shard over its records, in batches, with restarts."""

    site: ShardSite
    rows: MemoryRows
    shard: UserShard
    offset: int = 0

    def fold(self, records: list[Record], cuts: list[int]) -> list[Letter]:
        at, turn = 0, 0
        while at < len(records):
            end = at + cuts[turn % len(cuts)]
            self.shard.fold(SIGNALS, records[at:end])
            at, turn = end, turn + 1
        return self.shard.take_letters()

    def restart(self) -> None:
        meta: ShardMeta = flushed(self.shard, self.rows)
        self.shard = self.site.user_shard(HOME, self.rows, meta)

    def again(self, letter: Letter, *, late: bool) -> Record:
        self.offset += 1
        when = NOW_MS + (2 * HOUR_MS if late else 1)
        return Record(self.offset, letter.value, letter.key, when, tuple(letter.headers), partition=HOME)

    def counted(self) -> Counter[str]:
        """Times that each item was let through, here or to its user's own partition."""
        flushed(self.shard, self.rows)
        self.site.forwarder.send()
        found: Counter[str] = Counter()
        for view in self.site.views[Scope.USER]:
            for batch in view.batches:
                found.update(self.site.items.strings(batch.item))
        for sent in self.site.forwarder.sent:
            if sent.type == b"rerouted":
                columns = decode_rekeyed(sent.value or b"")
                found.update(columns.items[item] for item in columns.item.tolist())
        return found


class KeepingSite(ShardSite):
    """Views keep what they saw over restarts, so that all of it can be counted."""

    def user_shard(self, partition: int, rows: MemoryRows, meta: ShardMeta | None = None) -> UserShard:
        shard = super().user_shard(partition, rows)
        if meta is not None:
            before = [list(view.batches) for view in self.views[Scope.USER]]
            shard.restore(rows, meta)
            for view, batches in zip(self.views[Scope.USER], before, strict=True):
                view.batches[:] = batches
        return shard


def _play(
    folder: str,
    first: list[tuple[int, int, str, bool]],
    again: list[tuple[int, bool, bool]],
    cuts: list[int],
    *,
    restarts: bool,
) -> tuple[Counter[str], Counter[str], list[str]]:
    site, rows = KeepingSite(Path(folder), SCHEMA), MemoryRows()
    run = Run(site, rows, site.user_shard(HOME, rows))
    expected: Counter[str] = Counter()
    records = []
    for at, (events, good, kind, stranger) in enumerate(first):
        written = [
            _event(10 * at + number, kind, stranger, good=number < good and events > 1)
            for number in range(events)
        ]
        expected.update(str(event["item"]) for event in written if event["ts"] == NOW_MS)
        value = json.dumps(written[0] if events == 1 else written).encode()
        run.offset += 1
        records.append(Record(run.offset, value, USER.encode(), partition=HOME))
    letters = run.fold(records, cuts)
    waiting: list[Record] = []
    for which, late, restart in again:
        if not letters:
            break
        letter = letters[which % len(letters)]
        waiting.append(run.again(letter, late=late))
        if late:
            expected[json.loads(letter.value)["item"]] = 1
        if restart:
            letters += run.fold(waiting, cuts)
            waiting = []
            if restarts:
                run.restart()
    letters += run.fold(waiting, cuts)
    return run.counted(), expected, [str(letter_from_headers(letter.headers).root) for letter in letters]


@settings(max_examples=60)
@given(first=FIRST, again=AGAIN, cuts=CUTS, other_cuts=CUTS)
def test_a_letter_counts_once_however_often_it_is_sent(
    first: list[tuple[int, int, str, bool]],
    again: list[tuple[int, bool, bool]],
    cuts: list[int],
    other_cuts: list[int],
) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        counted, expected, roots = _play(one, first, again, cuts, restarts=False)
        recounted, _, other_roots = _play(other, first, again, other_cuts, restarts=True)
    assert counted == expected
    assert recounted == expected
    assert roots == other_roots
