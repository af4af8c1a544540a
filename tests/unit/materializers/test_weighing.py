"""Objects are weighed as what they hold, each thing once."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from pyroaring import BitMap

from materializers.interner import Interner
from materializers.weighing import Scale


class _Slotted:
    __slots__ = ("column", "unset")

    def __init__(self, size: int) -> None:
        self.column = np.zeros(size, dtype=np.int64)


def test_arrays_weigh_what_they_allocate_however_they_are_looked_at() -> None:
    whole = np.zeros(10_000, dtype=np.int64)
    assert Scale().weigh(whole[::100]) == pytest.approx(80_000, rel=0.01)
    assert Scale().weigh([whole, whole[1:], {"again": whole}]) == pytest.approx(80_000, rel=0.02)
    assert Scale().weigh(_Slotted(10_000)) == pytest.approx(80_000, rel=0.01)


def test_files_in_memory_weigh_nothing(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "file", np.float32, mode="w+", shape=(1_000_000,))
    assert Scale().weigh([mapped, mapped[:10]]) < 1_000


def test_a_long_container_weighs_as_many_of_its_members_as_it_has() -> None:
    names = {f"user_{number:08}": number + (1 << 40) for number in range(50_000)}
    exact = sys.getsizeof(names) + sum(sys.getsizeof(part) for entry in names.items() for part in entry)
    assert Scale().weigh(names) == pytest.approx(exact, rel=0.02)
    bitmaps = [BitMap(range(0, 60_000, 2)) for _ in range(100)]
    assert Scale().weigh(bitmaps) > 100 * 8_000


def test_what_is_shared_is_counted_by_one() -> None:
    shared = _Slotted(100_000)
    assert Scale(without=[shared]).weigh([shared, _Slotted(10)]) < 2_000
    scale = Scale()
    assert scale.weigh([shared]) > 800_000
    assert scale.weigh([shared]) < 200


def test_an_id_takes_a_known_number_of_bytes() -> None:
    strings = Interner()
    strings.ids([f"user_{number}" for number in range(100_000)])
    assert 90 < Scale().weigh(strings) / 100_000 < 320
