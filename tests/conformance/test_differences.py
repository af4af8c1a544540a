"""Where the embedded log is not Apache Kafka: what each says. docs/embedded-log.md says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from kafka import KafkaAdminClient
from kafka.errors import IncompatibleBrokerVersion
from kafka.errors import KafkaError as PythonError

from tests.brokers import Broker
from tests.conformance.clients import WAIT_S, admin, create, until

SERVED = ""


def outcome(act: Callable[[], Any]) -> str:
    """Name of the refusal, "" when there is none."""
    try:
        act()
    except KafkaException as error:
        return str(error.args[0].name())
    except IncompatibleBrokerVersion:
        return "_UNSUPPORTED_FEATURE"
    except PythonError as error:
        return type(error).__name__
    return SERVED


def said(log: Broker, embedded: str, kafka: str) -> str:
    """What this log is expected to say."""
    return embedded if log.variant == "embedded" else kafka


def test_the_next_group_protocol(log: Broker, topic: str) -> None:
    """Kafka serves it; here it is a fatal error at once, instead of a silence for ever."""
    member = Consumer({"bootstrap.servers": log.bootstrap, "group.id": topic, "group.protocol": "consumer"})
    member.subscribe([topic])
    errors: list[KafkaError] = []

    def poll() -> None:
        message = member.poll(0.1)
        if message is not None and (error := message.error()) is not None:
            errors.append(error)

    until(lambda: bool(errors) or bool(member.assignment()), poll)
    member.close()
    assert [error.name() for error in errors] == ([said(log, "_FATAL", SERVED)] if errors else [])
    assert bool(errors) is (log.variant == "embedded")


@pytest.mark.parametrize(
    ("config", "embedded", "kafka"),
    [
        ({"message.timestamp.type": "LogAppendTime"}, "INVALID_CONFIG", SERVED),
        ({"compression.type": "zstd"}, "INVALID_CONFIG", SERVED),
        ({"remote.storage.enable": "true"}, "INVALID_CONFIG", "INVALID_CONFIG"),
        ({"min.insync.replicas": "2"}, "INVALID_CONFIG", SERVED),
        ({"max.message.bytes": "1000"}, SERVED, SERVED),
        ({"flush.messages": "1"}, SERVED, SERVED),
        ({"segment.ms": "60000", "min.compaction.lag.ms": "1"}, SERVED, SERVED),
    ],
)
def test_settings_of_topics(log: Broker, config: dict[str, str], embedded: str, kafka: str) -> None:
    name = f"config-{next(iter(config))}"
    assert outcome(lambda: create(log, name, 1, config)) == said(log, embedded, kafka)


def test_a_second_replica(log: Broker) -> None:
    """Neither has a second node."""
    made = admin(log).create_topics([NewTopic("two-replicas", 1, 2)])["two-replicas"]
    assert outcome(lambda: made.result(WAIT_S)) == "INVALID_REPLICATION_FACTOR"


def test_settings_of_the_broker(log: Broker) -> None:
    asked = admin(log).describe_configs([ConfigResource(ResourceType.BROKER, "1")])
    told = next(iter(asked.values())).result(WAIT_S)
    assert ("num.network.threads" in told) is (log.variant == "kafka")


def test_topic_ids(log: Broker, topic: str) -> None:
    """They came with versions of Metadata and Fetch that are not served here."""
    described = admin(log).describe_topics(TopicCollection([topic]))[topic].result(WAIT_S)
    zero = (
        described.topic_id.get_most_significant_bits() == described.topic_id.get_least_significant_bits() == 0
    )
    assert zero is (log.variant == "embedded")


def test_rights(log: Broker) -> None:
    everything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    told = outcome(lambda: admin(log).describe_acls(everything).result(WAIT_S))
    assert told == said(log, "_UNSUPPORTED_FEATURE", SERVED)


@pytest.mark.parametrize(
    ("what", "act"),
    [
        ("log dirs", lambda client: client.describe_log_dirs()),
        ("transactions", lambda client: client.list_transactions()),
        ("quorum", lambda client: client.describe_metadata_quorum()),
        ("scram users", lambda client: client.describe_user_scram_credentials(None)),
    ],
)
def test_what_only_a_cluster_tells(log: Broker, what: str, act: Callable[[KafkaAdminClient], Any]) -> None:
    client = KafkaAdminClient(bootstrap_servers=log.bootstrap)
    told = outcome(lambda: act(client))
    client.close()
    assert told == said(log, "_UNSUPPORTED_FEATURE", SERVED), what
