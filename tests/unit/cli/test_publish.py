"""Reading lines for `tidal publish`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tidal.cli import publish
from tidal.cli.publish import read_lines


class Chunks:
    """A stream that gives what it was told, piece by piece."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)

    def read1(self, size: int, /) -> bytes:
        return next(self._pieces, b"")


@pytest.mark.parametrize(
    "pieces",
    [
        [b"a\nb\n\nc\n"],
        [b"a", b"\nb", b"\n\n", b"c", b"\n"],
        [b"a\nb\n\nc"],
        [bytes([byte]) for byte in b"a\nb\n \nc"],
    ],
)
def test_lines_keep_their_numbers_however_they_arrive(pieces: list[bytes]) -> None:
    numbered = [
        (first + index, line)
        for first, lines in read_lines(Chunks(pieces))
        for index, line in enumerate(lines)
    ]
    assert numbered == [(1, b"a"), (2, b"b"), (4, b"c")]


def test_nothing_is_nothing() -> None:
    assert list(read_lines(Chunks([]))) == []
    assert list(read_lines(Chunks([b"\n\n"]))) == []


def test_a_line_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "LINE_BYTES_MAX", 10)
    sizes = [len(line) for _, lines in read_lines(Chunks([b"x" * 8] * 10)) for line in lines]
    assert sum(sizes) == 80
    assert max(sizes) <= 18
