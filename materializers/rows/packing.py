"""Columns of integers, floats and strings as compact bytes.

Each integer column takes the narrowest width that holds it, or one value when all are equal. That makes a
block of counters less than half as large as fixed widths would, and what is smaller is written, replayed
and read sooner. Layout: ``[version u8][n u32]`` and then each column as ``[form u8][data]``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from materializers.rows.errors import RowFormatError, check_version

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]

_HEADER: Final = struct.Struct("<BI")
_WIDTHS: Final = (1, 2, 4, 8)
_CONSTANT: Final = 0x80
_SIGNED: Final = 0x40
_WIDTH_BITS: Final = 0x0F
ROWS_MAX: Final = 1 << 24
"""No section or block is larger; a greater number means damage, and must not allocate."""


class Packer:
    """Writes columns of ``n`` rows; readers must ask for them in the same order."""

    def __init__(self, version: int, n: int) -> None:
        if n > ROWS_MAX:
            raise ValueError(f"{n} rows in one packed section, at most {ROWS_MAX} are allowed: split it")
        self._n = n
        self._parts = [_HEADER.pack(version, n)]

    def ints(self, column: Ints) -> Packer:
        """Any integers that fit int64, [n]."""
        assert len(column) == self._n
        if self._n:
            self._parts.append(_packed(column))
        return self

    def floats(self, column: F64) -> Packer:
        """f64[n] or f64[n, k], as they are."""
        assert len(column) == self._n
        self._parts.append(np.ascontiguousarray(column, dtype="<f8").tobytes())
        return self

    def words(self, column: U64) -> Packer:
        """u64[n] as they are, eight bytes each: what a byte string can be searched for."""
        assert len(column) == self._n
        self._parts.append(np.ascontiguousarray(column, dtype="<u8").tobytes())
        return self

    def scalar(self, value: int) -> Packer:
        """One signed number that is not a column."""
        self._parts.append(value.to_bytes(8, "little", signed=True))
        return self

    def flags(self, value: int) -> Packer:
        """One byte of flags."""
        self._parts.append(bytes((value,)))
        return self

    def list_of_ints(self, column: Ints) -> Packer:
        """A column of its own length, such as a dictionary of codes."""
        self._parts.append(len(column).to_bytes(4, "little"))
        if len(column):
            self._parts.append(_packed(column))
        return self

    def strings(self, column: Sequence[str]) -> Packer:
        """n strings as UTF-8."""
        return self.blobs([text.encode() for text in column])

    def blobs(self, column: Sequence[bytes]) -> Packer:
        """n byte strings."""
        assert len(column) == self._n
        self.ints(np.array([len(blob) for blob in column], dtype=np.int64))
        self._parts.extend(column)
        return self

    def done(self) -> bytes:
        return b"".join(self._parts)


class Unpacker:
    """Reads what a ``Packer`` wrote.

    Raises (from every method):
        RowFormatError: another version, or the bytes end too early.
    """

    def __init__(self, what: str, payload: bytes, version: int) -> None:
        self._what = what
        self._payload = payload
        self._at = 0
        stored, self.n = _HEADER.unpack(self._take(_HEADER.size))
        check_version(what, stored, version)
        if self.n > ROWS_MAX:
            raise RowFormatError(what, f"claims {self.n} rows, at most {ROWS_MAX} are written")

    def ints(self) -> I64:
        """The next integer column, i64[n]."""
        return self._ints(self.n)

    def floats(self, width: int | None = None) -> F64:
        """f64[n], or f64[n, width]."""
        count = self.n * (1 if width is None else width)
        column = np.frombuffer(self._take(8 * count), dtype="<f8").astype(np.float64)
        return column if width is None else column.reshape(self.n, width)

    def words(self) -> U64:
        """u64[n]."""
        return np.frombuffer(self._take(8 * self.n), dtype="<u8").astype(np.uint64)

    def scalar(self) -> int:
        return int.from_bytes(self._take(8), "little", signed=True)

    def flags(self) -> int:
        return self._take(1)[0]

    def list_of_ints(self) -> I64:
        return self._ints(int.from_bytes(self._take(4), "little"))

    def strings(self) -> list[str]:
        return [blob.decode() for blob in self.blobs()]

    def blobs(self) -> list[bytes]:
        return [self._take(length) for length in self.ints().tolist()]

    def end(self) -> None:
        """Everything has been read.

        Raises:
            RowFormatError: bytes are left over.
        """
        if self._at != len(self._payload):
            raise RowFormatError(self._what, f"{len(self._payload) - self._at} bytes too many")

    def _ints(self, n: int) -> I64:
        if n == 0:
            return np.empty(0, dtype=np.int64)
        form = self._take(1)[0]
        width = form & _WIDTH_BITS
        if width not in _WIDTHS:
            raise RowFormatError(self._what, f"unknown column form {form:#x}")
        dtype = f"<{'i' if form & _SIGNED else 'u'}{width}"
        if form & _CONSTANT:
            value = np.frombuffer(self._take(width), dtype=dtype).astype(np.int64)
            return np.repeat(value, n)
        return np.frombuffer(self._take(width * n), dtype=dtype).astype(np.int64)

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if size < 0 or end > len(self._payload):
            raise RowFormatError(self._what, f"ends after {len(self._payload)} bytes, {end} are needed")
        piece = self._payload[self._at : end]
        self._at = end
        return piece


def packed_runs(column: Ints, edges: Sequence[int]) -> list[bytes]:
    """What ``Packer.ints`` writes for each of many runs: the i-th from ``edges[i]`` to ``edges[i + 1]``, not
    empty.
    """
    if len(edges) < 2:
        return []
    starts = np.asarray(edges[:-1])
    lows = np.minimum.reduceat(column, starts).tolist()
    highs = np.maximum.reduceat(column, starts).tolist()
    narrowed: dict[int, tuple[bytes, int]] = {}
    runs = []
    for low, high, start, end in zip(lows, highs, edges[:-1], edges[1:], strict=True):
        form = _form(low, high)
        if form not in narrowed:
            cast = column.astype(_dtype(form))
            narrowed[form] = cast.tobytes(), cast.itemsize
        values, width = narrowed[form]
        if low == high:
            runs.append(bytes((form | _CONSTANT,)) + values[start * width : (start + 1) * width])
        else:
            runs.append(bytes((form,)) + values[start * width : end * width])
    return runs


def _packed(column: Ints) -> bytes:
    low, high = int(column.min()), int(column.max())
    form = _form(low, high)
    dtype = _dtype(form)
    if low == high:
        return bytes((form | _CONSTANT,)) + column[:1].astype(dtype).tobytes()
    return bytes((form,)) + column.astype(dtype).tobytes()


def _form(low: int, high: int) -> int:
    """The narrowest form for values in [low, high]; signed when low is negative."""
    if low >= 0:
        bits, sign = high.bit_length(), 0
    else:
        bits, sign = max((~low).bit_length(), max(high, 0).bit_length()) + 1, _SIGNED
    return sign | (1 if bits <= 8 else 2 if bits <= 16 else 4 if bits <= 32 else 8)


def _dtype(form: int) -> str:
    return f"<{'i' if form & _SIGNED else 'u'}{form & _WIDTH_BITS}"
