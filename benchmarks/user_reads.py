"""What a read of a user or of edges costs, in the engine, over the tables of a worker that has folded a site.

    python -m benchmarks.user_reads [--short] [--users 20000] [--items 20000] [--events 1000000]

No HTTP and no other load: the time that a query daemon's loop spends on one call. Every user who follows has
fifty edges; one creator is followed by all.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.parts import Part
from benchmarks.results import Result, parser, report
from benchmarks.site import TIMEOUT_S, Watcher, ends_of, log_with_topics, publish_columnar
from benchmarks.traffic import Traffic
from materializers.tables.reader import TableReader
from queryd.engine import Engine
from schemas.default import default_schema
from schemas.settings import Settings, SiteSettings
from streams.positions import Position
from streams.producer import Producer
from streams.topics import RELATIONSHIPS, SIGNALS

FOLLOWS_OF_EACH: Final = 50
FOLLOWING_SHARE: Final = 0.1
STAR: Final = "star"
IN_FLIGHT_MAX: Final = 2_000
CALLS: Final = 300
WATCH_EVERY_S: Final = 0.25

Call = Callable[[str], Awaitable[Any]]


def main() -> None:
    """Measures and reports."""
    options = parser("user_reads", __doc__)
    options.add_argument("--users", type=int, default=20_000)
    options.add_argument("--items", type=int, default=20_000)
    options.add_argument("--events", type=int, default=1_000_000)
    chosen = options.parse_args()
    users, events = (2_000, 100_000) if chosen.short else (chosen.users, chosen.events)
    items = 2_000 if chosen.short else chosen.items
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as scratch:
        folder = Path(scratch)
        traffic = Traffic(users, items)
        with log_with_topics(folder) as log:
            publish_columnar(log.address, traffic, events)
            edges = _publish_edges(log.address, traffic.users)
            _fold(folder, log.address)
        rows = asyncio.run(_measure(folder, traffic.users))
    command = f"python -m benchmarks.user_reads --users {users} --items {items} --events {events}"
    report(Result("user reads", command, rows, [f"{edges:,} explicit edges"]), chosen.json)


def _edges(users: list[str]) -> Iterator[tuple[str, str]]:
    """Everybody follows the star; a tenth follow fifty others of their own."""
    chance = np.random.default_rng(11)
    yield from ((user, STAR) for user in users)
    following = users[: int(len(users) * FOLLOWING_SHARE)]
    for user in following:
        for target in chance.choice(len(following), FOLLOWS_OF_EACH, replace=False).tolist():
            yield user, following[target]


def _publish_edges(brokers: str, users: list[str]) -> int:
    waiting: list[Future[Position]] = []
    count = 0
    with Producer(brokers) as producer:
        for source, target in _edges(users):
            waiting.append(producer.put_relationship("follows", source, target, {"weight": 1.0}))
            count += 1
            if len(waiting) == IN_FLIGHT_MAX:
                waiting.pop(0).result(TIMEOUT_S)
        for future in waiting:
            future.result(TIMEOUT_S)
    return count


def _fold(folder: Path, brokers: str) -> None:
    """A worker folds everything and stops."""
    with (
        Part(folder, "worker", "--data", str(folder), "--brokers", brokers, "--name", "worker-0") as worker,
        Watcher(folder, "benchmark") as watcher,
    ):
        signals, edges = ends_of(brokers, SIGNALS), ends_of(brokers, RELATIONSHIPS)
        deadline = time.perf_counter() + TIMEOUT_S
        while watcher.signals_left(signals) or watcher.records_left(RELATIONSHIPS, edges):
            worker.check()
            assert time.perf_counter() < deadline, "the worker does not get to the end of the log"
            time.sleep(WATCH_EVERY_S)


async def _measure(folder: Path, users: list[str]) -> list[dict[str, Any]]:
    tables = TableReader(folder, "benchmark-engine")
    engine = Engine(Settings(site=SiteSettings(data_dir=str(folder))), default_schema(), tables)
    await engine.start(follow=False)
    try:
        following = users[: int(len(users) * FOLLOWING_SHARE)]
        return [await _timed(name, call, among) for name, call, among in _calls(engine, users, following)]
    finally:
        await engine.stop()
        tables.close()


def _calls(engine: Engine, users: list[str], following: list[str]) -> list[tuple[str, Call, list[str]]]:
    return [
        ("one edge", lambda user: engine.relationship("follows", user, STAR), users),
        ("51 edges out, by weight", partial(engine.relationships, "follows"), following),
        ("number of followers", lambda _: engine.relationships("follows", STAR, "in", limit=0), users),
        ("10,000 followers, by weight", lambda _: engine.relationships("follows", STAR, "in"), users[:20]),
        ("two hops, fan-out 50", lambda user: engine.two_hops(user, "follows", fan_out=50), following),
        ("ties to creators and items", engine.user_relationships, users),
        ("all states", engine.user_state, users),
        ("preference", engine.user_preference, users),
        ("users alike by likes", lambda user: engine.similar_users(user, "liked"), users),
    ]


async def _timed(name: str, call: Call, users: list[str]) -> dict[str, Any]:
    chance = np.random.default_rng(3)
    spent = []
    for place in chance.integers(0, len(users), min(CALLS, len(users))).tolist():
        began = time.perf_counter()
        await call(users[place])
        spent.append((time.perf_counter() - began) * 1e3)
    low, high = np.percentile(spent, [50, 99]).tolist()
    return {"read": name, "p50 ms": low, "p99 ms": high, "calls": len(spent)}


if __name__ == "__main__":
    main()
