"""How fast the log is folded again for one view, as `tidal rebuild` and `tidal verify --view` do it.

    python -m benchmarks.refold [--short] [--events 2000000]

Publishes users, items and columnar batches to an embedded log; then, for each view of the registry, folds the
whole log from its beginning for that view alone. No worker runs: the log holds no profile records.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.results import Result, parser, report
from benchmarks.site import ends_of, log_with_topics, publish_columnar, publish_records
from benchmarks.traffic import Traffic
from materializers.materializer import Scope, View
from materializers.refold.goal import Goal, PartitionGoal
from materializers.refold.log_reader import LogReader
from materializers.refold.refold import Refold
from materializers.registry import default_registry
from materializers.shards.card_positions import CardPositions
from schemas.loading import default_document, load_schema
from schemas.model import Schema
from streams.topics import ENTITY_TOPICS, ITEMS, RELATIONSHIPS, SIGNALS

_TOPICS: Final = (SIGNALS, RELATIONSHIPS, *ENTITY_TOPICS.values())


def main() -> None:
    """Measures and reports."""
    options = parser("refold", __doc__)
    options.add_argument("--events", type=int, default=2_000_000)
    options.add_argument("--users", type=int, default=50_000)
    options.add_argument("--items", type=int, default=20_000)
    options.add_argument("--dim", type=int, default=64, help="dimensions of the items' vectors")
    options.add_argument("--view", action="append", help="only this one; may be repeated")
    chosen = options.parse_args()
    events = 300_000 if chosen.short else chosen.events
    users, items = (5_000, 2_000) if chosen.short else (chosen.users, chosen.items)
    document = default_document()
    document["entities"]["item"]["embeddings"]["content"]["dim"] = chosen.dim
    schema = load_schema(document)
    registry = default_registry()
    views = [
        view for scope in Scope for view in registry.of(scope) if view.name in (chosen.view or [view.name])
    ]
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as scratch:
        folder = Path(scratch)
        traffic = Traffic(users, items)
        with log_with_topics(folder) as log:
            publish_records(log.address, traffic, chosen.dim)
            publish_columnar(log.address, traffic, events)
            goal = _goal(log.address)
            rows = [_measure(folder, log.address, schema, view, goal, events) for view in views]
    command = f"python -m benchmarks.refold --events {events} --users {users} --items {items}"
    report(Result("refold", command, rows, []), chosen.json)


def _goal(brokers: str) -> Goal:
    """Everything that the log has; item records before all events."""
    ends = {topic: ends_of(brokers, topic) for topic in _TOPICS}
    partitions = len(ends[SIGNALS])
    marks = {source: ends[SIGNALS][source] - 1 for source in range(partitions)}
    return {
        partition: PartitionGoal(
            applied={topic: ends[topic][partition] - 1 for topic in _TOPICS},
            marks=marks,
            first_card_row=0,
            card_rows=[CardPositions(-1, dict(ends[ITEMS]))],
        )
        for partition in range(partitions)
    }


def _measure(
    folder: Path, brokers: str, schema: Schema, view: View, goal: Goal, events: int
) -> dict[str, Any]:
    place = folder / f"refold-{view.name}"
    log = LogReader(brokers)
    started_s, used_s = time.monotonic(), time.process_time()
    refold = Refold(place, log, schema, [view], len(goal))
    refold.advance(goal)
    elapsed_s, cpu_s = time.monotonic() - started_s, time.process_time() - used_s
    refold.close()
    log.close()
    shutil.rmtree(place)
    folded = refold.events
    return {
        "view": view.name,
        "events": folded,
        "events/s": folded / elapsed_s,
        "events/s of CPU": folded / cpu_s,
        "µs CPU per event": cpu_s / max(folded, 1) * 1e6,
        "share of the log": folded / events,
    }


if __name__ == "__main__":
    main()
