"""What a partition's folder holds when the log starts: after a clean stop, a kill or a power cut.

A segment with a valid snapshot is believed up to the snapshot's size, everything after it is read and
checked batch by batch. The first batch that is torn, altered or out of order ends the log there: it and
what follows was never acknowledged, because an acknowledgement waits for the sync of all before it.
"""

from __future__ import annotations

import logging
import mmap
import os
from pathlib import Path
from typing import NamedTuple

from streams.embedded import batch
from streams.embedded.compaction_files import finish_replacements
from streams.embedded.producers import Producers
from streams.embedded.segment import (
    LOG_SUFFIX,
    AbortedTransaction,
    Segment,
    Snapshot,
    read_snapshot,
    write_snapshot,
)
from streams.embedded.settings import LogSettings

logger = logging.getLogger(__name__)


class Recovered(NamedTuple):
    """A partition as it was found. There is always at least one segment, the last one is active."""

    segments: list[Segment]
    producers: Producers
    aborted: list[AbortedTransaction]
    lost_bytes: int


def recover(directory: Path, settings: LogSettings, *, gapless: bool) -> Recovered:
    """Open the segments of a folder (made if missing) and make the last one whole.

    gapless: within a segment offsets follow each other without holes (the topic is not compacted).
    """
    directory.mkdir(parents=True, exist_ok=True)
    finish_replacements(directory)
    bases = sorted(int(path.stem) for path in directory.glob("*" + LOG_SUFFIX) if path.stem.isdigit())
    interval = settings.index_interval_bytes
    if not bases:
        fresh = Segment(directory, 0, interval)
        fresh.create()
        return Recovered([fresh], Producers(), [], 0)
    segments = [Segment(directory, base, interval) for base in bases]
    snapshots = [_usable_snapshot(segment) for segment in segments]
    producers = Producers()
    aborted: list[AbortedTransaction] = []
    # A producer's state is the newest snapshot's plus what the bytes after it say. Segments without
    # a snapshot are scanned, beginning with the state that the one before them left.
    lost = 0
    for number, (segment, snapshot) in enumerate(zip(segments, snapshots, strict=True)):
        if snapshot is not None:
            segment.adopt(snapshot)
            producers.restore(snapshot.producers)
            aborted = [AbortedTransaction(*entry) for entry in snapshot.aborted]
        is_last = number == len(segments) - 1
        file_size = segment.path.stat().st_size
        if segment.size < file_size:
            # The active segment is never compacted. A batch's offset is outside of its checksum, so in the
            # others at least the segment behind bounds it.
            limit = None if is_last else segments[number + 1].base_offset
            lost += _scan(segment, file_size, producers, aborted, limit, gapless=gapless or is_last)
        if not is_last and snapshot is None:
            write_snapshot(segment.path, segment.snapshot(producers.snapshot(), aborted))
        segment.created_ms = int(segment.path.stat().st_mtime * 1000) if segment.size else 0
        if not is_last:
            segment.close()
    _drop_ahead(segments)
    return Recovered(segments, producers, aborted, lost)


def _drop_ahead(segments: list[Segment]) -> None:
    """Remove segments that were begun for records behind others that never reached the disk.

    A roll makes the file at once, its bytes come after the sync of the segment before: so it is empty.
    """
    while (
        len(segments) > 1 and not segments[-1].size and segments[-1].base_offset != segments[-2].next_offset
    ):
        segments.pop().remove()


def _usable_snapshot(segment: Segment) -> Snapshot | None:
    snapshot = read_snapshot(segment.path)
    if snapshot is None or snapshot.size > segment.path.stat().st_size:
        return None
    return snapshot


def _scan(
    segment: Segment,
    file_size: int,
    producers: Producers,
    aborted: list[AbortedTransaction],
    limit: int | None,
    *,
    gapless: bool,
) -> int:
    """Read on from the segment's known size; cut off what is not sound. Returns the bytes cut off.

    limit: offsets of this segment are below it.
    """
    reason = "an incomplete batch"
    with mmap.mmap(segment.fd, file_size, access=mmap.ACCESS_READ) as content:
        while segment.size + batch.HEADER_BYTES <= file_size:
            header = batch.read_header(content, segment.size)
            if not batch.is_whole(content, segment.size, header):
                reason = "an incomplete or altered batch"
                break
            if (
                header.base_offset < segment.next_offset
                or (gapless and header.base_offset > segment.next_offset)
                or (limit is not None and header.next_offset > limit)
            ):
                reason = f"offset {header.base_offset} where {segment.next_offset} was due"
                break
            _replay(content, segment.size, header, producers, aborted)
            segment.note(header)
    lost = file_size - segment.size
    if lost:
        logger.warning(
            "%s: %d bytes cut off from byte %d on (%s); the log goes on at offset %d",
            segment.path, lost, segment.size, reason, segment.next_offset,
        )  # fmt: skip
        os.ftruncate(segment.fd, segment.size)
    # What a killed process left in the page cache is about to be served: it must be on disk first.
    os.fsync(segment.fd)
    return lost


def _replay(
    content: mmap.mmap,
    position: int,
    header: batch.BatchHeader,
    producers: Producers,
    aborted: list[AbortedTransaction],
) -> None:
    if header.is_control:
        first = producers.end_transaction(header.producer_id, header.producer_epoch, header.max_timestamp)
        whole = content[position : position + header.size]
        if first >= 0 and not batch.is_commit_marker(whole, 0):
            aborted.append(AbortedTransaction(header.producer_id, first, header.base_offset))
    elif header.producer_id >= 0:
        producers.append(header, header.max_timestamp)
