"""Ranges of files that are read while they are sent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streams.embedded.file_slice import FileSlice, OpenFile, whole


def opened(path: Path, content: bytes) -> OpenFile:
    path.write_bytes(content)
    return OpenFile(os.open(path, os.O_RDONLY))


def test_pieces_are_the_range_and_no_more(tmp_path: Path) -> None:
    under_test = FileSlice(opened(tmp_path / "f", b"0123456789"), 2, 7)
    assert len(under_test) == 7
    assert under_test.take(3) == b"234"
    assert len(under_test) == 4
    assert whole(under_test) == b"5678"
    assert len(under_test) == 0
    assert whole(b"as it is") == b"as it is"


def test_a_removed_file_is_read_to_its_end_and_then_closed(tmp_path: Path) -> None:
    file = opened(tmp_path / "f", b"0123456789")
    fd = file.fd
    under_test = FileSlice(file, 0, 10)
    (tmp_path / "f").unlink()
    del file
    assert whole(under_test) == b"0123456789"
    del under_test
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_file_that_got_shorter_is_an_error(tmp_path: Path) -> None:
    under_test = FileSlice(opened(tmp_path / "f", b"0123456789"), 4, 6)
    os.truncate(tmp_path / "f", 6)
    assert under_test.take(100) == b"45"
    with pytest.raises(OSError, match="4 bytes from byte 6 on"):
        under_test.take(100)
