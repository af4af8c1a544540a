"""Whether the rows on a disk may be kept: only if the changelog's last checkpoint is their ancestor.

"Newest offset wins" is not enough. A worker that was stopped past its session and continued (a zombie) has
rows of a future that another owner has replaced; offsets cannot tell, ids of checkpoints can.
"""

from __future__ import annotations

from enum import StrEnum

from materializers.tables.meta import Ownership


class Decision(StrEnum):
    """What to do with a disk's rows on acquire."""

    KEEP = "keep"
    """The last committed checkpoint is this disk's last confirmed one: all pending rows are still unsent."""
    KEEP_ATTEMPT = "keep_attempt"
    """It is the one that was being tried when this worker stopped: what it contained is sent."""
    RESTORE = "restore"
    """Somebody else wrote since, or the disk or the log is new: drop the rows and read the changelog."""


def decide(disk: Ownership, log: Ownership | None) -> Decision:
    """Compare the disk's record with the last one of the changelog (None: it holds no checkpoint).

    The former owner must be fenced before the changelog is read, or it may commit once more afterwards.
    """
    if log is None or not log.lineage:
        return Decision.RESTORE
    if log.lineage == disk.lineage:
        return Decision.KEEP
    if log.lineage == disk.attempt:
        return Decision.KEEP_ATTEMPT
    return Decision.RESTORE
