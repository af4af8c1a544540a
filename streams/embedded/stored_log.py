"""A log's folder as it lies on the disk, read without changing anything: for inspect, verify and dump.

The log may be running: its active segments grow, retention and compaction remove files meanwhile. Nothing
is locked, cut or repaired here; what a start would repair is only named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from streams.embedded import batch
from streams.embedded.batch import BatchHeader
from streams.embedded.compaction_files import decided
from streams.embedded.errors import LogFolderError
from streams.embedded.journal import read_frames
from streams.embedded.metadata import MetadataState, TopicCreated, apply_bodies
from streams.embedded.segment import LOG_SUFFIX, Snapshot, load_snapshot

JOURNAL_NAME = "metadata.journal"
TOPICS_NAME = "topics"
_READ_AHEAD_BYTES = 1 << 20


class StoredSegment(NamedTuple):
    """A segment's file with the snapshot that belongs to it."""

    base_offset: int
    path: Path
    snapshot_path: Path

    def snapshot(self) -> Snapshot | None:
        return load_snapshot(self.snapshot_path)


class StoredPartition(NamedTuple):
    """A partition's folder; `start_offset` is what the journal says, its files may begin later."""

    topic: str
    partition: int
    directory: Path
    start_offset: int
    is_compacted: bool


class StoredBatch(NamedTuple):
    """A whole, unaltered batch and its place in its file."""

    position: int
    header: BatchHeader
    content: bytes


class StoredLog:
    """The folder of one log. Raises LogFolderError when there is none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "log" if (folder / "log" / JOURNAL_NAME).exists() else folder
        journal = self.folder / JOURNAL_NAME
        try:
            bodies, self.journal_skipped_bytes, self.journal_torn_bytes = read_frames(journal.read_bytes())
        except FileNotFoundError as error:
            raise LogFolderError(f"{folder} holds no log: there is no {JOURNAL_NAME}") from error
        self.state = MetadataState()
        apply_bodies(self.state, bodies, journal)

    def running_process(self) -> int | None:
        """The process that has the log open, as far as can be told from outside."""
        try:
            process = int((self.folder / "lock").read_text())
            os.kill(process, 0)
        except (OSError, ValueError):
            return None
        return process

    def folder_of(self, topic: TopicCreated) -> Path:
        return self.folder / TOPICS_NAME / f"{topic.name}@{topic.incarnation}"

    def partitions(self, topic: TopicCreated) -> list[StoredPartition]:
        is_compacted = "compact" in topic.config.get("cleanup.policy", "")
        return [
            StoredPartition(
                topic.name,
                index,
                self.folder_of(topic) / str(index),
                self.state.starts.get((topic.name, index), 0),
                is_compacted,
            )
            for index in range(topic.partitions)
        ]

    def strangers(self) -> list[Path]:
        """Folders that belong to no topic, nor to one that is being deleted."""
        known = {self.folder_of(topic) for topic in self.state.topics.values()}
        known |= {self.folder_of(topic) for topic in self.state.deleted.values()}
        return sorted(path for path in (self.folder / TOPICS_NAME).glob("*") if path not in known)


def segments_of(directory: Path) -> list[StoredSegment]:
    """The segments of a partition by offset; a compaction that was decided counts as done."""
    swaps = decided(directory)
    found = [StoredSegment(swap.base_offset, swap.path, swap.snapshot_path) for swap in swaps]
    for path in directory.glob("*" + LOG_SUFFIX):
        base = int(path.stem) if path.stem.isdigit() else -1
        if base >= 0 and not any(swap.base_offset <= base < swap.end_offset for swap in swaps):
            found.append(StoredSegment(base, path, path.with_suffix(".snap")))
    return sorted(found)


def batches_in(file: BinaryIO, position: int, end: int) -> Iterator[StoredBatch]:
    """The batches from `position` on, up to `end` or the first that is not whole and unaltered."""
    file.seek(position)
    while position + batch.HEADER_BYTES <= end:
        head = file.read(batch.HEADER_BYTES)
        if len(head) < batch.HEADER_BYTES:
            return
        header = batch.read_header(head)
        if header.size < batch.HEADER_BYTES or position + header.size > end:
            return
        content = head + file.read(header.size - len(head))
        if not batch.is_whole(content, 0, header):
            return
        yield StoredBatch(position, header, content)
        position += header.size


def open_segment(segment: StoredSegment) -> BinaryIO:
    """Its file, to be read from front to back."""
    return segment.path.open("rb", buffering=_READ_AHEAD_BYTES)
