"""An append-only file of small checked entries: everything durable that is not a record.

Frame: magic u32, length u32, CRC-32C u32, body. A damaged frame costs that frame only: reading goes on
at the next sound one. When the file has outgrown its content it is rewritten and swapped in whole.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from crc32c import crc32c

from streams.embedded.segment import NoSpaceError, append_whole, fdatasync, sync_directory

logger = logging.getLogger(__name__)

_FRAME = struct.Struct(">4sII")
_MAGIC = b"TJ1\xa7"
# No entry comes near it; a larger length is damage.
_BODY_BYTES_MAX = 64 << 20


def frame(body: bytes) -> bytes:
    """One entry as it is on disk."""
    return _FRAME.pack(_MAGIC, len(body), crc32c(body)) + body


def read_frames(content: bytes) -> tuple[list[bytes], int, int]:
    """(bodies of the sound frames, bytes skipped between them, bytes of a torn tail)."""
    bodies: list[bytes] = []
    position = skipped = 0
    while position < len(content):
        body = _body_at(content, position)
        if body is not None:
            bodies.append(body)
            position += _FRAME.size + len(body)
            continue
        following = _next_sound(content, position + 1)
        if following < 0:
            return bodies, skipped, len(content) - position
        skipped += following - position
        position = following
    return bodies, skipped, 0


def _body_at(content: bytes, position: int) -> bytes | None:
    if position + _FRAME.size > len(content):
        return None
    magic, length, crc = _FRAME.unpack_from(content, position)
    start = position + _FRAME.size
    # An empty body has checksum zero: a magic with the zeros of an unwritten block behind it looks like one.
    if magic != _MAGIC or not 0 < length <= _BODY_BYTES_MAX or start + length > len(content):
        return None
    body = content[start : start + length]
    return body if crc32c(body) == crc else None


def _next_sound(content: bytes, position: int) -> int:
    while (position := content.find(_MAGIC, position)) >= 0:
        if _body_at(content, position) is not None:
            return position
        position += 1
    return -1


class JournalSync:
    """The journal's part of a commit cycle."""

    def __init__(self, fd: int, buffers: list[bytes]) -> None:
        self._fd = fd
        self._buffers = buffers

    def run(self) -> None:
        append_whole(self._fd, list(self._buffers))
        fdatasync(self._fd)

    def finish(self) -> None:
        """Nothing waits for the journal alone."""


class RewriteSync:
    """A commit cycle that replaces the journal by its rewritten content."""

    def __init__(self, journal: Journal, content: bytes) -> None:
        self._journal = journal
        self._content = content
        self._fd = -1

    def run(self) -> None:
        path = self._journal.path
        scratch = path.with_suffix(".new")
        self._fd = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            append_whole(self._fd, [self._content])
        except NoSpaceError:
            os.close(self._fd)
            raise
        os.fsync(self._fd)
        scratch.rename(path)
        sync_directory(path.parent)

    def finish(self) -> None:
        self._journal.replaced(self._fd, len(self._content))


class Journal:
    """The file. Appends are pending until the group commit takes them."""

    def __init__(self, path: Path, rewrite_bytes: int, content_now: Callable[[], Iterable[bytes]]) -> None:
        self.path = path
        self._rewrite_bytes = rewrite_bytes
        self._content_now = content_now
        self._pending: list[bytes] = []
        self._fd = -1
        self._size = 0
        self._fresh_size = 0

    def load(self) -> list[bytes]:
        """Open, cut a torn tail and return the bodies of all sound entries."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        content = self.path.read_bytes()
        bodies, skipped, torn = read_frames(content)
        if skipped:
            logger.warning("%s: %d damaged bytes skipped, the entries in them are lost", self.path, skipped)
        if torn:
            logger.warning("%s: %d bytes of a torn tail cut off", self.path, torn)
            os.ftruncate(self._fd, len(content) - torn)
        os.fsync(self._fd)
        sync_directory(self.path.parent)
        self._size = self._fresh_size = len(content) - torn
        return bodies

    def append(self, body: bytes) -> None:
        framed = frame(body)
        self._pending.append(framed)
        self._size += len(framed)

    def begin_sync(self) -> JournalSync | RewriteSync:
        """Part of GroupCommit's contract. The rewritten content includes what is pending."""
        pending, self._pending = self._pending, []
        if self._size > max(self._rewrite_bytes, 4 * self._fresh_size):
            return RewriteSync(self, b"".join(frame(body) for body in self._content_now()))
        return JournalSync(self._fd, pending)

    def replaced(self, fd: int, size: int) -> None:
        """The rewritten file is in place; what came meanwhile is still pending and goes to it."""
        os.close(self._fd)
        self._fd = fd
        self._size = size + sum(map(len, self._pending))
        self._fresh_size = size

    def close(self) -> None:
        os.close(self._fd)
        self._fd = -1
