"""Every topic of the engine: name, partitions, and the settings that its data needs.

| topic | key → partition | cleanup |
|---|---|---|
| tidal.signals | user (item of an anonymous event) | time; never compacted |
| tidal.signals.by-item | item | time, short: it can be made again from tidal.signals |
| tidal.items, .users, .creators | the entity | compacted; a null value deletes |
| tidal.relationships | source entity | compacted by (type, source, target) |
| tidal.schema | one partition | compacted |
| tidal.dead-letter | as the refused record | time |
| <app>-<shard>-changelog | partition of the shard | compacted by row |
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from schemas.settings import TopicSettings

SIGNALS: Final = "tidal.signals"
BY_ITEM: Final = "tidal.signals.by-item"
ITEMS: Final = "tidal.items"
USERS: Final = "tidal.users"
CREATORS: Final = "tidal.creators"
RELATIONSHIPS: Final = "tidal.relationships"
SCHEMA: Final = "tidal.schema"
DEAD_LETTER: Final = "tidal.dead-letter"

ENTITY_TOPICS: Final[Mapping[str, str]] = MappingProxyType(
    {"item": ITEMS, "user": USERS, "creator": CREATORS}
)
SHARDS: Final = ("user", "item", "entity")

MIB: Final = 1 << 20

# A batch of the engine's own (forwarded or re-routed events, a checkpoint) may be larger than what producers
# send: one source record's entries are never split. This is also the embedded log's bound.
INTERNAL_MESSAGE_BYTES_MAX: Final = 8 * MIB
# Only closed segments are compacted: Kafka's default of 1 GiB would leave a small site's changelog as it is.
COMPACTED_SEGMENT_BYTES: Final = 64 * MIB


class TopicSpec(msgspec.Struct, frozen=True):
    """A topic as it must be. `config` holds only what matters to us, under Kafka's names."""

    name: str
    partitions: int
    config: dict[str, str]
    replication: int = -1


def changelog_topic(app: str, shard: Literal["user", "item", "entity"]) -> str:
    """The changelog of a shard's tables."""
    return f"{app}-{shard}-changelog"


def all_topics(settings: TopicSettings) -> tuple[TopicSpec, ...]:
    """Every topic that must exist before anything else starts."""
    count = settings.partitions
    wanted = [
        (SIGNALS, count, _internal(_kept_for(settings.signals_retention_ms))),
        (BY_ITEM, count, _internal(_kept_for(settings.by_item_retention_ms))),
        *((name, count, _compacted(settings)) for name in (*ENTITY_TOPICS.values(), RELATIONSHIPS)),
        (SCHEMA, 1, _compacted(settings)),
        (DEAD_LETTER, count, _internal(_kept_for(settings.dead_letter_retention_ms))),
        *((changelog_topic(settings.app, shard), count, _internal(_compacted(settings))) for shard in SHARDS),
    ]
    return tuple(TopicSpec(name, parts, config, settings.replication) for name, parts, config in wanted)


def _kept_for(retention_ms: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(retention_ms), "retention.bytes": "-1"}


def _compacted(settings: TopicSettings) -> dict[str, str]:
    """What was replaced or deleted goes in a bounded time, deletes themselves after as much again: whoever is
    erased does not stay in a topic that hardly grows.
    """
    return {
        "cleanup.policy": "compact",
        "segment.bytes": str(COMPACTED_SEGMENT_BYTES),
        "max.compaction.lag.ms": str(settings.compaction_lag_ms_max),
        "delete.retention.ms": str(settings.compaction_lag_ms_max),
    }


def _internal(config: dict[str, str]) -> dict[str, str]:
    """A topic that the engine itself writes large batches to."""
    return {**config, "max.message.bytes": str(INTERNAL_MESSAGE_BYTES_MAX)}
