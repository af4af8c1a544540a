"""What an event of an imported history costs, by how many hours one flush touches.

    python -m benchmarks.history [--events 40000] [--flushes 4]

Both views of an item partition fold and flush events that lie years back in no order, the worst that an
import can bring; queryd follows. Rows go to dicts: the numbers are the views' and queryd's own share.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from benchmarks.memory import SIGNALS, START_MS, Measured
from schemas.durations import DAY_MS, HOUR_MS

HOURS = (10, 100, 1_000, 10_000, 50_000)


def main() -> None:
    """Print one table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--events", type=int, default=40_000)
    arguments.add_argument("--flushes", type=int, default=4)
    chosen = arguments.parse_args()
    measured = Measured(items=100_000, events=0)
    chance = np.random.default_rng(3)
    print(f"{'hours':>7}  views us/event  queryd us/event")
    for hours in HOURS:
        views_s = queryd_s = 0.0
        for _ in range(chosen.flushes):
            items = chance.integers(0, measured.items, chosen.events)
            batch = measured.batch_of(items, chance.integers(0, len(SIGNALS), chosen.events), START_MS)
            batch.ts_ms = START_MS - 40 * DAY_MS - chance.integers(0, hours, chosen.events) * HOUR_MS
            begun = time.process_time()
            sections = measured.fold(batch)
            folded = time.process_time()
            measured.follow(sections)
            views_s += folded - begun
            queryd_s += time.process_time() - folded
        events = chosen.flushes * chosen.events
        print(f"{hours:7,}  {views_s * 1e6 / events:14.2f}  {queryd_s * 1e6 / events:15.2f}")


if __name__ == "__main__":
    main()
