"""Memory of a worker and of queryd under uniform traffic: what it settles at, and whether it grows on.

    python -m benchmarks.memory_site [--short] [--items 1000000] [--users 1000000] [--dim 8] [--minutes 10]

Uniform traffic is the worst case: no item is hotter than another, so no row is found in memory. A whole
`tidal up` runs; every item and user has a record, six signals are sent. Each line of the table is one moment:
`anonymous` is what the process allocated, `files` what it has mapped (item cards, tables), which the system
may take back. A second table says which parts of the worker have it, as the worker itself counts.

The verdict holds the worker's largest `anonymous` (looked at twice a second) against `--limit-mb`. Against
`--growth` it holds how much that grew from the middle of the traffic to its end without the dedup horizon,
which holds every event of up to twenty minutes (32 bytes each, twice 1,048,576 for each partition at most):
ten minutes of traffic only fill it. The growth with it is told beside.
"""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.parts import PartError
from benchmarks.results import Result, parser, report
from benchmarks.site import publish_records
from benchmarks.traffic import BUSY_SHARES, Traffic
from materializers.worker import STATUS_FILE, worker_folder
from schemas.loading import default_document
from schemas.records.columns import EventColumns
from schemas.weights import WEIGHT_SCALE
from streams.positions import Positions
from streams.producer import Producer
from tidal.client import Client
from tidal.client_errors import RefusedError
from tidal.endpoints import Endpoints
from tidal.site_process import SiteProcess
from tidal.visibility import NOT_YET

KINDS: Final = tuple(BUSY_SHARES)
STEP_S: Final = 0.5
RETRY_S: Final = 0.5
TIMEOUT_S: Final = 1_800.0
SAMPLES: Final = 20
LAST_USERS: Final = 64
"""Enough that each user partition has one."""
VISIBLE: Final = 'RETRIEVE items USING PROFILE trending LIMIT 1 AFTER "{token}"'
WORKER: Final = "worker-0"
ANONYMOUS: Final = f"{WORKER} anonymous MB"
HORIZON: Final = "of that dedup MB"
_HORIZON_PART: Final = "user shard: dedup"
_KINDS_OF_MEMORY: Final = {"RssAnon": "anonymous", "RssFile": "files"}


class Measured(NamedTuple):
    """A row for each moment, those of the traffic alone, and the worker's peak between them in bytes."""

    rows: list[dict[str, Any]]
    during: list[dict[str, Any]]
    peak: int


class UniformTraffic(Traffic):
    """Every item and every user as often as another."""

    def step(self, count: int, now_ms: int) -> EventColumns:
        """``count`` events of this moment, with dictionaries of the ids that they mention."""
        chance = self._rng
        items, item = np.unique(chance.integers(0, len(self.items), count), return_inverse=True)
        users, user = np.unique(chance.integers(0, len(self.users), count), return_inverse=True)
        return EventColumns(
            kinds=list(KINDS),
            items=[self.items[number] for number in items.tolist()],
            users=[self.users[number] for number in users.tolist()],
            kind=chance.choice(len(KINDS), size=count, p=_shares()).astype(np.uint16),
            item=item.astype(np.uint32),
            user=user.astype(np.uint32),
            weight=np.full(count, WEIGHT_SCALE, dtype=np.int64),
            ts_ms=np.full(count, now_ms, dtype=np.int64),
        )


def main() -> None:
    """Measures and reports."""
    options = parser("memory_site", __doc__)
    options.add_argument("--items", type=int, default=1_000_000)
    options.add_argument("--users", type=int, default=1_000_000)
    options.add_argument("--dim", type=int, default=64, help="dimensions of the items' vectors")
    options.add_argument("--events-per-second", type=int, default=20_000)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--limit-mb", type=float, default=4_000.0, help="the worker's, anonymous")
    options.add_argument(
        "--growth", type=float, default=0.05, help="share, in the second half of the traffic"
    )
    chosen = options.parse_args()
    items, users = (20_000, 20_000) if chosen.short else (chosen.items, chosen.users)
    minutes, rate = (0.25, 5_000) if chosen.short else (chosen.minutes, chosen.events_per_second)
    with tempfile.TemporaryDirectory(prefix="tidal-bench-") as scratch:
        folder = Path(scratch)
        schema = _schema(folder, chosen.dim)
        with SiteProcess(folder / "site", "--schema", str(schema)) as site:
            traffic = UniformTraffic(users, items)
            measured = measure(site, folder / "site", traffic, chosen.dim, rate, minutes)
            parts = part_rows(folder / "site")
    command = (
        f"python -m benchmarks.memory_site --items {items} --users {users} --dim {chosen.dim} "
        f"--events-per-second {rate} --minutes {minutes:g}"
    )
    verdict = verdict_of(measured, chosen.limit_mb * 1e6, chosen.growth)
    report(Result("memory of a site", command, measured.rows, [verdict]), chosen.json)
    beside = chosen.json and chosen.json.with_name(f"{chosen.json.stem}-parts{chosen.json.suffix}")
    report(Result("memory of a worker by part", command, parts), beside)


def verdict_of(measured: Measured, limit: float, growth_max: float) -> str:
    """One line: whether the worker stayed below ``limit`` bytes, and level in the second half."""
    first, last = measured.during[len(measured.during) // 2], measured.during[-1]
    whole = last[ANONYMOUS] / first[ANONYMOUS] - 1
    growth = (last[ANONYMOUS] - last[HORIZON]) / (first[ANONYMOUS] - first[HORIZON]) - 1
    small, level = measured.peak <= limit, growth <= growth_max
    return (
        f"verdict: {_held(small and level).upper()}. The worker's peak is {measured.peak / 1e6:,.0f} MB,"
        f" at most {limit / 1e6:,.0f} ({_held(small)}). In the second half of the traffic it grew"
        f" {growth:+.1%} without the dedup horizon, at most {growth_max:.0%} is level ({_held(level)});"
        f" {whole:+.1%} with it."
    )


def _held(well: bool) -> str:
    return "holds" if well else "missed"


def part_rows(data: Path) -> list[dict[str, Any]]:
    """What the worker said last of its memory, largest part first."""
    memory: dict[str, Any] = _status(data)["memory"]
    rows = [{"part": name, "MB": size / 1e6} for name, size in memory["parts"].items()]
    rows.append({"part": "all of these", "MB": sum(memory["parts"].values()) / 1e6})
    rows += [{"part": f"malloc: {name}", "MB": size / 1e6} for name, size in memory["malloc"].items()]
    return [*rows, {"part": "anonymous", "MB": memory["anonymous"] / 1e6}]


def measure(
    site: Endpoints, data: Path, traffic: UniformTraffic, dim: int, events_per_s: int, minutes: float
) -> Measured:
    """Before the records, after them, and during the traffic."""
    rows, during = [_row("empty", site, data, 0)], []
    peak = _Peak(site.pids[WORKER])
    with Producer(site.brokers) as producer, Client(site.http, timeout_s=60.0) as client:
        publish_records(site.brokers, traffic, dim)
        _await_cards(data, len(traffic.items))
        _settle(producer, client, traffic)
        rows.append(_row("records", site, data, 0))
        began, sent = time.monotonic(), 0
        for sample in range(1, SAMPLES + 1):
            until_s = minutes * 60 * sample / SAMPLES
            sent += _send(producer, traffic, events_per_s, began, sent, until_s, peak)
            during.append(_row(f"{until_s / 60:.3g} min", site, data, sent))
        _settle(producer, client, traffic)
        rows += [*during, _row("settled", site, data, sent)]
    return Measured(rows, during, max(peak.bytes, *(int(row[ANONYMOUS] * 1e6) for row in rows)))


class _Peak:
    """The largest that a process was whenever somebody looked."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.bytes = 0

    def look(self) -> None:
        self.bytes = max(self.bytes, memory_of(self._pid)["anonymous"])


def _send(
    producer: Producer,
    traffic: UniformTraffic,
    rate: int,
    began: float,
    sent: int,
    until_s: float,
    peak: _Peak,
) -> int:
    """Send until ``until_s`` after ``began``, at a steady rate as long as the log keeps up."""
    count = 0
    while (elapsed_s := time.monotonic() - began) < until_s:
        due = min(int(elapsed_s * rate) - sent - count, int(rate * STEP_S) * 2)
        if due > 0:
            now_ms = time.time_ns() // 1_000_000
            producer.publish_columns(traffic.step(due, now_ms)).result(TIMEOUT_S)
            count += due
        peak.look()
        time.sleep(STEP_S)
    return count


def _await_cards(data: Path, items: int) -> None:
    """Wait until the worker has the card of every item, or events would wait for them, in memory."""
    deadline = time.monotonic() + TIMEOUT_S
    while _status(data)["cards"] < items:
        if time.monotonic() > deadline:
            raise PartError(f"{_status(data)['cards']} of {items} item cards after {TIMEOUT_S:.0f} s")
        time.sleep(RETRY_S)


def _status(data: Path) -> dict[str, Any]:
    status: dict[str, Any] = msgspec.json.decode((worker_folder(data, WORKER) / STATUS_FILE).read_bytes())
    return status


def _settle(producer: Producer, client: Client, traffic: UniformTraffic) -> None:
    """Wait until signals of every user partition, sent now, are visible: then all before them is, too."""
    last = [producer.publish("view", traffic.items[0], user) for user in traffic.users[:LAST_USERS]]
    token = Positions.of([each.result(TIMEOUT_S) for each in last]).encode()
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            client.query(VISIBLE.format(token=token))
        except RefusedError as error:
            if error.problem.status not in NOT_YET or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)
        else:
            return


def _shares() -> npt.NDArray[np.float64]:
    total = sum(BUSY_SHARES.values())
    return np.array([share / total for share in BUSY_SHARES.values()])


def _schema(folder: Path, dim: int) -> Path:
    document = default_document()
    for slot in document["entities"]["item"]["embeddings"].values():
        slot["dim"] = dim
    path = folder / "schema.json"
    path.write_bytes(msgspec.json.encode(document))
    return path


def _row(when: str, site: Endpoints, data: Path, sent: int) -> dict[str, Any]:
    row: dict[str, Any] = {"when": when, "events": sent}
    for name, pid in site.pids.items():
        if name.startswith(("worker", "queryd")):
            row |= {f"{name} {kind} MB": size / 1e6 for kind, size in memory_of(pid).items()}
    parts = _status(data)["memory"].get("parts", {})
    return row | {HORIZON: parts.get(_HORIZON_PART, 0) / 1e6}


def memory_of(pid: int) -> dict[str, int]:
    """Resident bytes by kind.

    Raises:
        PartError: the process is gone.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise PartError(f"process {pid} is gone, or this is not Linux: benchmarks read /proc") from error
    found = re.findall(r"^(RssAnon|RssFile):\s+(\d+) kB", status, re.MULTILINE)
    return {_KINDS_OF_MEMORY[kind]: int(size) * 1024 for kind, size in found}


if __name__ == "__main__":
    main()
