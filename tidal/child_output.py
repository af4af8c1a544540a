"""What a child process prints: kept in a file of bounded size, its end also in memory for error messages."""

from __future__ import annotations

import asyncio
from pathlib import Path

FILE_BYTES_MAX = 16 << 20
"""One file and one predecessor are kept, so a child's output takes at most twice this on disk."""
TAIL_BYTES = 4096
READ_BYTES = 65536


class ChildOutput:
    """The output of one child over all its restarts."""

    def __init__(self, path: Path, bytes_max: int = FILE_BYTES_MAX) -> None:
        self.path = path
        self._bytes_max = bytes_max
        self._tail = b""
        self._lost_bytes = 0
        self._file = path.open("ab", buffering=0)

    async def pump(self, stream: asyncio.StreamReader) -> None:
        """Copies the stream until its end."""
        while chunk := await stream.read(READ_BYTES):
            self.write(chunk)

    def write(self, chunk: bytes) -> None:
        """Appends; a full file becomes the predecessor, replacing the one before.

        A full disk loses what was printed, and says later how much: a pipe that nobody reads would stop the
        child.
        """
        self._tail = (self._tail + chunk)[-TAIL_BYTES:]
        missing = f"({self._lost_bytes} bytes could not be written here)\n" if self._lost_bytes else ""
        try:
            self._append(missing.encode() + chunk)
            self._lost_bytes = 0
        except OSError:
            self._lost_bytes += len(chunk)

    def _append(self, chunk: bytes) -> None:
        if self._file.tell() + len(chunk) > self._bytes_max and self._file.tell() > 0:
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            full, self._file = self._file, self.path.open("ab", buffering=0)
            full.close()
        self._file.write(chunk)

    def tail(self) -> str:
        """The last few kilobytes."""
        return self._tail.decode("utf-8", "replace")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
