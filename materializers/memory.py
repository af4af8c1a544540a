"""Where a worker's memory goes, by part, for its status: what is held in Python, in RocksDB, and the rest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from materializers.allocator import malloc_counts
from materializers.shards.context import WorkerContext
from materializers.tables.database import Database
from materializers.tables.partition import PartitionState
from materializers.weighing import Scale

OTHER: Final = "other"
"""Small parts together."""
_NAMED_BYTES_MIN: Final = 1 << 20
_RESIDENT: Final = re.compile(r"^(RssAnon|RssFile):\s+(\d+) kB", re.MULTILINE)
_STATUS: Final = Path("/proc/self/status")


def memory_by_part(
    context: WorkerContext, states: Iterable[PartitionState], database: Database
) -> dict[str, Any]:
    """Bytes: ``parts`` (largest first), ``malloc``, and ``anonymous`` and ``files`` as the system counts.

    What ``anonymous`` has beyond the parts is Python itself, producers, records on their way, and free memory
    that has not been given back (``malloc``). Takes some milliseconds; call it on the event loop.
    """
    states = list(states)
    parts: Counter[str] = Counter()
    shared = (context, context.schema, context.registry, context.forwarder, context.clock, database)
    scale = Scale(without=shared)
    names = ("items", "users", "profiles", "creators")
    for name in names:
        parts[f"ids: {name}"] += scale.weigh(getattr(context, name))
    parts["ids: homes"] += scale.weigh((context.user_homes, context.item_homes))
    parts["item cards"] += scale.weigh(context.cards)
    for state in states:
        parts["rows for the checkpoint"] += state.bytes_uncheckpointed
        parts["records to acknowledge"] += scale.weigh((state.folded_batches, state.flushed_batches))
        for shard in state.shards.values():
            for name, part in _parts_of(shard):
                parts[name] += scale.weigh(part)
    parts.update({f"RocksDB: {name}": size for name, size in database.memory().items()})
    return {"parts": _named(parts), "malloc": malloc_counts(), **resident()}


def resident() -> dict[str, int]:
    """Resident bytes of this process: ``anonymous`` and ``files``; empty where the system does not tell."""
    if not _STATUS.exists():
        return {}
    names = {"RssAnon": "anonymous", "RssFile": "files"}
    found = _RESIDENT.findall(_STATUS.read_text(encoding="utf-8", errors="replace"))
    return {names[kind]: int(size) * 1024 for kind, size in found}


def _parts_of(shard: Any) -> Iterator[tuple[str, object]]:
    """A shard's attributes, and its views one by one."""
    for attribute, part in vars(shard).items():
        if attribute == "_views":
            yield from ((f"view: {view.name}", view) for view in part)
        else:
            yield f"{shard.scope} shard: {attribute.strip('_')}", part


def _named(parts: Counter[str]) -> dict[str, int]:
    large = {name: size for name, size in parts.most_common() if size >= _NAMED_BYTES_MIN}
    return large | {OTHER: parts.total() - sum(large.values())}
