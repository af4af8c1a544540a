"""A stock Faust application with one agent and one table; writes its table down when it holds enough."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import faust

DATA = Path(os.environ.get("DATA", "."))
EXPECTED = int(os.environ.get("EXPECTED", "0"))

app = faust.App(
    "counting",
    broker=f"kafka://{os.environ.get('BROKER', '127.0.0.1:9092')}",
    store="memory://",
    topic_partitions=4,
    topic_disable_leader=True,
    stream_wait_empty=False,
    web_enabled=False,
    broker_session_timeout=6,
    broker_heartbeat_interval=1,
    broker_commit_interval=0.3,
    consumer_auto_offset_reset="earliest",
    datadir=str(DATA),
)
words = app.topic("words", key_type=bytes, value_type=bytes, partitions=4)
counts = app.Table("counts", default=int, partitions=4)


@app.agent(words)
async def count(stream: faust.Stream) -> None:
    """Count by key: the producer's partitioner is Faust's, so counts lie where their words do."""
    async for key, _ in stream.items():
        counts[key.decode()] += 1


@app.timer(0.2)
async def report() -> None:
    """Say so when everything is counted."""
    found = dict(counts.items())
    if sum(found.values()) >= EXPECTED:
        scratch = DATA / "counts.new"
        scratch.write_text(json.dumps(found))
        scratch.replace(DATA / "counts.json")


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "-l", "error", "--without-web"]
    app.main()
