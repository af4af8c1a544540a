"""Decides what is to be compacted, has it done by a child process and puts the results in place."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from streams.embedded.compaction import Job, Outcome, Replacement, Source
from streams.embedded.compaction_files import discard, install
from streams.embedded.metadata import Compacted, MetadataStore
from streams.embedded.partition import PartitionLog
from streams.embedded.segment import Segment, read_snapshot
from streams.embedded.settings import LogSettings
from streams.embedded.topics import Topics

logger = logging.getLogger(__name__)

# History of compactions that is kept for each partition; thinned out, it still spans any delay.
_MARKS_MAX = 32

Mark = tuple[int, int]


class Task(NamedTuple):
    """One partition's job, with the segments that it reads."""

    log: PartitionLog
    job: Job
    segments: list[Segment]


class Cleaner:
    """Compacts the compacted topics of a log, one child process at a time."""

    def __init__(self, settings: LogSettings, store: MetadataStore, topics: Topics) -> None:
        self._settings = settings
        self._store = store
        self._topics = topics

    async def run_round(self, now_ms: int) -> int:
        """Compact what is dirty enough; returns the number of partitions that were."""
        tasks = [
            task
            for log in self._topics
            if log.config.is_compacted and (task := self._plan(log, now_ms)) is not None
        ]
        if not tasks:
            return 0
        outcomes = await _run_child([task.job for task in tasks])
        for task, outcome in zip(tasks, outcomes, strict=True):
            self._apply(task, outcome, now_ms)
        return len(tasks)

    def _plan(self, log: PartitionLog, now_ms: int) -> Task | None:
        segments = cleanable(log, now_ms)
        marks = self._marks(log)
        dirty_from = marks[-1][0] if marks else 0
        total = sum(segment.size for segment in segments)
        dirty = sum(segment.size for segment in segments if segment.next_offset > dirty_from)
        pays = dirty > 0 and dirty >= total * log.config.dirty_ratio_min
        if not pays and not _is_due(log, segments, marks, now_ms):
            return None
        job = Job(
            directory=str(log.directory),
            sources=[
                Source(segment.base_offset, following.base_offset, segment.size)
                for segment, following in zip(segments, log.segments[1:], strict=False)
            ],
            dirty_from=dirty_from,
            deletes_before=deletes_before(marks, now_ms - log.config.delete_retention_ms),
            aborted=[(entry.producer_id, entry.first_offset, entry.last_offset) for entry in log.aborted],
            segment_bytes=log.config.segment_bytes,
            index_interval_bytes=self._settings.index_interval_bytes,
            keys_max=self._settings.compaction_keys_max,
        )
        return Task(log, job, segments)

    def _marks(self, log: PartitionLog) -> list[Mark]:
        known = self._store.state.compactions.get((log.topic, log.index))
        return list(known.marks) if known is not None else []

    def _apply(self, task: Task, outcome: Outcome, now_ms: int) -> None:
        log = task.log
        if outcome.error:
            logger.error("%s-%d was not compacted: %s", log.topic, log.index, outcome.error)
        untouched = log.segments[: len(task.segments)] == task.segments
        if outcome.error or log.retired or not untouched:
            discard(log.directory)
            return
        for replacement in outcome.replacements:
            self._replace(log, replacement)
        log.forget_aborted(outcome.cleaned_end)
        marks = thinned(
            [*self._marks(log), (outcome.cleaned_end, now_ms)], now_ms - log.config.delete_retention_ms
        )
        self._store.append(Compacted(log.topic, log.index, marks))
        logger.info(
            "%s-%d compacted up to offset %d: %d records kept, %d dropped",
            log.topic, log.index, outcome.cleaned_end, outcome.records_kept, outcome.records_dropped,
        )  # fmt: skip

    def _replace(self, log: PartitionLog, replacement: Replacement) -> None:
        base, end = replacement.base_offset, replacement.end_offset
        old = [segment for segment in log.segments[:-1] if base <= segment.base_offset < end]
        for segment in old:
            self._topics.open_files.forget(segment)
        path = install(log.directory, base, end)
        fresh = Segment(log.directory, base, self._settings.index_interval_bytes)
        snapshot = read_snapshot(path)
        if snapshot is None:
            raise OSError(f"{path}: the snapshot of a compacted segment cannot be read back")
        fresh.adopt(snapshot)
        fresh.close()
        log.replace(old, fresh)


def cleanable(log: PartitionLog, now_ms: int) -> list[Segment]:
    """Closed segments, from the first on, in which every transaction has ended and nothing is too young.

    The last batch of a log stays: a client that reads to the end waits for an offset just below it.
    """
    limit = log.last_stable_offset
    segments = []
    for segment in log.segments[: -1 if log.active.size else -2]:
        too_young = (
            log.config.compaction_lag_ms > 0 and segment.max_timestamp > now_ms - log.config.compaction_lag_ms
        )
        if segment.next_offset > limit or too_young or segment.pending or segment.syncing:
            break
        segments.append(segment)
    return segments


def _is_due(log: PartitionLog, segments: list[Segment], marks: list[Mark], now_ms: int) -> bool:
    """Whether a topic that bounds the time asks for it: something replaced is old, or deletes have matured
    that the last compaction had to keep.
    """
    lag_ms, kept_ms = log.config.compaction_lag_ms_max, log.config.delete_retention_ms
    if lag_ms is None or not segments:
        return False
    dirty_from = marks[-1][0] if marks else 0
    oldest_ms = now_ms - lag_ms // 2
    if any(each.next_offset > dirty_from and each.max_timestamp <= oldest_ms for each in segments):
        return True
    if not marks:
        return False
    gone = deletes_before(marks[:-1], marks[-1][1] - kept_ms)
    return deletes_before(marks, now_ms - kept_ms) > gone


def deletes_before(marks: list[Mark], until_ms: int) -> int:
    """Deletes below this offset were seen by a compaction at or before `until_ms`."""
    return max((end for end, at_ms in marks if at_ms <= until_ms), default=0)


def thinned(marks: list[Mark], until_ms: int) -> list[Mark]:
    """Drop marks that say no more; a missing mark only makes deletes stay longer."""
    matured = [mark for mark in marks if mark[1] <= until_ms]
    young = [mark for mark in marks if mark[1] > until_ms]
    if len(young) > _MARKS_MAX:
        young = [*young[:-1:2], young[-1]]
    return [*matured[-1:], *young]


async def _run_child(jobs: list[Job]) -> list[Outcome]:
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streams.embedded.compaction",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    try:
        answer, _ = await child.communicate(msgspec.msgpack.encode(jobs))
    except asyncio.CancelledError:
        child.kill()
        await child.wait()
        raise
    if child.returncode != 0:
        raise OSError(f"the compaction process ended with status {child.returncode}")
    return msgspec.msgpack.decode(answer, type=list[Outcome])
