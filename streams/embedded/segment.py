"""One segment: a file of whole batches, its sparse index, and the snapshot that makes recovery short.

Appends stay in memory until the group commit writes and syncs them in a thread; nothing unsynced is
ever read, so a reader needs no lock: it reads below the high watermark only.
"""

from __future__ import annotations

import errno
import logging
import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from crc32c import crc32c

from streams.embedded.batch import HEADER_BYTES, BatchHeader, Buffer, is_whole, read_header
from streams.embedded.errors import CorruptBatchError
from streams.embedded.file_slice import FileSlice, OpenFile, Records
from streams.embedded.producers import ProducerSnapshot

logger = logging.getLogger(__name__)

LOG_SUFFIX = ".log"
SNAPSHOT_SUFFIX = ".snap"
_SNAPSHOT_MAGIC = b"TSNAP01\n"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# Linux refuses more buffers in one writev.
_IOVEC_MAX = 1024
# A header walk reads this much ahead beyond one index interval.
_WALK_BYTES = 8192
# Less than this is read at once: it costs no more than to remember where it lies.
_SLICE_BYTES_MIN = 64 * 1024


class NoSpaceError(OSError):
    """The disk is full and nothing has been written: trying again later is safe."""


class AbortedTransaction(NamedTuple):
    """An aborted transaction of one partition; `last_offset` is its marker's."""

    producer_id: int
    first_offset: int
    last_offset: int


class Snapshot(msgspec.Struct, array_like=True):
    """State of a partition after the first `size` bytes of one segment."""

    size: int
    next_offset: int
    max_timestamp: int
    index_offsets: bytes
    index_positions: bytes
    index_timestamps: bytes
    producers: list[ProducerSnapshot]
    aborted: Sequence[tuple[int, int, int]]


def segment_path(directory: Path, base_offset: int) -> Path:
    """Path of the segment whose first offset is `base_offset`."""
    return directory / f"{base_offset:020d}{LOG_SUFFIX}"


def fdatasync(fd: int) -> None:
    """Data and size to the disk. macOS has no fdatasync and its fsync stops at the drive's cache."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        import fcntl

        fcntl.fcntl(fd, getattr(fcntl, "F_FULLFSYNC", 51))


def sync_directory(directory: Path) -> None:
    """Make created, renamed and removed names of a directory durable."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_fully(fd: int, buffers: list[Buffer]) -> None:
    """Append all buffers at the file's position, whatever the kernel takes at once."""
    for start in range(0, len(buffers), _IOVEC_MAX):
        chunk = buffers[start : start + _IOVEC_MAX]
        expected = sum(map(len, chunk))
        written = os.writev(fd, chunk)
        if written < expected:
            rest = memoryview(b"".join(chunk))[written:]
            while rest:
                rest = rest[os.write(fd, rest) :]


def append_whole(fd: int, buffers: list[Buffer]) -> None:
    """Append all buffers; NoSpaceError when the disk is full, and then nothing."""
    size = os.fstat(fd).st_size
    try:
        write_fully(fd, buffers)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        os.ftruncate(fd, size)
        raise NoSpaceError(error.errno, error.strerror) from error


class Segment:
    """Batches from `base_offset` on, in one file."""

    def __init__(self, directory: Path, base_offset: int, index_interval_bytes: int) -> None:
        self.path = segment_path(directory, base_offset)
        self.base_offset = base_offset
        self.next_offset = base_offset
        self.size = 0
        self.max_timestamp = -1
        self.created_ms = 0
        self.pending: list[Buffer] = []
        # True while a thread writes to the file.
        self.syncing = False
        # Bytes that a former process wrote and this one has not looked at: [_checked, _unchecked_end).
        self._checked = 0
        self._unchecked_end = 0
        self._interval = index_interval_bytes
        self._last_indexed = -index_interval_bytes
        # A closed segment's index is read again when somebody reads the segment.
        self._is_indexed = True
        self._offsets = array("q")
        self._positions = array("q")
        self._timestamps = array("q")
        self._file: OpenFile | None = None

    # -- files ---------------------------------------------------------------------------------

    @property
    def fd(self) -> int:
        """The open file; opened on first use."""
        return self._opened().fd

    def _opened(self) -> OpenFile:
        if self._file is None:
            self._file = OpenFile(os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC))
        return self._file

    def create(self) -> None:
        """Make the file, empty."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._file = OpenFile(os.open(self.path, flags, 0o644))

    def write_pending(self) -> None:
        """Write what was appended, not yet synced."""
        buffers, self.pending = self.pending, []
        write_fully(self.fd, buffers)

    def sync(self) -> None:
        os.fsync(self.fd)

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def close(self) -> None:
        """Let go of file and index, for good or until the next read; nothing may be appended any more.

        The file closes with the last answer that is still being sent from it.
        """
        self._file = None
        self._is_indexed = False
        for column in self._index_columns():
            del column[:]

    def remove(self) -> None:
        """Close and delete the file and its snapshot."""
        self.close()
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(SNAPSHOT_SUFFIX).unlink(missing_ok=True)

    # -- append --------------------------------------------------------------------------------

    def append(self, buffer: Buffer, header: BatchHeader) -> None:
        """Take a stamped batch; it reaches the file with the next group commit."""
        self.note(header)
        self.pending.append(buffer)

    def note(self, header: BatchHeader) -> None:
        """Account for a batch at the end of this segment, in the index too."""
        self._index(header.base_offset, self.size, self.max_timestamp)
        self.size += header.size
        self.next_offset = header.next_offset
        self.max_timestamp = max(self.max_timestamp, header.max_timestamp)

    # -- index ---------------------------------------------------------------------------------

    def _index_columns(self) -> tuple[array[int], array[int], array[int]]:
        return self._offsets, self._positions, self._timestamps

    def _index(self, offset: int, position: int, timestamp_before: int) -> None:
        """Note a batch, if the last one that was noted is far enough."""
        if position - self._last_indexed < self._interval:
            return
        self._offsets.append(offset)
        self._positions.append(position)
        self._timestamps.append(timestamp_before)
        self._last_indexed = position

    def _load_index(self) -> None:
        """From the snapshot; from the batches if that has been lost since the start."""
        if self._is_indexed:
            return
        self._is_indexed = True
        snapshot = read_snapshot(self.path)
        if snapshot is not None and snapshot.size == self.size:
            self._take_index(snapshot)
            return
        logger.warning("%s: no index of this segment, its batches are walked over", self.path)
        self._last_indexed, timestamp = -self._interval, -1
        for position, header in self.walk(0, self.size):
            self._index(header.base_offset, position, timestamp)
            timestamp = max(timestamp, header.max_timestamp)

    def _take_index(self, snapshot: Snapshot) -> None:
        saved = (snapshot.index_offsets, snapshot.index_positions, snapshot.index_timestamps)
        for column, content in zip(self._index_columns(), saved, strict=True):
            del column[:]
            column.frombytes(content)
        self._last_indexed = self._positions[-1] if self._positions else -self._interval

    # -- read ----------------------------------------------------------------------------------

    def locate(self, offset: int, end: int, *, gapless: bool = False) -> int:
        """Position of the batch that holds `offset`, or of the first after it; `end` if there is none.

        Only bytes below `end` are looked at. gapless: offsets follow each other without holes, so a batch
        that does not begin where the one before it ends has had its offset altered, and is passed over.
        """
        self._load_index()
        slot = bisect_right(self._offsets, offset) - 1
        position = self._positions[slot] if slot >= 0 else 0
        due: int | None = self._offsets[slot] if slot >= 0 else self.base_offset
        for at, header in self.walk(position, end):
            if gapless and due is not None and header.base_offset != due:
                due = None  # nobody vouches for the next one; its own neighbour will
                continue
            if header.last_offset >= offset:
                return at
            due = header.next_offset
        return end

    def walk(self, position: int, end: int) -> HeaderWalk:
        """Headers of the batches from `position` (a batch start) to `end`."""
        return HeaderWalk(self, position, end)

    def read(self, position: int, length: int) -> bytes:
        return os.pread(self.fd, length, position)

    def read_checked(self, position: int, length: int, offset: int, *, gapless: bool) -> Records:
        """Whole batches for a reader of `offset`; what a start took on trust is checked when first read.

        What needs no check and is large is read piece by piece while it is sent.

        gapless: offsets follow each other without holes (nothing was compacted). Returns what is sound in
        front of damage. Raises CorruptBatchError when the damage comes first.
        """
        is_known = position >= self._unchecked_end or position + length <= self._checked
        if is_known and length >= _SLICE_BYTES_MIN:
            return FileSlice(self._opened(), position, length)
        data = self.read(position, length)
        if is_known:
            return data
        sound = _sound_bytes(data, offset, self.next_offset, gapless=gapless)
        if sound == len(data) and position <= self._checked:
            self._checked = position + sound
        if not sound and data:
            raise CorruptBatchError(
                "corrupt_message", f"{self.path} is damaged at byte {position}, offset {offset}"
            )
        return data[:sound]

    def batch_end(self, position: int) -> int:
        """End of the batch that starts at `position`."""
        return position + read_header(self.read(position, HEADER_BYTES)).size

    def cut(self, position: int, limit: int, end: int) -> int:
        """The last known batch start in (position, limit], else the end of the batch at `position`.

        So that a read of limited size holds whole batches without a look at every header.
        """
        if limit >= end:
            return end
        self._load_index()
        slot = bisect_right(self._positions, limit) - 1
        if slot >= 0 and self._positions[slot] > position:
            return self._positions[slot]
        return min(self.batch_end(position), end)

    def position_for_time(self, timestamp_ms: int) -> int:
        """A batch start before which no batch has a timestamp of `timestamp_ms` or later."""
        self._load_index()
        slot = bisect_left(self._timestamps, timestamp_ms) - 1
        return self._positions[slot] if slot >= 0 else 0

    # -- snapshot ------------------------------------------------------------------------------

    def snapshot(self, producers: list[ProducerSnapshot], aborted: list[AbortedTransaction]) -> bytes:
        """This segment's index and the partition's state at its present end, ready to be written."""
        body = msgspec.msgpack.encode(
            Snapshot(
                self.size,
                self.next_offset,
                self.max_timestamp,
                self._offsets.tobytes(),
                self._positions.tobytes(),
                self._timestamps.tobytes(),
                producers,
                aborted,
            )
        )
        return _SNAPSHOT_MAGIC + crc32c(body).to_bytes(4, "big") + body

    def adopt(self, snapshot: Snapshot) -> None:
        """Take size and index from a snapshot."""
        self.size = self._unchecked_end = snapshot.size
        self.next_offset = snapshot.next_offset
        self.max_timestamp = snapshot.max_timestamp
        self._take_index(snapshot)


def _sound_bytes(data: bytes, offset: int, end: int, *, gapless: bool) -> int:
    """Length of the sound batches at the start of `data`: the first should hold `offset`, all end by `end`.

    A batch's offset is outside of its checksum: where there are holes, only its neighbours tell it is wrong.
    """
    position = 0
    while position + HEADER_BYTES <= len(data):
        header = read_header(data, position)
        is_first = position == 0
        if gapless:
            follows = header.base_offset == offset or (
                is_first and header.base_offset <= offset <= header.last_offset
            )
        else:
            follows = header.last_offset >= offset and (is_first or header.base_offset >= offset)
        if not follows or header.next_offset > end or not is_whole(data, position, header):
            break
        position += header.size
        offset = header.next_offset
    return position


class HeaderWalk:
    """Iterator over (position, header) of consecutive batches, reading ahead a page or two at a time."""

    def __init__(self, segment: Segment, position: int, end: int) -> None:
        self._segment = segment
        self._position = position
        self._end = end
        self._chunk = b""
        self._chunk_start = position

    def __iter__(self) -> HeaderWalk:
        return self

    def __next__(self) -> tuple[int, BatchHeader]:
        position = self._position
        if position + HEADER_BYTES > self._end:
            raise StopIteration
        start = position - self._chunk_start
        if start + HEADER_BYTES > len(self._chunk):
            length = min(_WALK_BYTES, self._end - position)
            self._chunk, self._chunk_start, start = self._segment.read(position, length), position, 0
            if len(self._chunk) < HEADER_BYTES:
                raise StopIteration
        header = read_header(self._chunk, start)
        self._position = position + max(header.size, HEADER_BYTES)
        return position, header


def write_snapshot(log_path: Path, content: bytes) -> None:
    """Put a snapshot beside its segment. A torn one is recognised by its checksum, so no sync is needed.

    On a full disk there is none, and the next start scans more.
    """
    target = log_path.with_suffix(SNAPSHOT_SUFFIX)
    scratch = target.with_suffix(SNAPSHOT_SUFFIX + ".new")
    try:
        _write_file(scratch, content, synced=False)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        scratch.unlink(missing_ok=True)
        return
    scratch.replace(target)


def write_file_synced(path: Path, content: bytes) -> None:
    """Write a file so that its content is on disk on return; its name is not yet."""
    _write_file(path, content, synced=True)


def _write_file(path: Path, content: bytes, *, synced: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        write_fully(fd, [content])
        if synced:
            os.fsync(fd)
    finally:
        os.close(fd)


def read_snapshot(log_path: Path) -> Snapshot | None:
    """The snapshot of a segment, or None when it is missing, torn or of another format."""
    return load_snapshot(log_path.with_suffix(SNAPSHOT_SUFFIX))


def load_snapshot(path: Path) -> Snapshot | None:
    """A snapshot by its own path, see `read_snapshot`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    head = len(_SNAPSHOT_MAGIC)
    body = content[head + 4 :]
    if content[:head] != _SNAPSHOT_MAGIC or content[head : head + 4] != crc32c(body).to_bytes(4, "big"):
        return None
    try:
        return msgspec.msgpack.decode(body, type=Snapshot)
    except msgspec.DecodeError:
        return None
