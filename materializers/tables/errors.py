"""What can go wrong with a partition's tables."""

from __future__ import annotations

from schemas.errors import TidalError


class PartitionLostError(TidalError):
    """Another worker owns the partition now: this one was fenced, or its producer is broken."""


class CheckpointAbortedError(TidalError):
    """The transaction was aborted and nothing of it is in the changelog; its rows go with the next one."""


class AcquisitionStoppedError(TidalError):
    """A newer rebalance or the worker's end overtook the acquisition of a partition."""


class TablesUnreadableError(TidalError):
    """A worker's tables cannot be read now: it has not created them yet, or they were just replaced."""


class FlushBrokenError(TidalError):
    """A flush broke off after it had taken rows out of memory: only a replay from the log has them again."""
