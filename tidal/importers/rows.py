"""Rows of delimited text files with their line numbers, and the list of those that cannot be used."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

from schemas.errors import TidalError

LISTED_REFUSALS_MAX: Final = 100
SNIFFED_BYTES: Final = 65_536


class ImporterError(TidalError):
    """Data that cannot be imported at all: no such file, an unknown layout, a target that does not answer."""


class Row(NamedTuple):
    """One line of a table: its number in the file, counted from 1, and its fields."""

    line: int
    fields: list[str]


class Refusal(NamedTuple):
    """One row that was not imported."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line}: {self.reason}"


class Refusals:
    """All refused rows of an import: counted without bound, kept one by one up to `LISTED_REFUSALS_MAX`."""

    def __init__(self) -> None:
        self.count = 0
        self.listed: list[Refusal] = []

    def add(self, path: Path, line: int, reason: str) -> None:
        self.count += 1
        if len(self.listed) < LISTED_REFUSALS_MAX:
            self.listed.append(Refusal(path, line, reason))

    def lines(self) -> list[str]:
        """What to print: a row each, and how many more there are."""
        lines = [str(refusal) for refusal in self.listed]
        if self.count > len(self.listed):
            lines.append(f"… and {self.count - len(self.listed):,} more")
        return lines


class TableFile(NamedTuple):
    """A delimited text file, gzipped or not. header: the first line's fields, None if it is data already."""

    path: Path
    delimiter: str
    header: tuple[str, ...] | None

    def rows(self) -> Iterator[Row]:
        """Every line of data; empty lines are passed over."""
        with open_text(self.path) as file:
            for line, fields in enumerate(_split(file, self.delimiter), start=1):
                if fields and not (line == 1 and self.header is not None):
                    yield Row(line, fields)


def open_text(path: Path) -> IO[str]:
    """Opens a text file, gzipped or not; what is not UTF-8 is read as Latin-1, as old data sets are."""
    encoding = "utf-8" if _is_utf8(path) else "latin-1"
    if is_gzip(path):
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


def open_table(path: Path, delimiters: Sequence[str], header_words: Sequence[str]) -> TableFile:
    """Finds out the delimiter of a file, and whether it begins with a header.

    It is the first of `delimiters` that the first line contains. The line is a header when one of its fields
    is among `header_words`; what stands after a colon in a field (`user_id:token`) is its type, and ignored.

    Raises ImporterError when no delimiter occurs.
    """
    with open_text(path) as file:
        first = file.readline().rstrip("\r\n")
    delimiter = next((candidate for candidate in delimiters if candidate in first), None)
    if delimiter is None:
        shown = " ".join(repr(candidate) for candidate in delimiters)
        raise ImporterError(f"{path}: the first line has none of the delimiters {shown}: {first[:80]!r}")
    fields = next(_split(iter([first]), delimiter))
    names = tuple(field.split(":")[0].strip().lower() for field in fields)
    return TableFile(path, delimiter, names if any(name in header_words for name in names) else None)


def _split(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    if delimiter == ",":
        return csv.reader(lines)
    return (stripped.split(delimiter) if (stripped := line.rstrip("\r\n")) else [] for line in lines)


def is_gzip(path: Path) -> bool:
    """Whether the file is gzipped, whatever its name says."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _is_utf8(path: Path) -> bool:
    opener = gzip.open if is_gzip(path) else open
    with opener(path, "rb") as file:
        while block := file.read(SNIFFED_BYTES):
            # A block may end inside a character: the rest of the line completes it.
            try:
                (block + file.readline()).decode("utf-8")
            except UnicodeDecodeError:
                return False
    return True
