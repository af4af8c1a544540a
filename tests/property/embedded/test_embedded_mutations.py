"""Broken requests: an error or a closed connection, never silence, never something left behind.

Each request begins as a sound one of a random API and version, with topics, groups and batches that exist or
nearly so, and is then altered: bits, cuts, insertions, wrong lengths. A failure names its seed and number.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import random
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from kio.index import load_request_schema

from streams.embedded import EmbeddedLog, LogSettings
from streams.embedded.codec import APIS, _entity_writer, field_shape, is_flexible
from tests.integration.embedded_wire import Wire, api_versions, framed, request, string
from tests.unit.embedded.support import make_batch

SETTINGS = LogSettings(
    partitions_max=40, groups_max=50, connections_max=50, request_bytes_max=1 << 20, group_initial_delay_ms=1,
    session_timeout_ms_max=1_000, rebalance_timeout_ms_max=1_000, housekeeping_interval_s=0.5,
    transaction_timeout_ms_max=1_000, segment_bytes=1 << 20, producer_id_block=10,
)  # fmt: skip
# These wait for others or for data by design.
MAY_WAIT = {1, 11, 14}
PATIENCE_S = 20.0
WAITS_S = 0.05
MEMORY_BYTES_MAX = 48 << 20
PROBE = 0x7A7A
NAMES = ["t", "c", "g", "missing", "", "x" * 300, "\u00e9", "../t", "PLAIN", "consumer", "range"]
SERVED = [
    (api.key, version)
    for api in APIS.values()
    for version in range(3 if api.key == 0 else api.version_min, api.version_max + 1)
]
NUMBERS = [0, 1, -1, 2, 5, 100, 1_000, 2**31 - 1, -(2**31)]


def sound(rng: random.Random) -> bytes:
    """A request without its length."""
    key, version = rng.choice(SERVED)
    body: list[bytes] = []
    schema = load_request_schema(key, version)
    _entity_writer(schema)(body, entity(rng, schema))
    head = struct.pack(">hhih", key, version, rng.randrange(1, PROBE), 2) + b"me"
    return head + (b"\x00" if is_flexible(key, version) else b"") + b"".join(body)


def entity(rng: random.Random, schema: Any) -> dict[str, Any]:
    return {
        field.name: value(rng, field) for field in dataclasses.fields(schema) if "tag" not in field.metadata
    }


def value(rng: random.Random, field: dataclasses.Field[Any]) -> Any:
    inner, is_array, optional = field_shape(field.type)
    if optional and rng.random() < 0.2:
        return None
    if is_array:
        return [single(rng, inner, field) for _ in range(rng.choice((0, 1, 1, 1, 2, 5)))]
    return single(rng, inner, field)


def single(rng: random.Random, inner: Any, field: dataclasses.Field[Any]) -> Any:
    if dataclasses.is_dataclass(inner):
        return entity(rng, inner)
    kind = field.metadata["kafka_type"]
    if kind == "records":
        return bytes(make_batch([(b"k", b"v")], codec=rng.randrange(5), producer_id=rng.choice((-1, 1))))
    if kind == "bytes":
        return rng.randbytes(rng.randrange(40))
    if kind == "string":
        return rng.choice(NAMES)
    if kind == "bool":
        return rng.random() < 0.5
    if kind == "uuid":
        return rng.randbytes(16)
    if kind == "uint16":
        return rng.randrange(1 << 16)
    limit = 1 << ({"int8": 8, "int16": 16, "error_code": 16}.get(kind, 32) - 1)
    return max(-limit, min(rng.choice(NUMBERS), limit - 1))


def mutated(rng: random.Random, body: bytes) -> bytes:
    """Altered behind the key of its API, mostly."""
    data = bytearray(body)
    for _ in range(rng.choice((0, 1, 1, 2, 4, 8))):
        if len(data) <= 4:
            break
        place = rng.randrange(4 if rng.random() < 0.95 else 0, len(data))
        match rng.randrange(6):
            case 0:
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del data[place : place + rng.randrange(1, 9)]
            case 3:
                data[place:place] = rng.randbytes(rng.randrange(1, 9))
            case 4:
                data[place : place + 4] = struct.pack(">i", rng.choice((*NUMBERS, 2**30, 2**24)))
            case 5:
                del data[max(place, 4) :]
    return bytes(data)


class Attacker:
    """Sends altered requests, one connection after another when the log closes them."""

    def __init__(self, log: EmbeddedLog, seed: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._log = log
        self._seed = seed
        self._rng = random.Random(seed)
        self._wire: Wire | None = None

    async def send(self, count: int) -> None:
        for number in range(count):
            await self._send_one(f"seed {self._seed}, request {number}")
        if self._wire is not None:
            self._wire.close()

    async def _send_one(self, name: str) -> None:
        body = mutated(self._rng, sound(self._rng))
        key = int.from_bytes(body[:2], "big", signed=True) if len(body) > 1 else -1
        if self._wire is None:
            self._wire = await Wire.open(self._log)
        length = self._rng.choice((0, 0, 0, 0, 0, 0, 0, 0, 0, -3, 5))
        self._wire.send(struct.pack(">i", len(body) + length) + body if length else framed(body))
        self._wire.send(api_versions(PROBE) * 2)
        outcome = await self._outcome(WAITS_S if key in MAY_WAIT or length else PATIENCE_S)
        if outcome == "silent" and key not in MAY_WAIT and not length:
            pytest.fail(f"{name}: no answer within {PATIENCE_S:g} s to {body.hex()}")
        self.outcomes[outcome] += 1
        if outcome != "answered":
            self._wire.close()
            self._wire = None

    async def _outcome(self, patience_s: float) -> str:
        assert self._wire is not None
        try:
            async with asyncio.timeout(patience_s):
                seen = 0
                while seen < 2:
                    correlation_id, _ = await self._wire.answer()
                    seen += correlation_id == PROBE
        except TimeoutError:
            return "silent"
        except (asyncio.IncompleteReadError, ConnectionError):
            return "closed"
        return "answered"


async def prepare(log: EmbeddedLog) -> None:
    """Topics `t` and `c` (compacted), a group."""
    wire = await Wire.open(log)
    topics = [("t", ""), ("c", "compact")]
    for name, policy in topics:
        configs = struct.pack(">i", 1) + string("cleanup.policy") + string(policy) if policy else bytes(4)
        topic = string(name) + struct.pack(">ihi", 2, 1, 0) + configs
        wire.send(request(19, 2, 1, struct.pack(">i", 1) + topic + struct.pack(">i?", 10_000, False)))
        await wire.answer()
    wire.close()


async def attack(folder: Path, seed: int, count: int, peers: int) -> Counter[str]:
    log = EmbeddedLog(folder / "log", settings=SETTINGS)
    await log.start()
    process = psutil.Process()
    try:
        await prepare(log)
        outcomes: Counter[str] = Counter()
        tasks_before = len(asyncio.all_tasks())
        memory = 0
        for part in range(2):
            attackers = [Attacker(log, 1_000 * seed + 10 * part + peer) for peer in range(peers)]
            await asyncio.gather(*(attacker.send(count // 2 // peers) for attacker in attackers))
            outcomes += sum((attacker.outcomes for attacker in attackers), Counter())
            gc.collect()
            memory, before = process.memory_info().rss, memory
        # The first half has met every codec; the second one must not cost more memory.
        assert memory - before < MEMORY_BYTES_MAX
        await settled(log, tasks_before)
        assert await (await Wire.open(log)).is_alive()
        return outcomes
    finally:
        await log.stop()


async def settled(log: EmbeddedLog, tasks_before: int) -> None:
    """Nothing of all that is left: no connection, no byte, no waiting task."""
    broker, server = log._broker, log._server
    assert broker is not None
    assert server is not None
    async with asyncio.timeout(PATIENCE_S):
        while server.connections or len(asyncio.all_tasks()) > tasks_before:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (broker.received.used, broker.unsent.used, broker.commit.unsynced_bytes) == (0, 0, 0)
    assert broker.topics.count() <= SETTINGS.partitions_max
    assert len(broker.groups.machine.groups) <= SETTINGS.groups_max
    assert broker.measures.closed["failed"] == 0


def check(outcomes: Counter[str]) -> None:
    """Both kinds of end occur, so that the test is about something."""
    assert outcomes["answered"] > outcomes.total() / 10
    assert outcomes["closed"] > outcomes.total() / 10


async def test_altered_requests_end_in_an_answer_or_a_closed_connection(tmp_path: Path) -> None:
    check(await attack(tmp_path, seed=1, count=500, peers=4))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [2, 3])
async def test_ten_thousand_altered_requests(tmp_path: Path, seed: int) -> None:
    check(await attack(tmp_path, seed, count=5_000, peers=8))
