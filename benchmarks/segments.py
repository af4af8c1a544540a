"""What segments cost: stamping and counting in a worker, and asking who is in one in queryd.

    python -m benchmarks.segments [--short]

CPU time of one partition's fold, batches of 2,048 events of users by Zipf's law, for sets of segments from
none to twenty; and of queryd's bitmaps while a thousand users change between two questions.
"""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from benchmarks.results import Result, parser, report
from materializers.batches import ItemMove, StampBatch
from materializers.interner import Interner
from materializers.materializer import PartitionContext
from materializers.rows.segments import SECTION, TABLE
from materializers.views.segments import Segments
from queryd.hot.segments import SegmentMembers
from schemas.loading import load_schema
from schemas.model import Schema
from tests.engine_site import MemoryTables
from tests.memory_rows import MemoryRows, MemoryWriter

BATCH: Final = 2_048
ITEMS: Final = 20_000
KINDS: Final = ("view", "like", "share", "completion")
SHARES: Final = (0.8, 0.1, 0.03, 0.07)
NOW_MS: Final = 1_763_600_000_000
SETS: Final = {
    "none": [],
    "1 on likes of a category": ["count(like, category = c0, 30d) >= 5"],
    "1 on every view": ["count(view, 1h) >= 10"],
    "20": [
        *(f"count(like, category = c{n}, 30d) >= 5" for n in range(10)),
        *(f"count(view, category = c{n}, 7d) >= {3 + n}" for n in range(6)),
        "count(view, 1h) >= 10",
        "count(completion, 24h) >= 3 AND NOT count(share, 7d) >= 1",
        "count(like, all_time) >= 2, NOT count(like, 7d) >= 1",
        "sum(completion, all_time) >= 50",
    ],
}


def main(arguments: list[str] | None = None) -> int:
    """One row for each set of segments."""
    options = parser("segments", __doc__)
    options.add_argument("--users", type=int)
    options.add_argument("--events", type=int)
    given = options.parse_args(arguments)
    users = given.users or (20_000 if given.short else 125_000)
    events = given.events or (100_000 if given.short else 1_000_000)
    rows = [_measured(name, _schema(texts), users, events) for name, texts in SETS.items()]
    command = f"python -m benchmarks.segments --users {users} --events {events}"
    report(
        Result("segments", command, rows, [f"{users:,} users of one partition, 10 % of events like"]),
        given.json,
    )
    return 0


def _schema(texts: list[str]) -> Schema:
    return load_schema({"name": "segments", "segments": {f"s{n}": text for n, text in enumerate(texts)}})


def _measured(name: str, schema: Schema, users: int, events: int) -> dict[str, Any]:
    rows = MemoryRows()
    items, people, profiles = Interner(), Interner(), Interner()
    items.ids([f"item{n}" for n in range(ITEMS)])
    people.ids([f"user{n}" for n in range(users)])
    profiles.ids(["{}", '{"locale":"US"}'])
    context = PartitionContext(0, 1, schema, items, people, profiles, Interner(), rows)
    view = Segments(context)
    view.restore(rows)
    rng = np.random.default_rng(3)
    _prime(view, rows)
    spent_s = flushed_s = 0.0
    for start in range(0, events, BATCH):
        batch = _batch(rng, schema, users, start, events)
        began_s = time.thread_time()
        view.stamp(batch)
        spent_s += time.thread_time() - began_s
        if start // BATCH % 8 == 7:
            flushed_s += _flush(view, rows)
    flushed_s += _flush(view, rows)
    return {
        "segments": name,
        "fold (µs an event)": spent_s / events * 1e6,
        "rows (µs an event)": flushed_s / events * 1e6,
        "users with a row": len(rows.tables.get(TABLE, {})),
        **_asked(schema, rows),
    }


def _prime(view: Segments, rows: MemoryRows) -> None:
    """Half of the items are in one of fifty categories."""
    moves = [ItemMove(-1, f"item{n}", (f"category = c{n % 50}",), 0, 0) for n in range(0, ITEMS, 2)]
    nothing = np.empty(0, dtype=np.int64)
    names, kinds = nothing.astype(np.uint32), nothing.astype(np.uint16)
    view.stamp(StampBatch(names, names, kinds, names, nothing, nothing, nothing, moves))
    _flush(view, rows)


def _flush(view: Segments, rows: MemoryRows) -> float:
    writer = MemoryWriter(rows)
    began_s = time.thread_time()
    view.checkpoint(writer)
    took_s = time.thread_time() - began_s
    writer.commit()
    rows.fed[:-1] = []
    return took_s


def _batch(rng: np.random.Generator, schema: Schema, users: int, start: int, events: int) -> StampBatch:
    n = min(BATCH, events - start)
    kinds = [schema.signal_index[kind] for kind in KINDS]
    user = 1 + np.minimum((users * rng.random(n) ** 2.5).astype(np.uint32), users - 1)
    ts_ms = NOW_MS + (start + np.arange(n)) * 2 - rng.integers(0, 2_000, n)
    return StampBatch(
        item=(1 + ITEMS * rng.random(n) ** 2).astype(np.uint32),
        user=user.astype(np.uint32),
        signal=np.array(kinds, dtype=np.uint16)[rng.choice(len(kinds), n, p=SHARES)],
        profile=rng.integers(1, 3, n).astype(np.uint32),
        weight=np.full(n, 1_000_000, dtype=np.int64),
        ts_ms=ts_ms,
        offset=start + np.arange(n),
        moves=(),
    )


def _asked(schema: Schema, rows: MemoryRows) -> dict[str, Any]:
    """Questions to queryd, a millisecond apart, a flush of changes before each."""
    clock = [NOW_MS + 10_000]
    members = SegmentMembers(MemoryTables({0: rows}), schema, lambda: clock[0])
    for _ in members.scan(0):
        pass
    if not schema.segments or not rows.fed:
        return {"ask (ms)": None, "MB in queryd": None}
    members.count("s0")
    payload = next(payload for section, payload in reversed(rows.fed) if section == SECTION)
    took_s = []
    for _ in range(20):
        members.apply(0, payload)
        clock[0] += 1
        began_s = time.thread_time()
        members.count("s0")
        took_s.append(time.thread_time() - began_s)
    return {"ask (ms)": float(np.median(took_s)) * 1e3, "MB in queryd": members.nbytes / 1e6}


if __name__ == "__main__":
    raise SystemExit(main())
