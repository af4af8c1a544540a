"""What became of an erasure: rows erased by table, whether disks are clean, and what the log still has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from materializers.materializer import Scope
from materializers.rows.erasures import (
    EVERYWHERE,
    TABLE,
    ErasurePart,
    ErasureRow,
    decode_erasure,
    erasure_key,
)
from queryd.hot.tables import Tables
from schemas.records.forget_record import erasure_name, parse_erasure
from schemas.settings import TopicSettings
from streams.topics import BY_ITEM, DEAD_LETTER, RELATIONSHIPS, SHARDS, SIGNALS, USERS, changelog_topic

COMPACTION = "compaction"


class ErasureReads:
    """Reports from the partitions' rows. No report names the user."""

    def __init__(self, tables: Tables, topics: TopicSettings) -> None:
        self._tables = tables
        self._topics = topics

    def report(self, name: str) -> dict[str, Any] | None:
        """The state of an erasure by the name that the delete answered; None if there is no such erasure."""
        source = parse_erasure(name)
        if source is None or source[0] >= self._topics.partitions:
            return None
        parts = list(self._parts(source))
        found = [row for row in parts if row is not None]
        if not found and self._applied(source[0]) >= source[1]:
            return None
        erased, wiped = len(found) == len(parts), all(row.wiped_ms for row in found)
        rows: dict[str, int] = {}
        for row in found:
            for table, count in row.rows.items():
                rows[table] = rows.get(table, 0) + count
        asked_ms = min((row.at_ms for row in found), default=None)
        return {
            "erasure": erasure_name(source),
            "state": "done" if erased and wiped else "erased" if erased else "pending",
            "asked_ms": asked_ms,
            "wiped_ms": max(row.wiped_ms for row in found) if erased and wiped else None,
            "parts": {
                "erased": len(found),
                "wiped": sum(row.wiped_ms > 0 for row in found),
                "of": len(parts),
            },
            "rows": dict(sorted(rows.items())),
            "remains": [] if asked_ms is None else list(self._remains(asked_ms)),
        }

    def _parts(self, source: tuple[int, int]) -> Iterator[ErasureRow | None]:
        keys = [(source[0], erasure_key(source, part)) for part in ErasurePart if part not in EVERYWHERE]
        for part in EVERYWHERE:
            key = erasure_key(source, part)
            keys.extend((partition, key) for partition in range(self._topics.partitions))
        for row in self._tables.get_many(TABLE, keys):
            yield None if row is None else decode_erasure(row)

    def _applied(self, partition: int) -> int:
        return self._tables.applied(Scope.ENTITY, partition).get(USERS, -1)

    def _remains(self, asked_ms: int) -> Iterator[dict[str, Any]]:
        """Topics whose records may still name the user; ``until_ms`` None = as long as they are kept."""
        kept = {
            SIGNALS: self._topics.signals_retention_ms,
            BY_ITEM: self._topics.by_item_retention_ms,
            DEAD_LETTER: self._topics.dead_letter_retention_ms,
        }
        for topic, retention_ms in kept.items():
            until_ms = None if retention_ms < 0 else asked_ms + retention_ms
            yield {"topic": topic, "until": "retention", "until_ms": until_ms}
        for topic in (USERS, RELATIONSHIPS, *(changelog_topic(self._topics.app, each) for each in SHARDS)):
            yield {"topic": topic, "until": COMPACTION, "until_ms": None}
