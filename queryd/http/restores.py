"""What the workers still have to restore, read from what they last wrote of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FRESH_MS = 15_000
"""Workers write their status each second; an older one is of a process that is gone."""


def unfinished(workers: Mapping[str, Any], now_ms: int) -> list[str]:
    """Why the tables are not complete yet; empty when every partition of every living worker is restored."""
    living = {name: one for name, one in workers.items() if now_ms - one.get("written_ms", 0) <= FRESH_MS}
    if not any(worker.get("partitions") for worker in living.values()):
        waiting = [text for name, worker in living.items() for text in _restores(name, worker)]
        return waiting or ["no worker holds a partition yet"]
    return [text for name, worker in living.items() for text in _restores(name, worker)]


def _restores(name: str, worker: Mapping[str, Any]) -> list[str]:
    restoring = worker.get("restoring", {}).values()
    if restoring:
        rows = sum(progress.get("rows", 0) for progress in restoring)
        left = [progress["remaining_s"] for progress in restoring if progress.get("remaining_s") is not None]
        eta = f", about {max(left):.0f} s left" if left else ""
        return [f"{name} restores {len(restoring)} partitions: {rows:,} rows so far{eta}"]
    acquiring = worker.get("acquiring", ())
    return [f"{name} acquires partitions {', '.join(map(str, acquiring))}"] if acquiring else []
