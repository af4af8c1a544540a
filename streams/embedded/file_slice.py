"""Bytes of a file that are read while they are sent: an answer of megabytes needs no memory of its own.

Only for bytes that never change, which is every byte below the high watermark.
"""

from __future__ import annotations

import os


class OpenFile:
    """A file that stays open for as long as anything refers to it, e.g. an answer that is being sent."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class FileSlice:
    """A range of a file that gets shorter as it is taken; its length is what is left, in bytes."""

    __slots__ = ("_file", "_left", "_position")

    def __init__(self, file: OpenFile, position: int, length: int) -> None:
        self._file = file
        self._position = position
        self._left = length

    def __len__(self) -> int:
        return self._left

    def take(self, bytes_max: int) -> bytes:
        """The next bytes, at most so many. Raises OSError when the file ends before its slice."""
        piece = os.pread(self._file.fd, min(bytes_max, self._left), self._position)
        if not piece:
            raise OSError(f"{self._left} bytes from byte {self._position} on are not in the file any more")
        self._position += len(piece)
        self._left -= len(piece)
        return piece


# Whole batches on their way to a reader.
Records = bytes | FileSlice


def whole(records: Records) -> bytes:
    """All of them in memory."""
    if isinstance(records, bytes):
        return records
    pieces = []
    while len(records):
        pieces.append(records.take(len(records)))
    return b"".join(pieces)
