"""Compaction of closed segments, as a program of its own: `python -m streams.embedded.compaction`.

Reading every record keeps a core busy, so it runs in a child process at low priority: the log's own
process only exchanges files. Jobs come as MessagePack on stdin, outcomes go to stdout.

What remains of the closed segments: for each key its last committed record, deletes only until their
delay is over, records without a key. What remains is known to be committed, so its batches lose their
transaction and producer: markers and aborted records go, and no reader or recovery ever needs them.
Offsets, timestamps and codecs stay as they were.
"""

from __future__ import annotations

import mmap
import os
import sys
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import msgspec

from streams.embedded import batch
from streams.embedded.batch import BatchHeader
from streams.embedded.compaction_files import clean_path, clean_snapshot_path
from streams.embedded.errors import CorruptBatchError
from streams.embedded.segment import Segment, read_snapshot, segment_path, write_file_synced

_NICENESS = 10


class Source(msgspec.Struct, frozen=True, array_like=True):
    """A closed segment: its first offset, the offset after it and its size in bytes."""

    base_offset: int
    end_offset: int
    size: int


class Job(msgspec.Struct, frozen=True, array_like=True):
    """One partition's compaction.

    sources: all closed segments to be cleaned, from the first of the log on.
    dirty_from: records before it have been compacted among themselves.
    deletes_before: deletes (null values) below this offset have outlived their delay.
    """

    directory: str
    sources: list[Source]
    dirty_from: int
    deletes_before: int
    aborted: list[tuple[int, int, int]]
    segment_bytes: int
    index_interval_bytes: int
    keys_max: int


class Replacement(msgspec.Struct, frozen=True, array_like=True):
    """A finished file that stands for the segments with a base in [base_offset, end_offset)."""

    base_offset: int
    end_offset: int


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """cleaned_end: everything below is compacted now. `error` is empty when all went well."""

    replacements: list[Replacement]
    cleaned_end: int
    records_kept: int = 0
    records_dropped: int = 0
    error: str = ""


class AbortedRanges:
    """Tells whether a batch belongs to an aborted transaction."""

    def __init__(self, aborted: list[tuple[int, int, int]]) -> None:
        self._ranges: dict[int, list[tuple[int, int]]] = {}
        for producer_id, first, last in aborted:
            self._ranges.setdefault(producer_id, []).append((first, last))
        for ranges in self._ranges.values():
            ranges.sort()

    def covers(self, header: BatchHeader) -> bool:
        ranges = self._ranges.get(header.producer_id) if header.is_transactional else None
        if not ranges:
            return False
        slot = bisect_right(ranges, (header.base_offset, sys.maxsize)) - 1
        return slot >= 0 and ranges[slot][0] <= header.base_offset <= ranges[slot][1]


def compact(job: Job) -> Outcome:
    """Write the compacted form of a partition's closed segments beside them.

    Raises CorruptBatchError for records that cannot be read, OSError for files that cannot.
    """
    aborted = AbortedRanges(job.aborted)
    latest, cleaned_end = _latest_offsets(job, aborted)
    keeper = _Keeper(latest, aborted, job.deletes_before)
    replacements: list[Replacement] = []
    output: _Output | None = None
    for source in job.sources:
        if source.end_offset > cleaned_end:
            break
        # Neighbours share a segment as long as what is left of them surely fits.
        if output is not None and output.size + source.size > job.segment_bytes:
            replacements += output.finish()
            output = None
        if output is None:
            output = _Output(job, source.base_offset)
        output.add(source, keeper)
    if output is not None:
        replacements += output.finish()
    return Outcome(replacements, cleaned_end, keeper.kept, keeper.dropped)


def _latest_offsets(job: Job, aborted: AbortedRanges) -> tuple[dict[bytes, int], int]:
    """(last committed offset of each key in the dirty part, end of what was read).

    Stops at the end of a segment when there are too many keys; the rest has its turn the next time.
    """
    latest: dict[bytes, int] = {}
    cleaned_end = job.sources[0].base_offset
    for source in job.sources:
        if len(latest) > job.keys_max:
            break
        if source.end_offset > job.dirty_from:
            for content, position, header in _batches(job, source):
                if header.is_control or aborted.covers(header):
                    continue
                for record in batch.iterate(content, position, header):
                    if record.key is not None:
                        latest[record.key] = record.offset
        cleaned_end = source.end_offset
    return latest, cleaned_end


class _Keeper:
    """Decides what stays of a batch."""

    def __init__(self, latest: dict[bytes, int], aborted: AbortedRanges, deletes_before: int) -> None:
        self._latest = latest
        self._aborted = aborted
        self._deletes_before = deletes_before
        self.kept = 0
        self.dropped = 0

    def what_stays(self, content: bytes, header: BatchHeader) -> bytes | bytearray:
        """The batch as it remains, empty if nothing does."""
        if header.is_control or self._aborted.covers(header):
            self.dropped += header.record_count
            return b""
        data = batch.records_of(content, 0, header)
        records = list(batch.parse_records(data, header))
        stays = [record for record in records if self._stays(record)]
        self.kept += len(stays)
        self.dropped += len(records) - len(stays)
        if not stays:
            return b""
        if len(stays) < len(records):
            return batch.rebuild(header, b"".join(data[r.start : r.end] for r in stays), len(stays))
        return batch.without_producer(content, header)

    def _stays(self, record: batch.Record) -> bool:
        if record.key is None:
            return True
        if self._latest.get(record.key, -1) > record.offset:
            return False
        return record.has_value or record.offset >= self._deletes_before


class _Output:
    """The compacted form of neighbouring segments, being written."""

    def __init__(self, job: Job, base_offset: int) -> None:
        self._job = job
        self._directory = Path(job.directory)
        self._base = base_offset
        self._sources: list[Source] = []
        self._changed = False
        self._segment = Segment(self._directory, base_offset, job.index_interval_bytes)
        # Its end is not known yet; the final name comes in `finish`.
        self._segment.path = clean_path(self._directory, base_offset, base_offset)
        self._segment.create()

    @property
    def size(self) -> int:
        return self._segment.size

    def add(self, source: Source, keeper: _Keeper) -> None:
        """Append what stays of a segment."""
        self._sources.append(source)
        for content, position, header in _batches(self._job, source):
            whole = content[position : position + header.size]
            rest = keeper.what_stays(whole, header)
            self._changed = self._changed or rest != whole
            if rest:
                self._segment.append(rest, batch.read_header(rest))
        self._segment.write_pending()

    def finish(self) -> list[Replacement]:
        """Sync the file and write its snapshot; nothing is left of a single segment that did not change."""
        segment, end = self._segment, self._sources[-1].end_offset
        if not self._changed and len(self._sources) == 1:
            segment.close()
            segment.path.unlink()
            return []
        segment.sync()
        segment.close()
        segment.next_offset = end
        # Producers live on in the state after the last source: the batches do not carry them any more.
        last_path = segment_path(self._directory, self._sources[-1].base_offset)
        last = read_snapshot(last_path)
        if last is None:
            raise OSError(f"{last_path} has no readable snapshot; a restart of the log writes it anew")
        snapshot = segment.snapshot(last.producers, [])
        write_file_synced(clean_snapshot_path(self._directory, self._base, end), snapshot)
        segment.path.rename(clean_path(self._directory, self._base, end))
        return [Replacement(self._base, end)]


def _batches(job: Job, source: Source) -> Iterator[tuple[bytes, int, BatchHeader]]:
    """(content, position, header) of each batch of a segment, checked."""
    if not source.size:
        return
    path = segment_path(Path(job.directory), source.base_offset)
    with path.open("rb") as file, mmap.mmap(file.fileno(), source.size, access=mmap.ACCESS_READ) as mapped:
        position = 0
        while position < source.size:
            header = batch.read_header(mapped[position : position + batch.HEADER_BYTES])
            content = mapped[position : position + header.size]
            if not batch.is_whole(content, 0, header):
                raise CorruptBatchError("corrupt_message", f"{path}: damaged at byte {position}")
            yield content, 0, header
            position += header.size


def main() -> int:
    """Do the jobs of stdin."""
    os.nice(_NICENESS)
    outcomes = []
    for job in msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[Job]):
        try:
            outcomes.append(compact(job))
        except (CorruptBatchError, OSError) as error:
            outcomes.append(Outcome([], 0, error=str(error)))
    sys.stdout.buffer.write(msgspec.msgpack.encode(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
