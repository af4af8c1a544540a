"""The power goes at every change that a run makes to the disk: nothing acknowledged is missing, none twice.

TIDAL_SEED repeats a failure; the long form is marked slow, and `make log-proofs` has more rounds of it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.embedded import batch, cleaner
from streams.embedded.cleaner import Cleaner
from streams.embedded.compaction import Job, Outcome, compact
from streams.embedded.inspection import verify_log
from streams.embedded.metadata import CommittedOffset, MetadataStore, OffsetsCommitted
from streams.embedded.partition import PartitionLog
from streams.embedded.settings import LogSettings
from streams.embedded.topics import Topics
from tests.unit.embedded.power_cut import DROP, KEEP, TEAR, Disk
from tests.unit.embedded.support import ManualCommit, Row, last_header, make_batch, rows

SETTINGS = LogSettings(index_interval_bytes=200, checkpoint_bytes=900, journal_bytes=250)
TOPICS = {
    "events": (2, {"segment.bytes": "1500"}),
    "rows": (1, {"segment.bytes": "1024", "cleanup.policy": "compact", "delete.retention.ms": "0"}),
}
PRODUCERS = 3
Place = tuple[str, int]


class Sent:
    """A batch as its producer remembers it, until it is acknowledged."""

    def __init__(
        self, place: Place, producer: int, sequence: int, records: list[tuple[bytes, bytes]]
    ) -> None:
        self.place, self.producer, self.sequence, self.records = place, producer, sequence, records

    def raw(self) -> bytearray:
        return make_batch(self.records, producer_id=self.producer, epoch=0, sequence=self.sequence)


class World:
    """What the clients know: the batches that they sent, in order, and how many are acknowledged."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.acknowledged = 0
        self.offset_sent = self.offset_acknowledged = 0
        self.topics_acknowledged = False
        self.starts_moved: dict[Place, int] = {}

    def acknowledge(self) -> None:
        self.acknowledged = len(self.sent)
        self.offset_acknowledged = self.offset_sent
        self.topics_acknowledged = True

    def values(self, place: Place, upto: int | None = None) -> list[tuple[bytes, bytes]]:
        return [record for sent in self.sent[:upto] if sent.place == place for record in sent.records]


class Node:
    """Storage of one log without its server: topics, journal, a commit that cycles when told."""

    def __init__(self, folder: Path, order: random.Random | None = None) -> None:
        self.commit = ManualCommit(order)
        self.store = MetadataStore(folder / "metadata.journal", SETTINGS.journal_bytes, self.commit)  # type: ignore[arg-type]
        self.store.load()
        self.topics = Topics(folder, SETTINGS, self.commit, self.store)  # type: ignore[arg-type]
        self.topics.load()
        self.commit.cycle()

    def log(self, place: Place) -> PartitionLog:
        log = self.topics.partition(*place)
        assert log is not None, f"{place} is gone"
        return log

    def create(self) -> None:
        for name, (partitions, config) in TOPICS.items():
            if self.topics.partitions(name) is None:
                self.topics.create(name, partitions, config)
        self.topics.sync_folders()
        self.commit.cycle()

    def send(self, sent: Sent) -> None:
        raw = sent.raw()
        header = batch.validate_produced(raw, SETTINGS.batch_bytes_max)
        self.log(sent.place).append(raw, header, now_ms=1_000)

    def rows(self, place: Place) -> list[Row]:
        log = self.log(place)
        found: list[Row] = []
        offset = log.start_offset
        while data := log.read(offset, 1 << 20, committed=True):
            found += [row for row in rows(data) if row.offset >= offset]
            offset = last_header(data).next_offset
        return found

    def close(self) -> None:
        """As the end of a process: nothing is written any more."""
        for log in self.topics:
            for segment in log.segments:
                segment.close()
        self.store.close()


def run(folder: Path, world: World, rng: random.Random, cycles: int) -> None:
    """Producers, commits, a moved start, committed offsets and compactions; `world` is told in time."""
    node = Node(folder)
    try:
        node.create()
        world.acknowledge()
        sequences: dict[tuple[int, Place], int] = {}
        places = [(name, index) for name, (count, _) in TOPICS.items() for index in range(count)]
        for cycle in range(cycles):
            for _ in range(rng.randint(1, 4)):
                place, producer = rng.choice(places), rng.randrange(PRODUCERS)
                sequence = sequences.get((producer, place), 0)
                number = len(world.sent)
                records = [
                    (b"k%d" % rng.randrange(5), b"%d.%d." % (number, i) + bytes(rng.randrange(80)))
                    for i in range(rng.randint(1, 3))
                ]
                sequences[producer, place] = sequence + len(records)
                world.sent.append(Sent(place, producer, sequence, records))
                node.send(world.sent[-1])
            if cycle % 4 == 0:
                world.offset_sent = cycle
                offset = CommittedOffset("events", 0, cycle, -1, "", 1)
                node.store.append(OffsetsCommitted("g", [offset]))
            node.commit.cycle()
            world.acknowledge()
            if cycle % 10 == 7:
                start = node.log(("events", 0)).high_watermark.offset // 2
                world.starts_moved["events", 0] = start
                node.topics.move_start(node.log(("events", 0)), start)
            if cycle % 8 == 5:
                asyncio.run(Cleaner(SETTINGS, node.store, node.topics).run_round(10_000 + cycle))
    finally:
        node.close()


def check(folder: Path, world: World) -> None:
    """Start on what the power cut left; compare with what the clients know; let them go on."""
    assert damage(folder) == []
    node = Node(folder)
    try:
        if not world.topics_acknowledged:
            node.create()
        for name, (partitions, _) in TOPICS.items():
            for index in range(partitions):
                compare(node, world, (name, index), world.values((name, index), world.acknowledged))
        committed = node.store.state.offsets.get("g", {}).get(("events", 0))
        assert (committed.offset if committed else 0) in {world.offset_acknowledged, world.offset_sent}
        for sent in world.sent[world.acknowledged :]:
            node.send(sent)
        node.commit.cycle()
        for name, (partitions, _) in TOPICS.items():
            for index in range(partitions):
                place = (name, index)
                compare(node, world, place, world.values(place))
                assert node.log(place).end_offset == len(world.values(place)), f"{place}: one is there twice"
    finally:
        node.close()


def damage(folder: Path) -> list[str]:
    """What `verify` calls damage; a topic that was never acknowledged may be half made."""
    if not (folder / "metadata.journal").exists():
        return []
    findings = [finding for finding in verify_log(folder).findings if finding.severity == "damage"]
    return [f"{f.where}: {f.what}" for f in findings if "the partition is missing" not in f.what]


def compare(node: Node, world: World, place: Place, promised: list[tuple[bytes, bytes]]) -> None:
    """Each row is what was sent with its offset; of what was promised, all that must be there is."""
    sent = world.values(place)
    found = node.rows(place)
    log = node.log(place)
    offsets = [row.offset for row in found]
    assert offsets == sorted(set(offsets)), f"{place}: twice or out of order"
    for row in found:
        assert (row.key, row.value) == sent[row.offset], f"{place}: offset {row.offset} is another record"
    assert log.end_offset >= len(promised), (
        f"{place}: ends at {log.end_offset}, {len(promised)} were promised"
    )
    if place[0] == "rows":
        newest = {row.key: row.offset for row in found}
        for offset, (key, _) in enumerate(promised):
            assert newest.get(key, -1) >= offset, f"{place}: the newest {key!r} is gone"
    else:
        assert log.start_offset <= world.starts_moved.get(place, 0), f"{place}: begins too late"
        assert offsets == list(range(log.start_offset, log.end_offset)), f"{place}: a hole"


async def _compact_here(jobs: list[Job]) -> list[Outcome]:
    return [compact(job) for job in jobs]


def cut_everywhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    seed: int,
    cycles: int,
    modes: Callable[[], list[str]],
    again: float,
) -> int:
    """Returns the number of power cuts. `again`: how likely the power goes once more while the log starts."""
    print(f"TIDAL_SEED={seed}")
    monkeypatch.setattr(cleaner, "_run_child", _compact_here)
    rng = random.Random(seed)
    world = World()
    cuts = 0

    def cut(disk: Disk) -> None:
        nonlocal cuts
        for how in modes():
            cuts += 1
            target = tmp_path / f"cut-{cuts}"
            disk.after_cut(target, how, rng)
            if rng.random() < again:
                start_and_cut(target)
            check(target, world)

    def start_and_cut(folder: Path) -> None:
        """Another cut at a random change of the start itself; the folder becomes what that leaves."""
        images: list[Path] = []

        def boundary(disk: Disk) -> None:
            if rng.random() < 0.2:
                images.append(tmp_path / f"{folder.name}-{disk.changes}")
                disk.after_cut(images[-1], rng.choice([DROP, KEEP, TEAR]), rng)

        with Disk(folder, boundary).recording():
            Node(folder).close()
        for image in images:
            check(image, world)

    live = tmp_path / "live"
    live.mkdir()
    with Disk(live, cut).recording() as disk:
        run(live, world, rng, cycles)
    cut(disk)
    return cuts


def test_a_power_cut_at_every_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = int(os.environ.get("TIDAL_SEED", 17))
    choice = random.Random(seed)
    cuts = cut_everywhere(
        tmp_path, monkeypatch, seed=seed, cycles=22, again=0.05,
        modes=lambda: [choice.choice([DROP, KEEP, TEAR])],
    )  # fmt: skip
    assert cuts > 100


@pytest.mark.slow
@pytest.mark.parametrize("round_number", range(6 if os.environ.get("TIDAL_LOG_FULL") else 2))
def test_power_cuts_in_every_way_at_every_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, round_number: int
) -> None:
    seed = int(os.environ.get("TIDAL_SEED", random.randrange(1 << 32))) + round_number
    cuts = cut_everywhere(
        tmp_path, monkeypatch, seed=seed, cycles=45, again=0.2, modes=lambda: [DROP, KEEP, TEAR, TEAR]
    )
    assert cuts > 1_000
