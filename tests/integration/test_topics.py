"""Topics on a real log: made once, compared afterwards."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.settings import TopicSettings
from streams.admin import check_topics, init_topics
from streams.errors import BrokerUnavailableError, TopicMismatchError
from streams.topics import DEAD_LETTER, ITEMS, SCHEMA, SIGNALS, all_topics
from tests.brokers import Broker
from tests.server_process import free_port

SPECS = all_topics(TopicSettings(partitions=3))


def make_topic(bootstrap: str, name: str, partitions: int, config: dict[str, str]) -> None:
    """A topic made by somebody else before us."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config)
    admin.create_topics([topic])[name].result(15)


def test_topics_are_made_as_declared_and_a_second_time_changes_nothing(broker: Broker) -> None:
    """Partition counts and every declared setting are what the log itself reports."""
    missing = check_topics(broker.bootstrap, SPECS)
    assert [difference.topic for difference in missing] == [spec.name for spec in SPECS]
    assert all(difference.severity == "error" for difference in missing)

    assert init_topics(broker.bootstrap, SPECS) == []
    assert init_topics(broker.bootstrap, SPECS) == []
    assert check_topics(broker.bootstrap, SPECS) == []

    topics = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=10).topics
    assert {spec.name: len(topics[spec.name].partitions) for spec in SPECS} == {
        spec.name: spec.partitions for spec in SPECS
    }
    assert len(topics[SCHEMA].partitions) == 1


def test_other_settings_of_an_existing_topic_are_reported_and_left(broker: Broker) -> None:
    """Retention is the operator's; we say what differs and how to change it."""
    make_topic(broker.bootstrap, DEAD_LETTER, 3, {"retention.ms": "1000", "cleanup.policy": "delete"})

    differences = {d.what: d for d in init_topics(broker.bootstrap, SPECS)}

    assert set(differences) <= {"retention.ms", "retention.bytes", "max.message.bytes"}
    retention = differences["retention.ms"]
    assert (retention.topic, retention.found, retention.severity) == (DEAD_LETTER, "1000", "warning")
    assert "kafka-configs" in retention.advice
    assert check_topics(broker.bootstrap, SPECS) == list(differences.values())


def test_another_number_of_partitions_is_an_error_that_says_what_to_do(broker: Broker) -> None:
    """The other topics are made all the same, so that one command shows every fault."""
    make_topic(broker.bootstrap, SIGNALS, 5, {})

    with pytest.raises(
        TopicMismatchError, match=r"tidal\.signals: number of partitions is 5, wanted 3"
    ) as raised:
        init_topics(broker.bootstrap, SPECS)

    assert "set topics.partitions to 5" in str(raised.value)
    assert ITEMS in AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=10).topics


def test_a_log_that_is_away_is_named() -> None:
    """Nothing listens on the port."""
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerUnavailableError, match=address):
        init_topics(address, SPECS, timeout_s=0.5)
