"""Rows of fixed width: a version byte and little-endian fields, optionally followed by a tail of bytes.

Many rows are encoded at once as one structured array and cut; decoding joins and views them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from materializers.rows.errors import RowFormatError, check_version

Column = npt.NDArray[np.generic]
Field = tuple[str, str] | tuple[str, str, tuple[int, ...]]


class FixedRow:
    """The layout of one table's rows.

    Args:
        what: the table's name, for messages.
        version: goes into the first byte.
        fields: name, little-endian dtype and, for vectors, shape.
        tailed: bytes may follow the fixed part.
    """

    def __init__(self, what: str, version: int, fields: Sequence[Field], *, tailed: bool = False) -> None:
        self.what = what
        self.tailed = tailed
        self.version = version
        self.fields = tuple(fields)
        self.dtype = np.dtype([("version", "u1"), *fields])

    @property
    def width(self) -> int:
        """Bytes of a row without its tail."""
        return self.dtype.itemsize

    def encode(self, columns: Mapping[str, Column], tails: Sequence[bytes] | None = None) -> list[bytes]:
        """Rows of equally long columns; ``tails`` are appended one to each."""
        first = self.fields[0][0]
        table = np.empty(len(columns[first]), dtype=self.dtype)
        table["version"] = self.version
        for field in self.fields:
            table[field[0]] = columns[field[0]]
        blob, width = table.tobytes(), self.width
        rows = [blob[at : at + width] for at in range(0, len(blob), width)]
        if tails is None:
            return rows
        return [row + tail for row, tail in zip(rows, tails, strict=True)]

    def decode(self, rows: Sequence[bytes]) -> npt.NDArray[np.void]:
        """A structured array with the layout's fields, one element for each row; tails are left out.

        Raises:
            RowFormatError: a row has another length or another version.
        """
        width = self.width
        lengths = set(map(len, rows))
        if self.tailed and lengths and min(lengths) >= width:
            rows = [row[:width] for row in rows]
        elif lengths - {width}:
            wrong = min(lengths - {width})
            raise RowFormatError(self.what, f"a row of {wrong} bytes, this schema's have {width}")
        table = np.frombuffer(b"".join(rows), dtype=self.dtype)
        for stored in np.unique(table["version"]).tolist():
            check_version(self.what, stored, self.version)
        return table

    def tail(self, row: bytes) -> bytes:
        """What follows the fixed part."""
        return row[self.width :]
