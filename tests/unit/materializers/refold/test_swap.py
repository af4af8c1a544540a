"""How a rebuild and a worker speak, and what happens when either falls silent."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from materializers.refold.swap_files import (
    LEASE_S,
    Held,
    Offer,
    Outcome,
    Request,
    SwapError,
    SwapFolder,
    TableRows,
    requests,
)
from materializers.refold.swapper import Swapper
from tests.memory_rows import MemoryRows


@dataclass
class Owner:
    """Remembers what it was asked."""

    generation: int = 1
    lost: bool = False
    flush_number: int = 7
    replaced: list[TableRows] = field(default_factory=list)
    held: int = 0
    released: int = 0

    async def hold(self, partition: int, generation: int) -> Any:
        self.held += generation == self.generation
        return object() if generation == self.generation else None

    async def replace_rows(self, state: Any, rows: TableRows) -> int:
        self.replaced.append(rows)
        return 1

    async def release(self, state: Any) -> None:
        self.released += 1

    def owns(self, state: Any) -> bool:
        return not self.lost


def _rows(*keys: bytes) -> MemoryRows:
    rows = MemoryRows()
    rows.tables["t"] = {key: b"new " + key for key in keys}
    return rows


async def _until(folder: SwapFolder, kind: Any) -> Any:
    for _ in range(500):
        if (message := folder.get(kind)) is not None:
            return message
        await asyncio.sleep(0.01)
    raise AssertionError(f"no {kind.__name__}")


async def _serving(tmp_path: Path, owner: Owner) -> tuple[SwapFolder, asyncio.Task[None]]:
    folder = SwapFolder(tmp_path, 3)
    folder.put(Request("x", ["v"], generation=1))
    return folder, asyncio.create_task(Swapper(tmp_path, owner).run())


def test_rows_come_back_as_they_were_written_and_stale_ones_as_deletions(tmp_path: Path) -> None:
    folder = SwapFolder(tmp_path, 3)
    folder.put(Request("x", ["v"], 1))
    offer = folder.write_rows("x", _rows(b"a", b"b"), {"t": {b"b", b"gone"}, "empty": set()})
    assert offer.rows == 2
    assert folder.read_rows(offer) == {
        "t": {b"a": b"new a", b"b": b"new b", b"gone": None},
        "empty": {},
    }
    path = folder.path / "rows.bin"
    path.write_bytes(path.read_bytes().replace(b"new a", b"bad a"))
    with pytest.raises(SwapError, match="is not what was offered"):
        folder.read_rows(offer)


async def test_a_partition_is_held_swapped_and_released(tmp_path: Path) -> None:
    owner = Owner()
    folder, serving = await _serving(tmp_path, owner)
    assert await _until(folder, Held) == Held("x", 7)
    assert (owner.held, owner.released) == (1, 0)
    folder.put(folder.write_rows("x", _rows(b"a"), {"t": set()}))
    assert await _until(folder, Outcome) == Outcome("x", rows=1, vanished=1)
    assert owner.replaced == [{"t": {b"a": b"new a"}}]
    assert owner.released == 1
    await asyncio.sleep(0.3)
    assert owner.held == 1, "an answered request is not served again"
    serving.cancel()


async def test_a_request_for_another_generation_is_refused(tmp_path: Path) -> None:
    folder, serving = await _serving(tmp_path, Owner(generation=2))
    assert "acquired anew" in ((await _until(folder, Outcome)).failure or "")
    serving.cancel()


async def test_a_partition_that_moves_while_it_is_held_keeps_its_rows(tmp_path: Path) -> None:
    owner = Owner()
    folder, serving = await _serving(tmp_path, owner)
    await _until(folder, Held)
    owner.lost = True
    assert (await _until(folder, Outcome)).failure
    assert owner.replaced == []
    assert owner.released == 1
    serving.cancel()


async def test_a_rebuild_that_dies_lets_the_partition_go(tmp_path: Path) -> None:
    owner = Owner()
    folder, serving = await _serving(tmp_path, owner)
    await _until(folder, Held)
    long_ago_s = time.time() - LEASE_S - 1
    os.utime(folder.path / "request.json", (long_ago_s, long_ago_s))
    for _ in range(300):
        if owner.released:
            break
        await asyncio.sleep(0.01)
    assert owner.released == 1
    assert owner.replaced == []
    await asyncio.sleep(0.05)
    assert requests(tmp_path) == []
    serving.cancel()


async def test_rows_that_were_damaged_on_the_way_are_refused(tmp_path: Path) -> None:
    owner = Owner()
    folder, serving = await _serving(tmp_path, owner)
    await _until(folder, Held)
    folder.write_rows("x", _rows(b"a"), {"t": set()})
    folder.put(Offer("x", ["t"], 1, "0" * 64))
    assert "is not what was offered" in ((await _until(folder, Outcome)).failure or "")
    assert owner.replaced == []
    assert owner.released == 1
    serving.cancel()
