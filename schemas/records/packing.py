"""Columns to bytes and back, compact and little endian. Reading believes nothing: every length is checked.

Integers   ``[mode u8]`` then constant ``[i64]``, narrow ``[base i64][u8|u16|u32 …]`` or wide ``[i64 …]``.
Strings    ``[count u32][size u32]`` and one UTF-8 text, the strings in it divided by NUL; a list in which a
           string has a NUL itself is ``[count u32][2^32 - 1]`` and then written as bytes are.
Bytes      ``[count u32][end u32 …]`` and the bytes, end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas.errors import RecordError

I64 = npt.NDArray[np.int64]

_CONSTANT: Final = 0
_NARROW: Final[dict[int, np.dtype[Any]]] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4")}
_WIDE: Final = 8
_I64: Final = np.dtype("<i8")
_U64: Final = np.dtype("<u8")
_AS_BLOBS: Final = 2**32 - 1
_TOO_LARGE: Final = "a batch holds less than 4 GiB of strings; send smaller batches"


class Packer:
    """Collects the parts of one record."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def u32(self, value: int) -> None:
        self._parts.append(value.to_bytes(4, "little"))

    def integers(self, column: npt.NDArray[Any]) -> None:
        """A column of integers (any dtype that fits i64), in the fewest bytes that hold its range."""
        if not len(column):
            self._parts.append(bytes((_CONSTANT,)) + bytes(8))
            return
        low, high = int(column.min()), int(column.max())
        width = next((width for width in (0, 1, 2, 4) if high - low < 256**width), _WIDE)
        base = low.to_bytes(8, "little", signed=True)
        if width == _WIDE:
            self._parts.append(bytes((_WIDE,)) + column.astype("<i8").tobytes())
        elif width:
            offsets = (column.astype(np.int64) - low).astype(_NARROW[width])
            self._parts.append(bytes((width,)) + base + offsets.tobytes())
        else:
            self._parts.append(bytes((_CONSTANT,)) + base)

    def words(self, column: npt.NDArray[np.uint64]) -> None:
        """A column of u64 without structure, like EntityIds: 8 bytes each."""
        self._parts.append(column.astype("<u8").tobytes())

    def strings(self, strings: Sequence[str]) -> None:
        text = "\0".join(strings)
        self.u32(len(strings))
        if strings and text.count("\0") != len(strings) - 1:
            self.u32(_AS_BLOBS)
            self.blobs([entry.encode() for entry in strings])
            return
        blob = text.encode()
        if len(blob) >= _AS_BLOBS:
            raise ValueError(_TOO_LARGE)
        self.u32(len(blob))
        self._parts.append(blob)

    def blobs(self, blobs: Sequence[bytes]) -> None:
        ends = np.cumsum([len(blob) for blob in blobs], dtype=np.int64)
        if len(ends) and ends[-1] >= 2**32:
            raise ValueError(_TOO_LARGE)
        self.u32(len(blobs))
        self._parts += [ends.astype("<u4").tobytes(), *blobs]

    def content(self) -> bytes:
        return b"".join(self._parts)


class Unpacker:
    """Reads what ``Packer`` wrote, in the same order.

    Raises:
        RecordError: ``truncated_batch`` where the bytes do not hold what they say.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def u32(self, what: str, limit: int = 2**32 - 1) -> int:
        value = int.from_bytes(self._take(4, what), "little")
        if value > limit:
            raise RecordError("truncated_batch", what, f"{value} is more than {limit}")
        return value

    def integers(self, n: int, what: str) -> I64:
        """i64[n]."""
        mode = self._take(1, what)[0]
        if mode == _WIDE:
            return self._array(_I64, n, what).astype(np.int64)
        base = int.from_bytes(self._take(8, what), "little", signed=True)
        if mode == _CONSTANT:
            return np.full(n, base, dtype=np.int64)
        narrow = _NARROW.get(mode)
        if narrow is None or base > 2**63 - 256**mode:
            raise RecordError("truncated_batch", what, f"{mode} is no way to pack integers")
        column = self._array(narrow, n, what).astype(np.int64)
        if base:
            column += base
        return column

    def indexes(self, n: int, below: int, what: str) -> I64:
        """i64[n], each of which is an index of a dictionary with ``below`` entries."""
        column = self.integers(n, what)
        # As unsigned, a negative index is a large one: one comparison checks both ends.
        if n and int(column.view(np.uint64).max()) >= below:
            raise RecordError("truncated_batch", what, f"an index lies beyond the {below} entries")
        return column

    def words(self, n: int, what: str) -> npt.NDArray[np.uint64]:
        """u64[n]."""
        return self._array(_U64, n, what).astype(np.uint64)

    def strings(self, what: str) -> list[str]:
        count = self.u32(what, limit=len(self._content))
        size = self.u32(what)
        try:
            if size == _AS_BLOBS:
                strings = [blob.decode() for blob in self.blobs(what)]
            else:
                text = self._take(size, what).decode()
                strings = text.split("\0") if count or text else []
        except UnicodeDecodeError as error:
            raise RecordError("truncated_batch", what, "a string is no UTF-8") from error
        if len(strings) != count:
            raise RecordError("truncated_batch", what, f"{len(strings)} strings where {count} were announced")
        return strings

    def blobs(self, what: str) -> list[bytes]:
        ends, blob = self._ends_and_blob(what)
        return [blob[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def done(self) -> None:
        """Every byte was read."""
        if self._at != len(self._content):
            rest = len(self._content) - self._at
            raise RecordError("truncated_batch", "", f"{rest} bytes follow the last column")

    def _ends_and_blob(self, what: str) -> tuple[list[int], bytes]:
        count = self.u32(what, limit=len(self._content) // 4)
        ends = self._array(_NARROW[4], count, what)
        if count > 1 and bool((ends[1:] < ends[:-1]).any()):
            raise RecordError("truncated_batch", what, "the ends of its strings do not ascend")
        return ends.tolist(), self._take(int(ends[-1]) if count else 0, what)

    def _take(self, size: int, what: str) -> bytes:
        start = self._advance(size, what)
        return self._content[start : self._at]

    def _array(self, dtype: np.dtype[Any], n: int, what: str) -> npt.NDArray[Any]:
        """A view of the next n entries; read-only, to be copied by the caller."""
        start = self._advance(n * dtype.itemsize, what)
        return np.frombuffer(self._content, dtype=dtype, count=n, offset=start)

    def _advance(self, size: int, what: str) -> int:
        """Passes over ``size`` bytes, which are there; returns where they begin."""
        start, end = self._at, self._at + size
        if end > len(self._content):
            raise RecordError(
                "truncated_batch", what, f"needs {size} bytes, {len(self._content) - start} left"
            )
        self._at = end
        return start
