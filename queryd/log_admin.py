"""The client with which queryd asks the log about offsets and topics.

Offsets are asked with a consumer that never subscribes, and so joins no group. librdkafka's admin client can
tell them too, but when a log dies while it looks for a group's coordinator, it may end the whole process
(`eonce->refcnt > 0`, librdkafka issue 4605): queryd has to outlive its log.

librdkafka's clients have been seen to stay silent for minutes after a log was away, though the log answered
everybody else. So a client that has failed once is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, re-exported without __all__
    AdminClient,
    ConfigResource,
    ResourceType,
)

from streams.broker_security import broker_options
from streams.errors import BrokerUnavailableError

REQUEST_S: Final = 5.0
_EARLIEST: Final = -2
_LATEST: Final = -1

Key = tuple[str, int]
"""Topic and partition."""
_T = TypeVar("_T")


class LogClient:
    """Asks for offsets and settings. Every method raises KafkaException when the log does not answer."""

    def __init__(self, brokers: str, group: str) -> None:
        """`group`: whose committed offsets are told."""
        self._options = {**broker_options(brokers), "log_level": 0, "reconnect.backoff.max.ms": 500}
        # Ends are those of the log: also of what a transaction has not committed yet.
        reading = {"isolation.level": "read_uncommitted", "enable.auto.commit": False}
        self._consumer = Consumer({**self._options, **reading, "group.id": group})

    def partitions(self, topics: Iterable[str]) -> list[Key]:
        """All partitions of the topics, of those that there are."""
        known = self._consumer.list_topics(timeout=REQUEST_S).topics
        return [(topic, part) for topic in topics if topic in known for part in known[topic].partitions]

    def starts(self, keys: Sequence[Key]) -> dict[Key, int]:
        """The first offset that each partition still has."""
        return self._offsets(keys, _EARLIEST)

    def ends(self, keys: Sequence[Key]) -> dict[Key, int]:
        """The offset that each partition's next record will get."""
        return self._offsets(keys, _LATEST)

    def first_since(self, keys: Sequence[Key], at_ms: int) -> dict[Key, int]:
        """The first offset whose record is not older than `at_ms`; -1 in a partition without one."""
        return self._offsets(keys, max(0, at_ms))

    def committed(self, keys: Sequence[Key]) -> dict[Key, int | None]:
        """What the group has committed; None where it has not."""
        if not keys:
            return {}
        found = self._consumer.committed([TopicPartition(*key) for key in keys], timeout=REQUEST_S)
        return {key: offset if offset >= 0 else None for key, offset in _told(found)}

    def settings(self, topics: Iterable[str]) -> dict[str, Mapping[str, str]]:
        """Each topic's settings by name. Raises TimeoutError as well."""
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
        client = AdminClient(self._options)  # its questions end with it
        asked = client.describe_configs(resources, request_timeout=REQUEST_S)
        return {
            resource.name: {name: entry.value for name, entry in future.result(REQUEST_S).items()}
            for resource, future in asked.items()
        }

    def _offsets(self, keys: Sequence[Key], at: int) -> dict[Key, int]:
        """The protocol's own question: a time in ms, or one of the two that mean an end of the partition."""
        if not keys:
            return {}
        asked = [TopicPartition(*key, at) for key in keys]
        return dict(_told(self._consumer.offsets_for_times(asked, timeout=REQUEST_S)))


def _told(found: Iterable[TopicPartition]) -> Iterable[tuple[Key, int]]:
    for each in found:
        if each.error is not None:
            raise KafkaException(each.error)
        yield (each.topic, each.partition), each.offset


class LogAdmin:
    """Asks with one client until it fails, then with a new one. One thread at a time may use it."""

    def __init__(self, brokers: str, group: str) -> None:
        self._brokers = brokers
        self._group = group
        self._client: LogClient | None = None

    def ask(self, question: Callable[[LogClient], _T]) -> _T:
        """What the question found; raises BrokerUnavailableError when the log does not answer it."""
        client = self._client or LogClient(self._brokers, self._group)
        self._client = None
        try:
            found = question(client)
        except KafkaException as error:
            raise BrokerUnavailableError(str(error.args[0].str())) from error
        except TimeoutError as error:  # the future's own: the client has not even said that it failed
            raise BrokerUnavailableError("no answer in time") from error
        self._client = client
        return found
