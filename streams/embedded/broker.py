"""The parts of a running log that request handlers share."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from streams.embedded.budget import Budget
from streams.embedded.commit import GroupCommit
from streams.embedded.disk_space import DiskSpace
from streams.embedded.group_service import GroupService
from streams.embedded.guards import Guards
from streams.embedded.measures import Measures
from streams.embedded.metadata import ClusterNamed, Guard, GuardsSet, MetadataStore, ProducerIdsReserved
from streams.embedded.settings import LogSettings
from streams.embedded.topics import Topics
from streams.embedded.transaction_service import TransactionService

NODE_ID = 1


class Caller(NamedTuple):
    """Who sent a request, and in which version."""

    version: int
    client_id: str
    host: str


class ProducerIds:
    """Hands out producer ids from blocks reserved in the journal."""

    def __init__(self, store: MetadataStore, block: int) -> None:
        self._store = store
        self._block = block
        self._next = self._end = store.state.next_producer_id

    def take(self) -> int:
        """A new id; durable after the next commit cycle."""
        if self._next >= self._end:
            self._next = self._store.state.next_producer_id
            self._end = self._next + self._block
            self._store.append(ProducerIdsReserved(self._end))
        self._next += 1
        return self._next - 1


class Broker:
    """Storage and coordinators of one data folder. Made on the event loop, loaded before anyone connects."""

    def __init__(
        self, data_dir: Path, settings: LogSettings, commit: GroupCommit, guards: Sequence[Guard] = ()
    ) -> None:
        self.settings = settings
        self.commit = commit
        # Where clients are told to connect.
        self.host = ""
        self.port = 0
        self.measures = Measures()
        self.received = Budget(settings.received_bytes_max)
        self.unsent = Budget(settings.unsent_bytes_max)
        self.store = MetadataStore(data_dir / "metadata.journal", settings.journal_bytes, commit)
        self.store.load()
        if not self.store.state.cluster_id:
            self.store.append(ClusterNamed(uuid.uuid4().hex[:22]))
        self.cluster_id = self.store.state.cluster_id
        self.disk = DiskSpace(data_dir, settings.disk_reserve_bytes)
        self.topics = Topics(data_dir, settings, commit, self.store)
        self.topics.load()
        self.producer_ids = ProducerIds(self.store, settings.producer_id_block)
        self.groups = GroupService(settings, self.store)
        self.guards = Guards(
            guards, settings.guard_dead_after_ms, self.groups.offsets, self.groups.has_members, now_ms()
        )
        if self.store.state.guards != self.guards.guards:
            self.store.append(GuardsSet(self.guards.guards))
        self.transactions = TransactionService(
            settings, commit, self.store, self.topics, self.producer_ids.take
        )

    def close(self) -> None:
        self.groups.close()
        self.topics.close()
        self.store.close()


def now_ms() -> int:
    """Wall clock in ms, as record timestamps have it."""
    return int(time.time() * 1000)
