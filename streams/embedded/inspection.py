"""What lies in a log's folder (`inspect`), and whether all of it is sound (`verify`).

*Damage* is what a reader would be refused or the next start would lose. A *note* is what a start repairs
without a loss of anything that was acknowledged: a torn tail, a snapshot that was not written completely.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from streams.embedded.errors import LogFolderError
from streams.embedded.guards import needed_from
from streams.embedded.metadata import MetadataState
from streams.embedded.segment import LOG_SUFFIX, Snapshot
from streams.embedded.stored_log import (
    StoredBatch,
    StoredLog,
    StoredPartition,
    StoredSegment,
    batches_in,
    open_segment,
    segments_of,
)

DAMAGE = "damage"
NOTE = "note"
# A running log moves files; what is really wrong is still wrong at the third look.
_LOOKS = 3


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be; severity is "damage" or "note"."""

    severity: str
    where: str
    what: str


class SegmentFacts(msgspec.Struct, frozen=True):
    """One file. Times are record timestamps in ms, None without records."""

    file: str
    base_offset: int
    next_offset: int
    bytes: int
    first_time_ms: int | None
    last_time_ms: int | None
    torn_bytes: int


class PartitionFacts(msgspec.Struct, frozen=True):
    """One partition; records in [start_offset, end_offset) may be read."""

    topic: str
    partition: int
    start_offset: int
    end_offset: int
    bytes: int
    first_time_ms: int | None
    last_time_ms: int | None
    torn_bytes: int
    segments: list[SegmentFacts]


class GuardFacts(msgspec.Struct, frozen=True):
    """A group that retention waits for. It needs a partition from `offset` on; no time without a commit."""

    topic: str
    partition: int
    group: str
    offset: int
    committed_ms: int | None


class LogFacts(msgspec.Struct, frozen=True):
    """What `inspect` tells. `process` has the log open, None when it is stopped."""

    folder: str
    cluster_id: str
    process: int | None
    bytes: int
    partitions: list[PartitionFacts]
    guards: list[GuardFacts]
    findings: list[Finding]


class Verification(msgspec.Struct, frozen=True):
    """What `verify` tells; the log is sound when no finding is damage."""

    folder: str
    process: int | None
    partitions: int
    segments: int
    batches: int
    records: int
    bytes: int
    findings: list[Finding]

    @property
    def is_sound(self) -> bool:
        return all(finding.severity != DAMAGE for finding in self.findings)


def inspect_log(folder: Path) -> LogFacts:
    """Sizes, offsets and times from snapshots and tails; does not read everything.

    Raises LogFolderError.
    """
    log = StoredLog(folder)
    partitions = [
        _partition_facts(partition)
        for topic in log.state.topics.values()
        for partition in log.partitions(topic)
    ]
    return LogFacts(
        str(log.folder), log.state.cluster_id, log.running_process(),
        sum(facts.bytes for facts in partitions), partitions, _guard_facts(log.state), _folder_findings(log),
    )  # fmt: skip


def verify_log(folder: Path) -> Verification:
    """Read every batch of a log; raises LogFolderError when there is none."""
    log = StoredLog(folder)
    process = log.running_process()
    counts = _Counts()
    findings = _folder_findings(log)
    for topic in log.state.topics.values():
        for partition in log.partitions(topic):
            findings += _verify_partition(partition, counts, looks=_LOOKS if process is not None else 1)
    return Verification(
        str(log.folder), process, counts.partitions, counts.segments, counts.batches, counts.records,
        counts.bytes, findings,
    )  # fmt: skip


def _folder_findings(log: StoredLog) -> list[Finding]:
    where = str(log.folder / "metadata.journal")
    findings = []
    if log.journal_skipped_bytes:
        lost = f"{log.journal_skipped_bytes} damaged bytes, the entries in them are lost"
        findings.append(Finding(DAMAGE, where, lost))
    if log.journal_torn_bytes:
        torn = f"a torn tail of {log.journal_torn_bytes} bytes, the next start cuts it off"
        findings.append(Finding(NOTE, where, torn))
    findings += [_stranger(path) for path in log.strangers()]
    return findings


def _stranger(folder: Path) -> Finding:
    """A topic is in the journal before anybody may write to it: records without one have lost it."""
    held = sum(path.stat().st_size for path in folder.rglob("*" + LOG_SUFFIX))
    if not held:
        return Finding(NOTE, str(folder), "belongs to no known topic")
    lost = f"belongs to no known topic and has {held:,} bytes of records: the journal has lost the topic"
    return Finding(DAMAGE, str(folder), lost)


def _guard_facts(state: MetadataState) -> list[GuardFacts]:
    facts = []
    for guard in state.guards:
        offsets = state.offsets.get(guard.group, {})
        for topic in state.topics.values():
            for index in range(topic.partitions):
                offset = needed_from(guard, offsets, topic.name, index)
                if offset is not None:
                    at = offsets.get((topic.name, index))
                    facts.append(GuardFacts(topic.name, index, guard.group, offset, at.at_ms if at else None))
    return facts


# -- inspect -------------------------------------------------------------------------------------


def _partition_facts(partition: StoredPartition) -> PartitionFacts:
    segments = []
    for stored in segments_of(partition.directory):
        try:
            segments.append(_segment_facts(stored))
        except FileNotFoundError:
            # Retention or a compaction of the running log was faster.
            continue
    base = segments[0].base_offset if segments else partition.start_offset
    firsts = [facts.first_time_ms for facts in segments if facts.first_time_ms is not None]
    lasts = [facts.last_time_ms for facts in segments if facts.last_time_ms is not None]
    return PartitionFacts(
        partition.topic,
        partition.partition,
        max(base, partition.start_offset),
        segments[-1].next_offset if segments else partition.start_offset,
        sum(facts.bytes for facts in segments),
        firsts[0] if firsts else None,
        max(lasts, default=None),
        sum(facts.torn_bytes for facts in segments),
        segments,
    )


def _segment_facts(segment: StoredSegment) -> SegmentFacts:
    snapshot = segment.snapshot()
    with open_segment(segment) as file:
        size = os.fstat(file.fileno()).st_size
        first = next(batches_in(file, 0, size), None)
        if snapshot is None or snapshot.size > size:
            known, next_offset, newest = 0, segment.base_offset, -1
        else:
            known, next_offset, newest = snapshot.size, snapshot.next_offset, snapshot.max_timestamp
        for found in batches_in(file, known, size):
            known = found.position + found.header.size
            next_offset = found.header.next_offset
            newest = max(newest, found.header.max_timestamp)
    return SegmentFacts(
        segment.path.name,
        segment.base_offset,
        next_offset,
        size,
        first.header.base_timestamp if first is not None else None,
        newest if newest >= 0 else None,
        size - known,
    )


# -- verify --------------------------------------------------------------------------------------


class _Counts:
    """What was read."""

    def __init__(self) -> None:
        self.partitions = self.segments = self.batches = self.records = self.bytes = 0

    def add(self, other: _Counts) -> None:
        self.partitions += 1
        self.segments += other.segments
        self.batches += other.batches
        self.records += other.records
        self.bytes += other.bytes


def _verify_partition(partition: StoredPartition, counts: _Counts, looks: int) -> list[Finding]:
    for look in range(looks):
        checker = _PartitionChecker(partition)
        try:
            checker.run()
        except FileNotFoundError as error:
            if look == looks - 1:
                raise LogFolderError(f"{error.filename} vanished while it was read; try again") from error
            continue
        if all(finding.severity == NOTE for finding in checker.findings):
            break
    counts.add(checker.counts)
    return checker.findings


class _PartitionChecker:
    """Reads one partition from its first file to its last."""

    def __init__(self, partition: StoredPartition) -> None:
        self.findings: list[Finding] = []
        self.counts = _Counts()
        self._partition = partition
        self._due: int | None = None
        # False while only a lower bound of the next segment's first offset is known.
        self._is_exact = True
        self._may_have_holes = False

    def run(self) -> None:
        partition = self._partition
        if not partition.directory.is_dir():
            self._add(DAMAGE, partition.directory, "the folder of the partition is missing")
            return
        segments = segments_of(partition.directory)
        if segments and segments[0].base_offset > partition.start_offset:
            missing = f"offsets {partition.start_offset} to {segments[0].base_offset - 1} are not there"
            self._add(
                NOTE, partition.directory, missing + "; a deletion was cut short, or their files are gone"
            )
        last = _last_filled(segments)
        for number, segment in enumerate(segments):
            self._check_base(segment, is_ahead=number > last)
            # The active segment is never compacted.
            self._may_have_holes = self._partition.is_compacted and number < len(segments) - 1
            self._check_segment(segment, is_last=number >= last)

    def _add(self, severity: str, where: Path, what: str) -> None:
        self.findings.append(Finding(severity, str(where), what))

    def _check_base(self, segment: StoredSegment, *, is_ahead: bool) -> None:
        base, due = segment.base_offset, self._due
        if due is not None and is_ahead and base != due:
            self._add(NOTE, segment.path, "is empty and ahead of the end, the next start removes it")
            return
        if due is not None and (base < due or (base > due and self._is_exact)):
            self._add(DAMAGE, segment.path, f"begins at offset {base}, its predecessor ends at {due}")
        self._due = base

    def _check_segment(self, segment: StoredSegment, *, is_last: bool) -> None:
        snapshot = self._snapshot(segment, is_last=is_last)
        index = _IndexCheck(snapshot, lambda what: self._add(DAMAGE, segment.snapshot_path, what))
        position = 0
        with open_segment(segment) as file:
            size = os.fstat(file.fileno()).st_size
            if snapshot is not None and snapshot.size > size:
                self._add(DAMAGE, segment.path, f"{snapshot.size} bytes were synced, {size} are there")
            while position < size:
                for found in batches_in(file, position, size):
                    self._check_offset(segment, found)
                    index.pass_batch(found)
                    self._count(found)
                    position = found.position + found.header.size
                if position < size:
                    position = self._damaged(segment, snapshot, position, size, is_last=is_last)
                    index.skip_to(position)
        self.counts.segments += 1
        end = index.finish(position)
        # A compacted segment ends where its sources did, its last records may be gone.
        if self._partition.is_compacted:
            self._is_exact = end is not None
            self._due = max(self._due or 0, end or 0)

    def _snapshot(self, segment: StoredSegment, *, is_last: bool) -> Snapshot | None:
        snapshot = segment.snapshot()
        if snapshot is None and segment.snapshot_path.exists():
            self._add(NOTE, segment.snapshot_path, "is torn or altered, the next start makes it anew")
        elif snapshot is None and not is_last:
            self._add(NOTE, segment.snapshot_path, "is missing, the next start makes it anew")
        return snapshot

    def _check_offset(self, segment: StoredSegment, found: StoredBatch) -> None:
        base, due = found.header.base_offset, self._due or 0
        if base < due or (base > due and not self._may_have_holes):
            self._add(DAMAGE, segment.path, f"byte {found.position}: offset {base} where {due} was due")
        self._due = found.header.next_offset

    def _count(self, found: StoredBatch) -> None:
        self.counts.batches += 1
        self.counts.records += found.header.record_count
        self.counts.bytes += found.header.size

    def _damaged(
        self, segment: StoredSegment, snapshot: Snapshot | None, position: int, size: int, *, is_last: bool
    ) -> int:
        """Name an unreadable stretch; returns where reading can go on."""
        synced = snapshot.size if snapshot is not None else 0
        if is_last and position >= synced:
            torn = f"a torn tail of {size - position} bytes from byte {position} on"
            self._add(NOTE, segment.path, f"{torn}, the next start cuts it off at offset {self._due}")
            return size
        following = _next_indexed(snapshot, position, size)
        lost = f"{following[0] - position} bytes from byte {position} on are damaged"
        self._add(DAMAGE, segment.path, f"{lost}, they begin at offset {self._due}")
        self._due = following[1] if following[1] >= 0 else self._due
        return following[0]


def _last_filled(segments: list[StoredSegment]) -> int:
    """Number of the last segment with bytes; behind it are only such as a roll has just begun."""
    sizes = [segment.path.stat().st_size for segment in segments]
    return max((number for number, size in enumerate(sizes) if size), default=0)


def _next_indexed(snapshot: Snapshot | None, position: int, size: int) -> tuple[int, int]:
    """(position, offset) of the next batch after `position` that the index knows, else the end."""
    if snapshot is not None:
        positions = _numbers(snapshot.index_positions)
        slot = int(np.searchsorted(positions, position, side="right"))
        if slot < len(positions) and positions[slot] < size:
            return int(positions[slot]), int(_numbers(snapshot.index_offsets)[slot])
        if position < snapshot.size < size:
            return snapshot.size, snapshot.next_offset
    return size, snapshot.next_offset if snapshot is not None else -1


class _IndexCheck:
    """Compares what a snapshot says with the batches as they pass."""

    def __init__(self, snapshot: Snapshot | None, report: Callable[[str], None]) -> None:
        self._snapshot = snapshot
        self._report = report
        self._entries: dict[int, tuple[int, int]] = {}
        if snapshot is not None:
            columns = (snapshot.index_positions, snapshot.index_offsets, snapshot.index_timestamps)
            rows = zip(*(_numbers(column).tolist() for column in columns), strict=True)
            self._entries = {position: (offset, time) for position, offset, time in rows}
        self._newest = -1
        self._end = (0, -1)
        self._has_gap = False

    def pass_batch(self, found: StoredBatch) -> None:
        header = found.header
        entry = self._entries.pop(found.position, None)
        times_known = not self._has_gap
        if entry is not None and (
            entry[0] != header.base_offset or (times_known and entry[1] != self._newest)
        ):
            self._report(
                f"its entry for byte {found.position} says offset {entry[0]}, time {entry[1]}; "
                f"the batch says offset {header.base_offset}, times before it reach {self._newest}"
            )
        self._newest = max(self._newest, header.max_timestamp)
        self._end = (found.position + header.size, header.next_offset)
        snapshot = self._snapshot
        if snapshot is not None and snapshot.size == self._end[0] and times_known:
            self._check_end(snapshot)

    def skip_to(self, position: int) -> None:
        """Damage, already reported: nothing can be said about entries up to `position`."""
        self._has_gap = True
        self._entries = {at: entry for at, entry in self._entries.items() if at >= position}

    def finish(self, size: int) -> int | None:
        """All batches have passed, entries left over lead nowhere. Returns the end the snapshot knows."""
        for position in sorted(self._entries):
            if position < size:
                self._report(f"its entry for byte {position} is not where a batch begins")
        snapshot = self._snapshot
        return snapshot.next_offset if snapshot is not None and snapshot.size >= self._end[0] else None

    def _check_end(self, snapshot: Snapshot) -> None:
        if snapshot.next_offset < self._end[1] or snapshot.max_timestamp != self._newest:
            self._report(
                f"says that byte {snapshot.size} is offset {snapshot.next_offset}, time "
                f"{snapshot.max_timestamp}; the batches say {self._end[1]}, {self._newest}"
            )


def _numbers(raw: bytes) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.frombuffer(raw, dtype=np.int64)
