"""What it costs to read signals now and at a past time, from memory and from the cold tier.

    python -m benchmarks.past [--items 50000] [--events 1000000] [--days 90]

Events lie evenly over the days before now, on Zipf-distributed items of one partition. Each figure is the
first reading, which may go to the tables (here dicts, so without RocksDB's share), and the one after it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from benchmarks.memory import SIGNALS, START_MS, Measured
from queryd.hot.arrays import U32, Mask
from queryd.hot.bucket_reads import EVERYBODY, Scope
from queryd.hot.reads import SignalReads
from schemas.durations import DAY_MS, HOUR_MS
from schemas.predicate import parse_predicate

_BATCHES = 50
_COHORT = Scope(parse_predicate("locale:7"))
Read: TypeAlias = Callable[[SignalReads], object]


def filled(items: int, events: int, days: int) -> Measured:
    """Columns and tables with ``events`` over ``days``."""
    measured = Measured(items, events=0)
    chance = np.random.default_rng(5)
    n = events // _BATCHES
    for _ in range(_BATCHES):
        ranks = np.exp(chance.random(n) * np.log(items)).astype(np.int64)
        signals = chance.integers(0, len(SIGNALS), n)
        batch = measured.batch_of(ranks * 48_271 % items, signals, START_MS)
        batch.ts_ms = START_MS - chance.integers(0, days * DAY_MS, n)
        measured.follow(measured.fold(batch))
    return measured


def main() -> None:
    """Print one table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--items", type=int, default=50_000)
    arguments.add_argument("--events", type=int, default=1_000_000)
    arguments.add_argument("--days", type=int, default=90)
    chosen = arguments.parse_args()
    measured = filled(chosen.items, chosen.events, chosen.days)
    item = np.zeros(len(measured.hot.items), dtype=np.bool_)
    item[0] = True
    rows = np.arange(1_000, dtype=np.uint32)

    print(f"{'what':62} {'first ms':>9} {'again ms':>9}")
    for when, ago_days in (("now", 0), ("10 days ago (memory)", 10), ("50 days ago (tables)", 50)):
        at_ms = START_MS - ago_days * DAY_MS + HOUR_MS // 2
        for whose, scope in (("everybody", EVERYBODY), ("a cohort", _COHORT)):
            for what, read in _kinds(item, rows, scope):
                first, again = (
                    _ms(read, SignalReads(measured.hot, measured.cold, START_MS, at_ms)) for _ in range(2)
                )
                print(f"{f'{what}, {whose}, {when}':62} {first:9.2f} {again:9.2f}")


def _kinds(item: Mask, rows: U32, scope: Scope) -> Iterator[tuple[str, Read]]:
    """Every kind of read at a scope."""

    def windowed(reads: SignalReads) -> object:
        return reads.of_items(0, "24h", scope, item)

    def all_time(reads: SignalReads) -> object:
        return reads.of_items(0, "all_time", scope, item)

    def decays(reads: SignalReads) -> object:
        return reads.decays_of(0, scope, item)

    def every(reads: SignalReads) -> object:
        return reads.counts(0, "24h", scope)

    def candidates(reads: SignalReads) -> object:
        return reads.decayed(0, "24h", scope, rows, reads.at_ms)

    yield "24h of one item", windowed
    yield "all time of one item", all_time
    yield "three decayed scores of one item", decays
    yield "24h of every item", every
    yield "decay 24h of 1,000 candidates", candidates


def _ms(read: Read, reads: SignalReads) -> float:
    begun = time.process_time()
    read(reads)
    return (time.process_time() - begun) * 1000


if __name__ == "__main__":
    main()
