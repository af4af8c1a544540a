"""One partition: segments in a row, its producers, and the watermarks that readers obey.

* The *end* is the next offset to give out. The *high watermark* follows it, after the sync.
* The *last stable offset* is the first offset of the oldest open transaction, at most the high watermark.
* The *start* is the first offset that still may be read (retention, DeleteRecords).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from streams.embedded import batch
from streams.embedded.batch import BatchHeader, Buffer
from streams.embedded.commit import GroupCommit
from streams.embedded.errors import CorruptBatchError
from streams.embedded.file_slice import Records, whole
from streams.embedded.open_files import OpenFiles
from streams.embedded.producers import Producers
from streams.embedded.recovery import recover
from streams.embedded.segment import (
    AbortedTransaction,
    Segment,
    append_whole,
    fdatasync,
    sync_directory,
    write_snapshot,
)
from streams.embedded.settings import LogSettings
from streams.embedded.topic_config import TopicConfig


class Location(NamedTuple):
    """An offset together with the place of its batch."""

    offset: int
    segment_base: int
    position: int


class TimedOffset(NamedTuple):
    """Answer to a look-up by time."""

    offset: int
    timestamp: int


class PartitionSync:
    """The writes of one partition in one commit cycle."""

    def __init__(self, log: PartitionLog, end: Location) -> None:
        self._log = log
        self._end = end
        self._writes: list[tuple[Segment, list[Buffer]]] = []
        self._written = 0
        self._snapshots: list[tuple[Path, bytes]] = []
        self.sync_directory = False

    def add(self, segment: Segment) -> None:
        self._writes.append((segment, segment.pending))
        segment.pending = []
        segment.syncing = True

    def add_snapshot(self, path: Path, content: bytes) -> None:
        self._snapshots.append((path, content))

    def run(self) -> None:
        # After a full disk it goes on where it was.
        for segment, buffers in self._writes[self._written :]:
            append_whole(segment.fd, buffers)
            fdatasync(segment.fd)
            self._written += 1
        if self.sync_directory:
            sync_directory(self._log.directory)
        # Only now: a snapshot vouches for data that is on disk.
        for path, content in self._snapshots:
            write_snapshot(path, content)

    def finish(self) -> None:
        for segment, _ in self._writes:
            segment.syncing = False
        self._log.committed(self._end, sum(len(b) for _, buffers in self._writes for b in buffers))


class PartitionLog:
    """Append, read and look up in one partition. Every method runs on the event loop."""

    def __init__(
        self,
        topic: str,
        index: int,
        directory: Path,
        config: TopicConfig,
        settings: LogSettings,
        commit: GroupCommit,
        open_files: OpenFiles,
        start_offset: int = 0,
    ) -> None:
        self.topic = topic
        self.index = index
        self.directory = directory
        self.config = config
        self.waiters: dict[Callable[[], None], None] = {}
        self.retired = False
        # Since the start, for metrics.
        self.appended_records = self.appended_bytes = 0
        self._settings = settings
        self._commit = commit
        self._open_files = open_files
        recovered = recover(directory, settings, gapless=not config.is_compacted)
        self.lost_bytes = recovered.lost_bytes
        self.segments: list[Segment] = recovered.segments
        self._bases = [segment.base_offset for segment in self.segments]
        self.producers: Producers = recovered.producers
        self.aborted: list[AbortedTransaction] = recovered.aborted
        if config.is_compacted:
            self.aborted = [entry for entry in self.aborted if self._has_marker(entry.last_offset)]
        self._open_locations: dict[int, Location] = {}
        # Segments whose names are not yet on disk; the next commit sees to it, before it acknowledges.
        # One from the start: nobody knows whether the names that a killed process left are.
        self._fresh_segments = 1
        self._unsnapshotted = 0
        self._closed_now: list[tuple[Path, bytes]] = []
        self.start_offset = max(start_offset, self.segments[0].base_offset)
        self.high_watermark = self._end_location()
        # Where recent commits ended: a reader at the tail continues exactly there.
        self._marks: dict[int, Location] = {self.high_watermark.offset: self.high_watermark}

    # -- watermarks ----------------------------------------------------------------------------

    @property
    def active(self) -> Segment:
        return self.segments[-1]

    @property
    def end_offset(self) -> int:
        return self.segments[-1].next_offset

    @property
    def last_stable_offset(self) -> int:
        first_open = self.producers.first_open_offset()
        high = self.high_watermark.offset
        return high if first_open is None or first_open > high else first_open

    def _end_location(self) -> Location:
        active = self.segments[-1]
        return Location(active.next_offset, active.base_offset, active.size)

    def _stable_location(self) -> Location:
        offset = self.last_stable_offset
        if offset == self.high_watermark.offset:
            return self.high_watermark
        location = self._open_locations.get(offset)
        if location is None:
            segment = self._segment_of(offset)
            self._touch(segment)
            location = Location(offset, segment.base_offset, segment.locate(offset, segment.size))
        return location

    @property
    def _is_gapless(self) -> bool:
        return not self.config.is_compacted

    # -- append --------------------------------------------------------------------------------

    def append(self, buffer: bytearray | memoryview, header: BatchHeader, now_ms: int) -> int:
        """Take a validated batch; returns its base offset, for a repeated one that of the first time.

        It is durable and readable after the next commit cycle. Raises SequenceError.
        """
        if header.producer_id >= 0:
            repeated = self.producers.check(header)
            if repeated is not None:
                return repeated
        segment = self._segment_for(header.size, now_ms)
        location = self._end_location()
        stamped = self._write(segment, buffer, header)
        if header.producer_id >= 0 and self.producers.append(stamped, now_ms):
            self._open_locations[location.offset] = location
        return location.offset

    def append_marker(self, *, producer_id: int, epoch: int, commit: bool, now_ms: int) -> None:
        """End a producer's transaction here: durable and visible after the next commit cycle."""
        marker = batch.control_batch(
            producer_id=producer_id, producer_epoch=epoch, commit=commit, timestamp_ms=now_ms
        )
        header = batch.read_header(marker)
        stamped = self._write(self._segment_for(header.size, now_ms), marker, header)
        first = self.producers.end_transaction(producer_id, epoch, now_ms)
        if first < 0:
            return
        self._open_locations.pop(first, None)
        if not commit:
            self.aborted.append(AbortedTransaction(producer_id, first, stamped.base_offset))

    def _write(self, segment: Segment, buffer: bytearray | memoryview, header: BatchHeader) -> BatchHeader:
        stamped = header._replace(base_offset=segment.next_offset)
        batch.stamp(buffer, segment.next_offset)
        segment.append(buffer, stamped)
        self.appended_records += header.record_count
        self.appended_bytes += header.size
        self._commit.unsynced_bytes += header.size
        self._unsnapshotted += header.size
        self._commit.mark(self)
        return stamped

    def _segment_for(self, size: int, now_ms: int) -> Segment:
        active = self.active
        full = active.size + size > self.config.segment_bytes
        old = active.created_ms and now_ms - active.created_ms > self.config.segment_age_ms
        if active.size and (full or old):
            self.roll()
            active = self.active
        if not active.size:
            active.created_ms = now_ms
        return active

    def roll_if_old(self, now_ms: int) -> None:
        """Close the active segment of a quiet partition when its age or its retention asks for it."""
        active = self.active
        is_old = active.created_ms > 0 and now_ms - active.created_ms > self.config.segment_age_ms
        expires = self.config.is_deleted and 0 <= self.config.retention_ms < now_ms - active.max_timestamp
        if active.size and (is_old or expires):
            self.roll()

    def roll(self) -> None:
        """Close the active segment and begin a new one at the end."""
        old = self.active
        self._closed_now.append((old.path, old.snapshot(self.producers.snapshot(), self.aborted)))
        fresh = Segment(self.directory, old.next_offset, self._settings.index_interval_bytes)
        fresh.create()
        self.segments.append(fresh)
        self._bases.append(fresh.base_offset)
        self._open_files.touch(old)
        self._fresh_segments += 1
        self._unsnapshotted = 0
        self._commit.mark(self)

    # -- commit --------------------------------------------------------------------------------

    def begin_sync(self) -> PartitionSync:
        """Hand over what is pending. Part of GroupCommit's contract."""
        job = PartitionSync(self, self._end_location())
        if self.retired:
            return job
        for segment in self.segments[-(self._fresh_segments + 1) :]:
            if segment.pending:
                job.add(segment)
        for path, content in self._closed_now:
            job.add_snapshot(path, content)
        job.sync_directory = self._fresh_segments > 0
        if self._unsnapshotted >= self._settings.checkpoint_bytes:
            job.add_snapshot(self.active.path, self._snapshot())
            self._unsnapshotted = 0
        self._fresh_segments = 0
        self._closed_now = []
        return job

    def committed(self, end: Location, synced_bytes: int) -> None:
        """Everything below `end` is on disk: move the high watermark and wake readers."""
        self._commit.unsynced_bytes -= synced_bytes
        self.high_watermark = end
        self._marks[end.offset] = end
        if len(self._marks) > 64:
            del self._marks[next(iter(self._marks))]
        for wake in list(self.waiters):
            wake()

    def _snapshot(self) -> bytes:
        return self.active.snapshot(self.producers.snapshot(), self.aborted)

    def retire(self) -> None:
        """The topic is deleted: nothing may be written any more, waiting readers learn of it."""
        self.retired = True
        for segment in self.segments:
            self._commit.unsynced_bytes -= sum(map(len, segment.pending))
            segment.pending = []
            if not segment.syncing:
                self._open_files.forget(segment)
        for wake in list(self.waiters):
            wake()

    def close(self) -> None:
        """Write the last snapshot (so that the next start scans nothing) and close the files."""
        write_snapshot(self.active.path, self._snapshot())
        for segment in self.segments:
            segment.close()

    # -- read ----------------------------------------------------------------------------------

    def read(self, offset: int, bytes_max: int, *, committed: bool, at_least_one: bool = True) -> Records:
        """Whole batches from the one that holds `offset`; the first even if it alone exceeds `bytes_max`.

        committed: end at the last stable offset instead of the high watermark.
        at_least_one: False returns nothing rather than more than `bytes_max`.
        Raises CorruptBatchError when the disk has altered that batch.
        """
        limit = self._stable_location() if committed else self.high_watermark
        if offset >= limit.offset:
            return b""
        number = max(bisect_right(self._bases, offset) - 1, 0)
        mark = self._marks.get(offset)
        position = mark.position if mark is not None and mark.segment_base == self._bases[number] else -1
        while number < len(self.segments):
            segment = self.segments[number]
            end = limit.position if segment.base_offset == limit.segment_base else segment.size
            if position < 0:
                self._touch(segment)
                position = segment.locate(offset, end, gapless=self._is_gapless)
            if position < end:
                self._touch(segment)
                length = segment.cut(position, position + bytes_max, end) - position
                if length > bytes_max and not at_least_one:
                    return b""
                return segment.read_checked(position, length, offset, gapless=self._is_gapless)
            if segment.base_offset == limit.segment_base:
                break
            number += 1
            position = -1
        if self._is_gapless:
            raise CorruptBatchError(
                "corrupt_message", f"{self.directory}: offset {offset} is not there any more"
            )
        return b""

    def aborted_in(self, first: int, last: int) -> list[AbortedTransaction]:
        """Aborted transactions with records in [first, last), by their end."""
        start = bisect_left(self.aborted, first, key=_last_offset)
        return [entry for entry in self.aborted[start:] if entry.first_offset < last]

    def offset_for_time(self, timestamp_ms: int, *, committed: bool) -> TimedOffset | None:
        """The first readable record at or after a time, None if there is none.

        Raises CorruptBatchError when the disk has altered its batch.
        """
        limit = self._stable_location() if committed else self.high_watermark
        for segment in list(self.segments):
            if segment.max_timestamp < timestamp_ms or segment.next_offset <= self.start_offset:
                continue
            self._touch(segment)
            end = limit.position if segment.base_offset == limit.segment_base else segment.size
            for position, header in segment.walk(segment.position_for_time(timestamp_ms), end):
                if header.max_timestamp < timestamp_ms or header.is_control:
                    continue
                content = whole(
                    segment.read_checked(position, header.size, header.base_offset, gapless=self._is_gapless)
                )
                for record in batch.iterate(content, 0, header):
                    if record.timestamp >= timestamp_ms and record.offset >= self.start_offset:
                        return TimedOffset(record.offset, record.timestamp)
            if segment.base_offset == limit.segment_base:
                break
        return None

    def newest_time(self, *, committed: bool) -> TimedOffset | None:
        """The record with the greatest timestamp."""
        newest = max(segment.max_timestamp for segment in self.segments)
        return self.offset_for_time(newest, committed=committed) if newest >= 0 else None

    def _has_marker(self, offset: int) -> bool:
        """A compaction removes aborted records with their marker, older snapshots still name them.

        A reader that is told of a transaction without marker would take the producer's next one for aborted.
        """
        segment = self._segment_of(offset)
        self._touch(segment)
        position = segment.locate(offset, segment.size)
        if position >= segment.size:
            return False
        header = batch.read_header(segment.read(position, batch.HEADER_BYTES))
        return header.is_control and header.base_offset == offset

    def _segment_of(self, offset: int) -> Segment:
        return self.segments[max(bisect_right(self._bases, offset) - 1, 0)]

    def _touch(self, segment: Segment) -> None:
        if segment is not self.segments[-1]:
            self._open_files.touch(segment)

    # -- retention and compaction --------------------------------------------------------------

    def advance_start(self, offset: int) -> list[Segment]:
        """Move the start forward; returns the segments that lie before it, taken out, still on disk."""
        self.start_offset = max(self.start_offset, min(offset, self.high_watermark.offset))
        keep = 0
        while keep < len(self.segments) - 1 and self.segments[keep].next_offset <= self.start_offset:
            keep += 1
        gone = self.segments[:keep]
        del self.segments[:keep]
        del self._bases[:keep]
        self.aborted = [entry for entry in self.aborted if entry.last_offset >= self.start_offset]
        return gone

    def forget_aborted(self, cleaned_end: int) -> None:
        """Everything below `cleaned_end` is compacted: neither records nor markers of these are left."""
        self.aborted = [entry for entry in self.aborted if entry.last_offset >= cleaned_end]

    def replace(self, old: list[Segment], new: Segment) -> None:
        """Put a compacted segment into the place of those that it was made from."""
        first = self.segments.index(old[0])
        self.segments[first : first + len(old)] = [new]
        self._bases = [segment.base_offset for segment in self.segments]
        self._marks = {self.high_watermark.offset: self.high_watermark}

    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self.segments)


def _last_offset(entry: AbortedTransaction) -> int:
    return entry.last_offset
