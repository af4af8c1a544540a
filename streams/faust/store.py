"""Faust's store hook: its rebalance and recovery calls, passed on to the owner of the partitions' state.

State is not kept here. The table layer writes its own database in batches and restores its own changelogs;
Faust is left with the membership of the group and the assignment of co-partitioned topics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from faust.stores import STORES, base
from faust.types import TP
from mode import get_logger

from streams.faust.owner import PartitionOwner

SCHEME = "tidal"

logger = get_logger(__name__)


class ShardStore(base.Store[bytes, bytes]):
    """The store of one shard's table. One of an application's stores leads: only it speaks to the owner."""

    def __post_init__(self) -> None:
        self.data: dict[bytes, bytes] = {}

    @property
    def _owner(self) -> PartitionOwner:
        owner: PartitionOwner = cast(Any, self.app).partition_owner
        return owner

    @property
    def _leads(self) -> bool:
        return bool((self.options or {}).get("leads"))

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        if self._leads:
            changelog = self.table.changelog_topic.get_topic_name()
            actives = self.app.assignor.assigned_actives()
            partitions = frozenset(tp.partition for tp in actives if tp.topic == changelog)
            await self._owner.on_assigned(partitions, generation_id)

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        if not self._leads:
            return
        try:
            await self._owner.on_recovered()
        except Exception as error:  # Faust awaits this call without looking at its result
            logger.exception("acquiring partitions failed")
            self._owner.fail(error)

    def persisted_offset(self, tp: TP) -> int | None:
        """Nothing to recover by Faust."""
        return None

    async def need_active_standby_for(self, tp: TP) -> bool:
        return False

    def apply_changelog_batch(
        self, batch: Iterable[Any], to_key: Callable[[Any], Any], to_value: Callable[[Any], Any]
    ) -> None:
        """Faust delivers no changelog record: it is told that there are none."""
        for event in batch:
            raise AssertionError(f"unexpected changelog record at offset {event.message.offset}")

    def reset_state(self) -> None:
        """The database belongs to the table layer."""

    async def backup_partition(
        self, tp: TP | int, flush: bool = True, purge: bool = False, keep: int = 1
    ) -> None:
        """Backups are the changelog's work."""

    def restore_backup(self, tp: TP | int, latest: bool = True, backup_id: int = 0) -> None:
        """Backups are the changelog's work."""


def register() -> None:
    """Make the scheme known to Faust; calling it again changes nothing."""
    STORES.aliases[SCHEME] = f"{__name__}:ShardStore"
