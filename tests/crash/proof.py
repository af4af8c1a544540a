"""The proof itself: a load, blows, quiet, then tables and changelog against a clean fold of the log."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from materializers.refold.verify import verify
from materializers.registry import default_registry
from materializers.worker import tables_of
from schemas.loading import load_schema
from schemas.model import Schema
from streams.positions import Position, Positions
from streams.topics import (
    BY_ITEM,
    CREATORS,
    DEAD_LETTER,
    ITEMS,
    RELATIONSHIPS,
    SHARDS,
    SIGNALS,
    USERS,
    changelog_topic,
)
from tests.brokers import Broker
from tests.crash.compare import differences
from tests.crash.load import Load
from tests.crash.log_reading import read_topics
from tests.crash.site import SCHEMA_FILE, Site
from tests.crash.standstill import Moment, standstills_ms
from tests.crash.tables import Rows, logical, rows_in_changelog, rows_on_disk
from tests.crash.traffic import Traffic
from tests.oracle import CleanFold, LogRecord, fold

SOURCES = [SIGNALS, ITEMS, USERS, CREATORS, RELATIONSHIPS]
QUIET_S = 90.0
PARTITIONS = 8

Blow = Callable[[Site], None]


@dataclass
class Proof:
    """One run. ``seed`` decides the load, the blows and the moments at which they fall."""

    broker: Broker
    folder: Path
    seed: int
    events: int
    events_per_s: float
    random: random.Random = field(init=False)
    site: Site = field(init=False)
    schema: Schema = field(init=False)
    _moments: list[Moment] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        print(f"seed {self.seed}, {self.events} events on the {self.broker.variant} log")
        self.random = random.Random(self.seed)
        self.site = Site(self.broker, self.folder, PARTITIONS)
        self.schema = load_schema(SCHEMA_FILE)

    def run(
        self,
        workers: list[str],
        blows: list[Blow],
        *,
        shuffle: bool = True,
        queryd: bool = False,
        after: Callable[[Proof, CleanFold], None] | None = None,
    ) -> None:
        """Strike ``blows`` at random moments of the load, then demand equality.

        Args:
            shuffle: also in random order.
            queryd: whether a query daemon runs beside the workers.
            after: called with the clean fold once everything is applied, while all is still up.
        """
        self.site.create_topics()
        load = Load(self.seed, anchor_ms=int(time.time() * 1000))
        traffic = Traffic(
            self.broker.bootstrap, chain(load.entities(), load.signals(self.events)), self.events_per_s
        )
        try:
            for name in workers:
                self.site.start_worker(name)
            if queryd:
                self.site.start_queryd()
            self.site.wait_until_owned(PARTITIONS)
            traffic.start()
            self._strike(self.random.sample(blows, len(blows)) if shuffle else blows)
            traffic.finish()
            self._wait_until_applied()
            if after is not None:
                after(
                    self,
                    fold(read_topics(self.broker.bootstrap, SOURCES), self.schema, partitions=PARTITIONS),
                )
            for name in self.site.running:
                self.site.stop(name)
            self.compare(traffic)
        except BaseException:
            traffic.abandon()
            for name in self.site.running:
                print(f"--- {name}\n{self.site.tail(name)}")
            raise
        finally:
            self.site.close()

    def compare(self, traffic: Traffic) -> None:
        """Tables, changelog and dead letters against the log, and the log against what it acknowledged."""
        log = read_topics(self.broker.bootstrap, [*SOURCES, DEAD_LETTER])
        stored = {(record.topic, record.partition, record.offset): record.value for record in log}
        missing = [
            place
            for place, value in traffic.acknowledged.items()
            if place[0] == SIGNALS and stored.get(place) != value
        ]
        assert not missing, f"{len(missing)} acknowledged records are not in the log: {missing[:5]}"
        changelogs = [changelog_topic("tidal", shard) for shard in SHARDS]
        disk, logged = rows_on_disk(self.site.data), rows_in_changelog(self.broker.bootstrap, changelogs)
        tables = logical(disk, self.schema)
        clean = fold(log, self.schema, partitions=PARTITIONS, card_positions=tables.card_positions)
        found = differences(tables, clean, self.schema)
        assert not found, f"seed {self.seed}: the tables differ from the log:\n" + "\n".join(found)
        self._compare_dead_letters(log, clean)
        self._compare_every_table(disk, logged)
        self._report_standstills()
        print(f"equal: {len(clean.events)} events, {clean.duplicates} repeated, {len(clean.rejects)} refused")

    def _compare_every_table(self, disk: dict[int, Rows], logged: dict[int, Rows]) -> None:
        """Also those that the plain fold knows nothing of: the tables against what the views make of the log
        in one process, and the changelog against the tables.
        """
        registry = default_registry()
        outcome = verify(self.site.data, self.broker.bootstrap, self.schema, registry, PARTITIONS)
        assert outcome.is_complete, [result.not_compared for result in outcome.views]
        unequal = [result.differences[:5] for result in outcome.views if result.differing]
        assert not unequal, f"seed {self.seed}: the tables differ from a refold:\n{unequal}"
        for table in [spec.name for specs in tables_of(registry).values() for spec in specs]:
            for partition, rows in disk.items():
                same = rows.get(table, {}) == logged[partition].get(table, {})
                assert same, f"seed {self.seed}: the changelog of {table}, partition {partition}, differs"
        print(f"equal: {sum(result.facts for result in outcome.views)} facts of {len(outcome.views)} views")

    def _compare_dead_letters(self, log: list[LogRecord], clean: CleanFold) -> None:
        letters = sorted(
            tuple(record.headers[f"tidal-{name}"] for name in ("topic", "partition", "offset", "code"))
            for record in log
            if record.topic == DEAD_LETTER
        )
        expected = sorted(
            (
                reject.topic.encode(),
                str(reject.partition).encode(),
                str(reject.offset).encode(),
                reject.code.encode(),
            )
            for reject in clean.rejects
        )
        assert letters == expected, f"{len(letters)} dead letters, {len(expected)} records refused"

    def _strike(self, blows: list[Blow]) -> None:
        """One blow in each of as many equal parts of the load, at a random moment of its part."""
        part_s = self.events / self.events_per_s / (len(blows) + 1)
        began_s = time.monotonic()
        for number, blow in enumerate(blows):
            moment_s = (number + self.random.uniform(0.4, 1.0)) * part_s
            time.sleep(max(0.0, began_s + moment_s - time.monotonic()))
            name = getattr(blow, "__name__", str(blow))
            print(f"{time.monotonic() - began_s:7.2f} s: {name}", flush=True)
            self._moments.append(Moment(name, int(time.time() * 1000), self.site.partitions_beside(name)))
            blow(self.site)
            self.site.revive()

    def _report_standstills(self) -> None:
        for name, pause_ms in standstills_ms(
            self.broker.bootstrap, [moment for moment in self._moments if moment.others]
        ).items():
            print(f"partitions of the others stood still for {pause_ms} ms: {name}")

    def _wait_until_applied(self) -> None:
        """Until every topic is applied to its end, by workers that say so twice in a row."""
        deadline_s = time.monotonic() + QUIET_S
        before: object = None
        while True:
            self.site.revive()
            behind = dict(self._behind())
            ends = self._ends
            if not behind and ends == before:
                return
            before = ends if not behind else None
            assert time.monotonic() < deadline_s, f"not applied after {QUIET_S} s: {behind}"
            time.sleep(1.5)

    def end(self) -> str:
        """The position token of the newest signal of each partition."""
        ends = [Position(*place, end - 1) for place, end in self._ends.items() if place[0] == SIGNALS and end]
        return Positions.of(ends).encode()

    def _behind(self) -> Iterator[tuple[tuple[str, int], tuple[int, int]]]:
        """(topic, partition) -> (applied, wanted) where they differ, from the workers' own status."""
        self._ends = _ends(self.broker.bootstrap, [*SOURCES, BY_ITEM])
        applied: dict[tuple[str, int], int] = {}
        for name in self.site.running:
            for partition, state in self.site.status(name).get("partitions", {}).items():
                if state["ready"] and not state["lost"]:
                    for topic, offset in state["applied"].items():
                        place = (topic, int(partition))
                        applied[place] = max(applied.get(place, -1), offset)
        for place, end in self._ends.items():
            if applied.get(place, -1) < end - 1:
                yield place, (applied.get(place, -1), end - 1)


def _ends(bootstrap: str, topics: list[str]) -> dict[tuple[str, int], int]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "proof-ends", "log_level": 2})
    try:
        return {
            (topic, number): consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=15)[1]
            for topic in topics
            for number in range(PARTITIONS)
        }
    finally:
        consumer.close()
