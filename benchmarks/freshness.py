"""How long after the log's acknowledgement a signal is visible to queries, under a steady load.

    python -m benchmarks.freshness [--short] [--events-per-second 5000] [--seconds 60]

A whole `tidal up` runs. One thread publishes the load through the SDK. Another sends a probe every 100 ms: it
publishes one signal, waits for its acknowledgement, and asks a query with AFTER its position; the arrival of
the reply is when it was visible, so the figure includes one HTTP request and one query.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.parts import cpu_seconds, peak_memory_bytes
from benchmarks.results import Result, parser, report
from benchmarks.site import publish_records
from benchmarks.traffic import Traffic
from schemas.default import default_schema
from streams.producer import Producer
from tidal.client import Client
from tidal.client_errors import RefusedError
from tidal.endpoints import Endpoints
from tidal.site_process import SiteProcess
from tidal.visibility import NOT_YET, wait_visible

PROBE_EVERY_S: Final = 0.1
LOAD_STEP_S: Final = 0.02
WARM_UP_S: Final = 3.0
TIMEOUT_S: Final = 30.0
PROBED_QUERY: Final = 'RETRIEVE items USING PROFILE trending LIMIT 1 AFTER "{token}"'


class Load:
    """Publishes events at a steady rate in a thread of its own until it is stopped."""

    def __init__(self, brokers: str, traffic: Traffic, events_per_s: int) -> None:
        self._brokers = brokers
        self._traffic = traffic
        self._rate = events_per_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._error: BaseException | None = None
        self.published = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_S)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with Producer(self._brokers) as producer:
                self._publish(producer)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._error = error

    def _publish(self, producer: Producer) -> None:
        started = time.perf_counter()
        while not self._stop.is_set():
            due = int((time.perf_counter() - started) * self._rate)
            if count := due - self.published:
                now_ms = time.time_ns() // 1_000_000
                producer.publish_columns(self._traffic.events(count, now_ms, now_ms))
                self.published += count
            time.sleep(LOAD_STEP_S)


def main() -> None:
    """Measures and reports."""
    options = parser("freshness", __doc__)
    options.add_argument("--events-per-second", type=int, default=5_000)
    options.add_argument("--seconds", type=float, default=60.0)
    chosen = options.parse_args()
    seconds = 8.0 if chosen.short else chosen.seconds
    users, items = (5_000, 2_000) if chosen.short else (50_000, 20_000)
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as folder, SiteProcess(Path(folder)) as site:
        row = measure(site, Traffic(users, items), chosen.events_per_second, seconds)
    command = (
        f"python -m benchmarks.freshness --events-per-second {chosen.events_per_second} --seconds {seconds:g}"
    )
    report(Result("freshness", command, [row]), chosen.json)


def measure(site: Endpoints, traffic: Traffic, events_per_s: int, seconds: float) -> dict[str, Any]:
    """One row: milliseconds from acknowledgement to visibility, CPU and memory of each process."""
    dim = next(iter(default_schema().entities["item"].embeddings.values())).dim
    publish_records(site.brokers, traffic, dim)
    with Client(site.http) as client, Producer(site.brokers) as producer:
        wait_visible(
            client, [producer.publish("view", traffic.items[0], traffic.users[0]).result()], TIMEOUT_S
        )
        with Load(site.brokers, traffic, events_per_s) as load:
            time.sleep(WARM_UP_S)
            before = {name: cpu_seconds(pid) for name, pid in site.pids.items()}
            started, published = time.perf_counter(), load.published
            taken_ms = _probe(client, producer, traffic, seconds)
            elapsed = time.perf_counter() - started
            rate = (load.published - published) / elapsed
    p50, p99 = np.percentile(taken_ms, [50, 99])
    row: dict[str, Any] = {
        "events/s": rate,
        "probes": len(taken_ms),
        "p50 ms": float(p50),
        "p99 ms": float(p99),
        "max ms": max(taken_ms),
    }
    for name, pid in site.pids.items():
        row[f"{name} CPU %"] = (cpu_seconds(pid) - before[name]) / elapsed * 100
        row[f"{name} peak MB"] = peak_memory_bytes(pid) / 1e6
    return row


def _probe(client: Client, producer: Producer, traffic: Traffic, seconds: float) -> list[float]:
    taken_ms = []
    started = time.perf_counter()
    for number in range(int(seconds / PROBE_EVERY_S)):
        time.sleep(max(0.0, started + number * PROBE_EVERY_S - time.perf_counter()))
        user = traffic.users[number % len(traffic.users)]
        position = producer.publish("view", traffic.items[number % len(traffic.items)], user).result(
            TIMEOUT_S
        )
        acknowledged = time.perf_counter()
        _ask_until_visible(client, PROBED_QUERY.format(token=position.encode()))
        taken_ms.append((time.perf_counter() - acknowledged) * 1000)
    return taken_ms


def _ask_until_visible(client: Client, query: str) -> None:
    """A wait that queryd gives up is a measurement, not a failure: it is asked again."""
    deadline = time.perf_counter() + TIMEOUT_S
    while True:
        try:
            client.query(query)
        except RefusedError as error:
            if error.problem.status not in NOT_YET or time.perf_counter() > deadline:
                raise
        else:
            return


if __name__ == "__main__":
    main()
