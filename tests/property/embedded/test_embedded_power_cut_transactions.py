"""The power goes at every change of a run of transactions with group offsets: each is whole or has not been.

TIDAL_SEED repeats a failure; TIDAL_LOG_FULL=1 (`make log-proofs`) cuts in every way at every change, and at
random changes of the start after a cut as well.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Coroutine
from pathlib import Path

import pytest

from streams.embedded import batch
from streams.embedded.inspection import verify_log
from streams.embedded.transaction_service import TransactionService
from streams.embedded.transactions import PendingOffset, TransactionState
from tests.property.embedded.test_embedded_power_cut import SETTINGS, Node
from tests.unit.embedded.power_cut import DROP, KEEP, TEAR, Disk
from tests.unit.embedded.support import last_header, make_batch, visible

TOPIC, PARTITIONS, GROUP = "ledger", 2, "positions"
PRODUCER_ID, TIMEOUT_MS = 700, 60_000
IDS = ("a", "b")
FULL = bool(os.environ.get("TIDAL_LOG_FULL"))


class Promise:
    """What the clients know of transactions, by number; `open` ones were begun and not decided."""

    def __init__(self) -> None:
        self.is_created = False
        self.begun: list[int] = []
        self.decided: dict[int, bool] = {}
        self.acknowledged: dict[int, bool] = {}
        # (transactional id, partitions, groups) of the open transaction, as far as that was answered.
        self.joined: tuple[str, set[tuple[str, int]], set[str]] | None = None


class Ledger(Node):
    """The storage of a log with its transactions."""

    def __init__(self, folder: Path, order: random.Random | None = None) -> None:
        super().__init__(folder, order)
        ids = iter(range(PRODUCER_ID, PRODUCER_ID + 100))
        taken = max((t.producer_id for t in self.store.state.transactions.values()), default=PRODUCER_ID - 1)
        self.transactions = TransactionService(
            SETTINGS, self.commit, self.store, self.topics,  # type: ignore[arg-type]
            lambda: next(producer_id for producer_id in ids if producer_id > taken),
        )  # fmt: skip

    async def start(self) -> None:
        await self.transactions.recover()
        self.commit.cycle()

    async def transact(
        self, transactional_id: str, owner: tuple[int, int], sequence: int, number: int, world: Promise
    ) -> bool:
        """One transaction of one batch in each partition; returns what was decided."""
        producer_id, epoch = owner
        world.begun.append(number)
        places = [(TOPIC, index) for index in range(PARTITIONS)]
        await self.transactions.add_partitions(transactional_id, producer_id, epoch, places)
        world.joined = (transactional_id, set(places), set())
        for place in places:
            raw = make_batch(
                [(None, b"%d" % number)], producer_id=producer_id, epoch=epoch, sequence=sequence,
                transactional=True,
            )  # fmt: skip
            log = self.log(place)
            log.append(raw, batch.validate_produced(raw, SETTINGS.batch_bytes_max), now_ms=1_000)
            if number % 3 == 0:
                self.commit.cycle()
        await self.transactions.add_group(transactional_id, producer_id, epoch, GROUP)
        world.joined = (transactional_id, set(places), {GROUP})
        offset = PendingOffset(GROUP, TOPIC, 0, number, -1, "")
        await self.transactions.add_offsets(transactional_id, producer_id, epoch, [offset])
        commit = number % 4 != 1
        world.decided[number], world.joined = commit, None
        await self.transactions.end(transactional_id, producer_id, epoch, commit=commit)
        world.acknowledged[number] = commit
        return commit

    def committed(self, index: int) -> list[int]:
        """The numbers that a reader of committed records sees in one partition."""
        log = self.log((TOPIC, index))
        found: list[int] = []
        offset = log.start_offset
        while data := log.read(offset, 1 << 20, committed=True):
            rows = visible(data, log.aborted_in(offset, log.end_offset))
            found += [int(row.value or b"") for row in rows if row.offset >= offset]
            offset = last_header(data).next_offset
        return found


async def run(folder: Path, world: Promise, rng: random.Random, count: int) -> None:
    """Two owners in turns; now and then an owner is replaced, in the middle of a transaction too."""
    node = Ledger(folder, rng)
    try:
        node.topics.create(TOPIC, PARTITIONS, {"segment.bytes": "1200"})
        node.topics.sync_folders()
        node.commit.cycle()
        world.is_created = True
        owners: dict[str, tuple[int, int]] = {}
        sequences = dict.fromkeys(IDS, 0)
        for number in range(1, count + 1):
            name = rng.choice(IDS)
            if name not in owners or rng.random() < 0.2:
                owner = await node.transactions.init_producer(name, TIMEOUT_MS, -1, -1)
                owners[name], sequences[name] = (owner.producer_id, owner.epoch), 0
            await node.transact(name, owners[name], sequences[name], number, world)
            sequences[name] += 1
    finally:
        node.close()


async def check(folder: Path, world: Promise) -> None:
    """Start on what the cut left; a new owner of each id settles what was open; then compare and go on."""
    damage = [f for f in verify_log(folder).findings if f.severity == "damage"] if world.is_created else []
    assert [f"{f.where}: {f.what}" for f in damage if "the partition is missing" not in f.what] == []
    node = Ledger(folder)
    try:
        await node.start()
        if node.topics.partitions(TOPIC) is None:
            assert not world.is_created, "the topic was acknowledged and is gone"
            return
        if world.joined is not None:
            name, places, groups = world.joined
            known = node.store.state.transactions[name]
            assert known.state is TransactionState.ONGOING, "its next request would be refused"
            assert set(known.partitions) >= places
            assert set(known.groups) >= groups
        owners = {}
        for name in IDS:
            owner = await node.transactions.init_producer(name, TIMEOUT_MS, -1, -1)
            owners[name] = (owner.producer_id, owner.epoch)
        compare(node, world)
        after = Promise()
        for number, name in enumerate(IDS, 10_000):
            decided = await node.transact(name, owners[name], 0, number * 4, after)
            assert decided
            assert all(node.committed(index)[-1] == number * 4 for index in range(PARTITIONS))
    finally:
        node.close()


def compare(node: Ledger, world: Promise) -> None:
    """Whole transactions only, all that were acknowledged, none that was aborted or is undecided."""
    seen = [node.committed(index) for index in range(PARTITIONS)]
    assert all(numbers == seen[0] for numbers in seen), f"a transaction is in one partition only: {seen}"
    numbers = seen[0]
    assert numbers == sorted(set(numbers)), f"twice or out of order: {numbers}"
    missing = [number for number, commit in world.acknowledged.items() if commit and number not in numbers]
    assert missing == [], f"committed, acknowledged and gone: {missing}"
    wrong = [number for number in numbers if not world.decided.get(number)]
    assert wrong == [], f"seen without a commit: {wrong}"
    committed = node.store.state.offsets.get(GROUP, {}).get((TOPIC, 0))
    assert (committed.offset if committed else None) == (numbers[-1] if numbers else None)


def finished(work: Coroutine[object, None, None]) -> None:
    """Runs what never waits, since the commit cycles at once: so a check fits into the middle of a run."""
    with pytest.raises(StopIteration):
        work.send(None)


def cut_everywhere(tmp_path: Path, rng: random.Random, count: int, ways: int, again: float) -> int:
    """Returns how often the power was cut. `ways`: at each change; `again`: how likely at the start too."""
    world = Promise()
    cuts = 0

    def cut(disk: Disk) -> None:
        nonlocal cuts
        for how in rng.sample([DROP, KEEP, TEAR, TEAR], ways):
            cuts += 1
            target = tmp_path / f"cut-{cuts}"
            disk.after_cut(target, how, rng)
            if rng.random() < again:
                cuts += cut_again(target)
            finished(check(target, world))
            shutil.rmtree(target)

    def cut_again(folder: Path) -> int:
        """The power goes again at random changes of the start."""
        images: list[Path] = []

        def boundary(disk: Disk) -> None:
            if rng.random() < 0.2:
                images.append(tmp_path / f"{folder.name}-{disk.changes}")
                disk.after_cut(images[-1], rng.choice([DROP, KEEP, TEAR]), rng)

        with Disk(folder, boundary).recording():
            Ledger(folder).close()
        for image in images:
            finished(check(image, world))
            shutil.rmtree(image)
        return len(images)

    live = tmp_path / "live"
    live.mkdir()
    with Disk(live, cut).recording() as disk:
        finished(run(live, world, rng, count))
    cut(disk)
    return cuts


def seeded() -> random.Random:
    seed = int(os.environ.get("TIDAL_SEED", random.randrange(1 << 32) if FULL else 23))
    print(f"TIDAL_SEED={seed}")
    return random.Random(seed)


def test_a_power_cut_at_every_change_of_transactions(tmp_path: Path) -> None:
    cuts = cut_everywhere(tmp_path, seeded(), count=8, ways=1, again=0.05)
    assert cuts > 50


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_power_cuts_in_every_way_at_every_change_of_transactions(tmp_path: Path) -> None:
    cuts = cut_everywhere(tmp_path, seeded(), count=60 if FULL else 15, ways=4, again=0.2)
    print(f"{cuts} power cuts")
    assert cuts > 100
