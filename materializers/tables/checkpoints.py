"""What the disk says of a checkpoint before it is sent and after it is committed; see ``changelog``."""

from __future__ import annotations

from typing import Any

from materializers.tables.changelog import Checkpoint
from materializers.tables.database import Database
from materializers.tables.meta import META_TABLE, OWNERSHIP_KEY, encode
from materializers.tables.partition import PartitionState
from materializers.tables.pending import clear_pending


def begin_checkpoint(
    database: Database, state: PartitionState, *, claim: bool = False
) -> tuple[Checkpoint, list[Any]]:
    """Take what is flushed out of ``state``; its id is on the disk before it may be sent.

    Returns:
        The checkpoint, and the batches that it acknowledges.
    """
    checkpoint, batches = state.begin_checkpoint(claim=claim)
    batch = database.batch()
    _put_ownership(database, batch, state)
    database.write(batch)
    return checkpoint, batches


def confirm_checkpoint(database: Database, state: PartitionState, checkpoint: Checkpoint) -> None:
    """The log has committed it: its rows are not pending any more."""
    through = state.ownership.attempt_flush
    state.checkpoint_committed(checkpoint)
    batch = database.batch()
    _put_ownership(database, batch, state)
    clear_pending(database, batch, state.partition, through)
    database.write(batch)


def _put_ownership(database: Database, batch: Any, state: PartitionState) -> None:
    database.put(batch, META_TABLE, state.partition, OWNERSHIP_KEY, encode(state.ownership))
