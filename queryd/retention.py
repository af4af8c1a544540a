"""Whether the log is about to delete records that no checkpoint holds yet.

An embedded log keeps such segments by itself. A cluster does not know our checkpoints: its retention takes
what is old, and a worker that was away for longer than that comes back to a hole. So this looks ahead: the
records between the committed offset (acknowledged only after a checkpoint) and the topic's retention.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import msgspec

from queryd.log_admin import LogAdmin, LogClient
from schemas.durations import format_duration
from streams.errors import BrokerUnavailableError
from streams.topics import BY_ITEM, SIGNALS

logger = logging.getLogger("queryd.retention")

LOOK_EVERY_S: Final = 30.0
TOPICS: Final = (SIGNALS, BY_ITEM)

WARN_AT: Final = 0.75
"""Share of the retention after which a record without a checkpoint is warned of."""
OLDEST_SHARE: Final = 0.1
"""Of what a topic bounded by size still holds: a checkpoint inside it is about to be overtaken."""


class PartitionFacts(NamedTuple):
    """Offsets of one partition. `old` is the first one younger than the share WARN_AT of the retention by
    time, None without such a retention; `committed` is None before the first checkpoint."""

    topic: str
    partition: int
    start: int
    end: int
    committed: int | None
    old: int | None


class RetentionWarning(msgspec.Struct, frozen=True):
    """One partition whose retention overtakes a checkpoint, or has done so (`lost`)."""

    topic: str
    partition: int
    lost: bool
    why: str


class RetentionWatch:
    """Looks at the topics' retention now and then; `warnings` is what it saw last."""

    def __init__(self, brokers: str, group: str) -> None:
        """`group` is the workers' consumer group."""
        self._brokers = brokers
        self._group = group
        self.warnings: list[RetentionWarning] = []

    async def run(self, clock_ms: Callable[[], int]) -> None:
        """Looks until cancelled. A log that does not answer leaves the last look as it is."""
        log = LogAdmin(self._brokers, self._group)
        while True:
            now = partial(look, now_ms=clock_ms())
            try:
                found = await asyncio.to_thread(log.ask, now)
            except BrokerUnavailableError as error:
                logger.debug("retention is not known now: %s", error)
            else:
                self._note(found)
            await asyncio.sleep(LOOK_EVERY_S)

    def _note(self, found: list[RetentionWarning]) -> None:
        before = {(each.topic, each.partition, each.lost) for each in self.warnings}
        for each in found:
            if (each.topic, each.partition, each.lost) not in before:
                logger.warning("%s partition %d: %s", each.topic, each.partition, each.why)
        self.warnings = found


def judge(facts: PartitionFacts, retention_ms: int, retention_bytes: int) -> RetentionWarning | None:
    """What to say of a partition; None when nothing is wrong. Retentions of -1 are without end."""
    if facts.committed is None or facts.committed >= facts.end:
        return None
    why, lost = "", facts.committed < facts.start
    if lost:
        why = (
            f"offsets {facts.committed} to {facts.start - 1} were deleted before a checkpoint held them; "
            "raise the topic's retention, and compare with `tidal verify`"
        )
    elif facts.old is not None and facts.committed < facts.old:
        why = (
            f"{facts.old - facts.committed:,} records without a checkpoint are older than {WARN_AT:.0%} of "
            f"the topic's retention of {format_duration(retention_ms)}; start its workers, or raise "
            "retention.ms"
        )
    elif (
        retention_bytes >= 0 < facts.start
        and facts.committed < facts.start + (facts.end - facts.start) * OLDEST_SHARE
    ):
        why = (
            f"the checkpoint is at offset {facts.committed}, and retention by size ({retention_bytes:,} "
            f"bytes) has come to {facts.start}; start its workers, or raise retention.bytes"
        )
    return RetentionWarning(facts.topic, facts.partition, lost, why) if why else None


def look(client: LogClient, now_ms: int) -> list[RetentionWarning]:
    """Everything that is wrong now. Raises KafkaException, TimeoutError."""
    committed = client.committed(client.partitions(TOPICS))
    found: list[RetentionWarning] = []
    for topic, config in client.settings(TOPICS).items():
        keys = [key for key, offset in committed.items() if key[0] == topic and offset is not None]
        retention_ms, retention_bytes = int(config["retention.ms"]), int(config["retention.bytes"])
        starts, ends = client.starts(keys), client.ends(keys)
        young_ms = now_ms - int(retention_ms * WARN_AT)
        old = client.first_since(keys, young_ms) if retention_ms >= 0 else {}
        for key in keys:
            # A log without a record that young answers -1: all that it holds is older.
            first_young = old.get(key)
            if first_young is not None and first_young < 0:
                first_young = ends[key]
            facts = PartitionFacts(*key, starts[key], ends[key], committed[key], first_young)
            warning = judge(facts, retention_ms, retention_bytes)
            if warning is not None:
                found.append(warning)
    return found
