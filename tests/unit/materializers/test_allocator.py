"""The C library is told what to keep, where it listens."""

from __future__ import annotations

import subprocess
import sys

from materializers.allocator import MAPPED_BYTES_MIN, malloc_counts

_CHILD = """
import numpy as np
from materializers.allocator import MAPPED_BYTES_MIN, bound_arenas, malloc_counts
told = bound_arenas()
for size in (8, 4, 2):  # the first one that is freed would raise glibc's own threshold
    array = np.ones(size * MAPPED_BYTES_MIN, dtype=np.uint8)
    del array
array = np.ones(2 * MAPPED_BYTES_MIN, dtype=np.uint8)
print(told, malloc_counts().get("mapped", 0) >= len(array))
"""


def test_large_arrays_stay_the_systems_own() -> None:
    said = subprocess.run([sys.executable, "-c", _CHILD], check=True, capture_output=True, text=True).stdout
    told, mapped = said.split()
    assert told == mapped or told == "False"


def test_counts_are_sizes_in_bytes() -> None:
    counts = malloc_counts()
    assert not counts or (counts["used"] > MAPPED_BYTES_MIN and counts["used"] >= counts["mapped"])
