"""The read side of all workers of a machine: which of them owns a partition, its rows, and what changes.

Workers come, go and hand partitions over while a reader runs. A partition's rows are read where its
generation is
highest: each acquisition raises it, after the former owner was fenced. This module must stay free of agents:
the daemon imports it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from materializers.materializer import Scope
from materializers.tables.errors import TablesUnreadableError
from materializers.tables.feed import (
    OWNERSHIP_SECTION,
    REPLACED_SECTION,
    Change,
    OwnershipChange,
    Section,
    encode_ownership_change,
)
from materializers.tables.meta import ShardMeta
from materializers.tables.secondary import HeldPartition, WorkerTables

logger = logging.getLogger(__name__)

WORKERS_FOLDER: Final = "workers"
STATUS_FILE: Final = "status.json"
_DISCOVER_EVERY_S: Final = 0.5


class _Owner(msgspec.Struct, frozen=True):
    worker: str
    generation: int


class TableReader:
    """Rows of every partition, whichever worker has it, as of the last ``catch_up``. Not thread safe."""

    def __init__(self, data_dir: Path, reader_name: str) -> None:
        """``reader_name`` is unique among the readers of the machine: its folder holds their own files."""
        self._workers_folder = data_dir / WORKERS_FOLDER
        self._secondaries = data_dir / reader_name / "tables"
        self._workers: dict[str, WorkerTables] = {}
        self._seen: dict[str, int] = {}
        self._held: dict[str, dict[int, HeldPartition]] = {}
        self._owners: dict[int, _Owner] = {}
        self._announced: dict[int, _Owner] = {}
        self._lost_feed: set[str] = set()
        self._discovered_s = float("-inf")

    def catch_up(self) -> None:
        """See what the workers have written since, and which of them there are."""
        now_s = time.monotonic()
        if now_s - self._discovered_s >= _DISCOVER_EVERY_S:
            self._discovered_s = now_s
            self._discover()
        for name, worker in list(self._workers.items()):
            try:
                if name in self._held and not worker.has_news():
                    continue
                worker.catch_up()
                self._held[name] = worker.held()
            except TablesUnreadableError as error:
                logger.warning("%s", error)
                self._forget(name)
        self._choose_owners()

    def partitions(self, scope: Scope) -> Sequence[int]:
        """Partitions of a scope that any worker holds, ascending: all scopes have the same."""
        return sorted(self._owners)

    def owner(self, partition: int) -> str | None:
        """Name of the worker whose rows of the partition are read."""
        owner = self._owners.get(partition)
        return owner.worker if owner else None

    def get_many(self, table: str, keys: Sequence[tuple[int, bytes]]) -> list[bytes | None]:
        """Values of (partition, key) in order; None where there is no row."""
        found: list[bytes | None] = [None] * len(keys)
        by_worker: dict[str, list[int]] = {}
        for at, (partition, _) in enumerate(keys):
            owner = self._owners.get(partition)
            if owner is not None:
                by_worker.setdefault(owner.worker, []).append(at)
        for name, places in by_worker.items():
            values = self._workers[name].get_many(table, [keys[at] for at in places])
            for at, value in zip(places, values, strict=True):
                found[at] = value
        return found

    def scan(
        self, table: str, partition: int, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows of a partition with ``start <= key < end`` in key order."""
        owner = self._owners.get(partition)
        if owner is not None:
            yield from self._workers[owner.worker].scan(table, partition, start, end)

    def changes(self) -> list[Change]:
        """What changed since the last call, as of the last ``catch_up``, each worker's flushes in order.

        A partition with a new owner, whose owner's feed has a hole, or whose rows were replaced, has one
        section ``ownership`` and no other: its rows must be read anew, and they contain everything.
        """
        drained = {name: self._drain(name) for name in self._workers}
        replaced = {
            (name, partition) for name, flushes in drained.items() for partition in _replaced(flushes)
        }
        moved = {
            partition: owner
            for partition, owner in self._owners.items()
            if self._announced.get(partition) != owner
            or owner.worker in self._lost_feed
            or (owner.worker, partition) in replaced
        }
        self._lost_feed.clear()
        self._announced = dict(self._owners)
        changes = [_moves(moved)] if moved else []
        for name, flushes in drained.items():
            owned = {
                partition
                for partition, owner in self._owners.items()
                if owner.worker == name and partition not in moved
            }
            changes.extend(kept for flush in flushes if (kept := _only(flush, owned)).sections)
        return changes

    def applied(self, scope: Scope, partition: int) -> Mapping[str, int]:
        """Last offset applied of each source topic."""
        return self._meta(scope, partition).applied

    def forwarded(self, partition: int) -> Mapping[int, int]:
        """Item shard: last offset of the signals topic applied, by source partition."""
        return self._meta(Scope.ITEM, partition).hw

    def sent_away(self, partition: int) -> Mapping[int, int]:
        """User shard: last offset of a signal found there that belongs to another partition, by that one."""
        return self._meta(Scope.USER, partition).sent_away

    def rerouted(self, partition: int) -> Mapping[int, int]:
        """User shard: last offset applied of the signals that others found misplaced, by who found them."""
        return self._meta(Scope.USER, partition).rerouted_hw

    def generation(self, partition: int) -> int:
        """How often the partition was acquired; 0 if no worker holds it."""
        owner = self._owners.get(partition)
        return owner.generation if owner else 0

    def status(self) -> dict[str, Any]:
        """By worker's name what it last wrote of itself."""
        found = {}
        for name in sorted(self._workers):
            try:
                found[name] = msgspec.json.decode((self._workers_folder / name / STATUS_FILE).read_bytes())
            except (OSError, msgspec.DecodeError):  # not written yet
                found[name] = {"name": name}
        return found

    def close(self) -> None:
        for name in list(self._workers):
            self._forget(name)

    def _meta(self, scope: Scope, partition: int) -> ShardMeta:
        owner = self._owners.get(partition)
        if owner is None:
            return ShardMeta()
        return self._held[owner.worker][partition].shards[scope]

    def _discover(self) -> None:
        folders = {path.name: path for path in self._workers_folder.glob("*") if (path / "db").is_dir()}
        for name in self._workers.keys() - folders.keys():
            self._forget(name)
        for name, folder in folders.items():
            if name in self._workers:
                continue
            try:
                worker = WorkerTables(folder, self._secondaries / name)
            except TablesUnreadableError as error:
                logger.debug("%s", error)
                continue
            self._workers[name] = worker
            self._seen[name] = worker.flush_number

    def _forget(self, name: str) -> None:
        self._workers.pop(name).close()
        self._held.pop(name, None)
        self._seen.pop(name, None)
        self._owners = _without(self._owners, name)
        self._announced = _without(self._announced, name)  # was told of files that may be others by now

    def _choose_owners(self) -> None:
        """The highest generation; between equal ones the present owner stays, else the first name."""
        best: dict[int, _Owner] = {}
        for name in sorted(self._held):
            for partition, held in self._held[name].items():
                mine = _Owner(name, held.ownership.generation)
                present = best.get(partition)
                if (
                    present is None
                    or mine.generation > present.generation
                    or (mine.generation == present.generation and self._owners.get(partition) == mine)
                ):
                    best[partition] = mine
        self._owners = best

    def _drain(self, name: str) -> list[Change]:
        worker = self._workers[name]
        seen, visible = self._seen[name], worker.flush_number
        if visible == seen:
            return []
        self._seen[name] = visible
        found = [change for change in worker.changes(seen) if change.sequence <= visible]
        if len(found) != visible - seen:  # trimmed before we came: the rows have it
            self._lost_feed.add(name)
            return []
        return found


def _without(owners: Mapping[int, _Owner], worker: str) -> dict[int, _Owner]:
    return {partition: owner for partition, owner in owners.items() if owner.worker != worker}


def _replaced(flushes: Sequence[Change]) -> set[int]:
    """The partitions whose rows were replaced by others."""
    return {
        section.partition
        for flush in flushes
        for section in flush.sections
        if section.name == REPLACED_SECTION
    }


def _moves(moved: Mapping[int, _Owner]) -> Change:
    sections = [
        Section(
            OWNERSHIP_SECTION, partition, encode_ownership_change(OwnershipChange(True, owner.generation))
        )
        for partition, owner in sorted(moved.items())
    ]
    return Change(0, int(time.time() * 1000), sections)


def _only(change: Change, partitions: set[int]) -> Change:
    kept = [
        section
        for section in change.sections
        if section.partition in partitions and section.name not in (OWNERSHIP_SECTION, REPLACED_SECTION)
    ]
    return Change(change.sequence, change.written_ms, kept)
