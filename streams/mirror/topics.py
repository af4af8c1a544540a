"""Topics, ends and groups of the two logs, by their admin APIs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, re-exported without __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from streams.errors import MirrorError

T = TypeVar("T")
Place = tuple[str, int]

_TIMEOUT_S = 30.0
# While a topic is being filled nothing may be deleted, and what is in front of its first record must be.
_FILLING = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
# What is told to the target even where the source has its default: the defaults may differ.
_ALWAYS = ("cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes")
_DYNAMIC_TOPIC = 1
# Kafka 4 refuses less.
_SEGMENT_BYTES_MIN = 1 << 20


class Cluster:
    """One log."""

    def __init__(self, options: Mapping[str, Any], name: str) -> None:
        self.options = dict(options)
        self.name = name
        self._admin = AdminClient({**options, "log_level": 2})

    def partitions(self) -> dict[str, int]:
        """Number of partitions by topic, without the cluster's own."""
        try:
            topics = self._admin.list_topics(timeout=_TIMEOUT_S).topics
        except KafkaException as error:
            raise MirrorError(f"{self.name} does not answer: {error.args[0].str()}") from error
        return {name: len(topic.partitions) for name, topic in topics.items() if not name.startswith("__")}

    def config(self, topic: str) -> dict[str, str]:
        """What another log has to be told for a topic to behave as here."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = self._await(self._admin.describe_configs([resource])[resource], topic)
        config = {
            name: str(entry.value)
            for name, entry in entries.items()
            if entry.value is not None and (entry.source == _DYNAMIC_TOPIC or name in _ALWAYS)
        }
        if "segment.bytes" in config:
            config["segment.bytes"] = str(max(int(config["segment.bytes"]), _SEGMENT_BYTES_MIN))
        return config

    def create(self, topic: str, partitions: int, config: Mapping[str, str], replication: int) -> None:
        """A topic that is being filled."""
        wanted = NewTopic(
            topic, num_partitions=partitions, replication_factor=replication, config={**config, **_FILLING}
        )
        self._await(self._admin.create_topics([wanted])[topic], topic)

    def fill(self, topic: str) -> None:
        """An existing topic is being filled: keep everything."""
        self._configure(topic, _FILLING)

    def settle(self, topic: str, config: Mapping[str, str]) -> None:
        """The topic is filled: behave as at the source."""
        self._configure(topic, {name: config[name] for name in _FILLING if name in config})

    def _configure(self, topic: str, config: Mapping[str, str]) -> None:
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        self._await(self._admin.incremental_alter_configs([resource])[resource], topic)

    def bounds(self, places: Iterable[Place]) -> dict[Place, tuple[int, int]]:
        """(first offset, next offset) of each partition, as a reader of committed records sees them."""
        asked = [TopicPartition(*place) for place in places]
        earliest, latest = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
        lows = self._admin.list_offsets(dict.fromkeys(asked, earliest))
        highs = self._admin.list_offsets(
            dict.fromkeys(asked, latest), isolation_level=IsolationLevel.READ_COMMITTED
        )
        return {
            (place.topic, place.partition): (
                int(self._await(lows[place], place.topic).offset),
                int(self._await(highs[place], place.topic).offset),
            )
            for place in asked
        }

    def delete_before(self, offsets: Mapping[Place, int]) -> None:
        """Delete what lies in front of these offsets."""
        asked = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        for place, future in self._admin.delete_records(asked).items():
            self._await(future, place.topic)

    def committed(self) -> dict[str, list[TopicPartition]]:
        """Committed offsets by group."""
        listing = self._await(self._admin.list_consumer_groups(), "groups")
        groups = [group.group_id for group in listing.valid]
        found = {}
        for group in groups:
            asked = [ConsumerGroupTopicPartitions(group)]
            answer = self._await(self._admin.list_consumer_group_offsets(asked)[group], group)
            found[group] = [place for place in answer.topic_partitions or [] if place.offset >= 0]
        return found

    def commit(self, group: str, offsets: list[TopicPartition]) -> None:
        """Set offsets of a group without members."""
        asked = [ConsumerGroupTopicPartitions(group, offsets)]
        answer = self._await(self._admin.alter_consumer_group_offsets(asked)[group], group)
        refused = [place for place in answer.topic_partitions or [] if place.error is not None]
        if refused:
            raise MirrorError(f"{self.name}, group {group}: {refused[0].error}")

    def _await(self, future: Future[T], what: str) -> T:
        try:
            return future.result(_TIMEOUT_S)
        except (KafkaException, TimeoutError) as error:
            reason = error.args[0].str() if isinstance(error, KafkaException) else "no answer"
            raise MirrorError(f"{self.name}, {what}: {reason}") from error
