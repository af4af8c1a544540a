"""What the C library does with memory that is free again: told to give it back, where it can be told.

By default glibc has up to eight arenas for each core, each of which keeps what its threads once needed, and
takes arrays of up to 32 MB from them once one of that size has been freed. Elsewhere nothing of this happens.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
"""Numbers of ``mallopt``, from glibc's malloc.h."""

ARENAS_MAX: Final = 2
MAPPED_BYTES_MIN: Final = 4 << 20
"""Arrays of at least this size are the system's own again as soon as they are freed; temporary ones are
smaller.
"""
_TOP_BYTES_MAX: Final = 64 << 20
_FREE_BYTES_MAX: Final = 128 << 20


class _Counts(ctypes.Structure):
    """``struct mallinfo2``; sizes in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def _library() -> Any:
    library = ctypes.CDLL(None)
    if not all(hasattr(library, name) for name in ("mallopt", "mallinfo2", "malloc_trim")):
        return None
    library.mallinfo2.restype = _Counts
    return library


def bound_arenas() -> bool:
    """Bound what the C library keeps of freed memory; call it before threads begin. Whether it could."""
    library = _library()
    if library is None:
        return False
    options = (
        (_ARENA_MAX, ARENAS_MAX),
        (_MMAP_THRESHOLD, MAPPED_BYTES_MIN),
        (_TRIM_THRESHOLD, _TOP_BYTES_MAX),
    )
    return all(library.mallopt(number, value) == 1 for number, value in options)


def malloc_counts() -> dict[str, int]:
    """Bytes that the C library has handed out, of that mapped one by one, and that it keeps free."""
    library = _library()
    if library is None:
        return {}
    counts = library.mallinfo2()
    return {
        "used": int(counts.uordblks + counts.hblkhd),
        "mapped": int(counts.hblkhd),
        "free": int(counts.fordblks),
    }


def give_back() -> bool:
    """Return free pages to the system if they are many; whether it did. Blocks for some milliseconds."""
    library = _library()
    if library is None or library.mallinfo2().fordblks <= _FREE_BYTES_MAX:
        return False
    library.malloc_trim(0)
    return True
