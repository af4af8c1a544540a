"""Administration by confluent-kafka and kafka-python: topics, settings, records, groups, offsets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, OffsetSpec, ResourceType
from confluent_kafka.cimpl import NewPartitions
from kafka import KafkaAdminClient
from kafka import TopicPartition as PythonPartition
from kafka.admin import NewTopic

from tests.brokers import Broker
from tests.conformance.clients import WAIT_S, admin, consumer, create, read_to_end, send, until


@pytest.fixture
def python_admin(log: Broker) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=log.bootstrap)
    yield client
    client.close()


def config_of(log: Broker, topic: str) -> dict[str, ConfigEntry]:
    asked = admin(log).describe_configs([ConfigResource(ResourceType.TOPIC, topic)])
    described: dict[str, ConfigEntry] = next(iter(asked.values())).result(WAIT_S)
    return described


def change(log: Broker, topic: str, name: str, value: str | None, how: AlterConfigOpType) -> None:
    entry = ConfigEntry(name, value, incremental_operation=how)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    next(iter(admin(log).incremental_alter_configs([resource]).values())).result(WAIT_S)


def refused(error: KafkaException) -> int:
    return int(error.args[0].code())


def test_topics_are_made_grown_and_deleted(log: Broker, topic: str) -> None:
    client = admin(log)
    with pytest.raises(KafkaException) as caught:
        create(log, topic, 1)
    assert refused(caught.value) == KafkaError.TOPIC_ALREADY_EXISTS
    with pytest.raises(KafkaException) as caught:
        create(log, "bad name!", 1)
    assert refused(caught.value) == KafkaError.TOPIC_EXCEPTION
    client.create_partitions([NewPartitions(topic, 6)])[topic].result(WAIT_S)
    until(lambda: len(client.list_topics(topic, WAIT_S).topics[topic].partitions) == 6, lambda: None)
    with pytest.raises(KafkaException) as caught:
        client.create_partitions([NewPartitions(topic, 2)])[topic].result(WAIT_S)
    assert refused(caught.value) == KafkaError.INVALID_PARTITIONS
    client.delete_topics([topic])[topic].result(WAIT_S)
    until(lambda: topic not in client.list_topics(timeout=WAIT_S).topics, lambda: None)
    with pytest.raises(KafkaException) as caught:
        client.delete_topics([topic])[topic].result(WAIT_S)
    assert refused(caught.value) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_settings_are_changed_described_and_taken_back(log: Broker, topic: str) -> None:
    assert config_of(log, topic)["cleanup.policy"].value == "delete"
    assert config_of(log, topic)["cleanup.policy"].is_default
    change(log, topic, "retention.ms", "12345", AlterConfigOpType.SET)
    until(lambda: config_of(log, topic)["retention.ms"].value == "12345", lambda: None)
    assert not config_of(log, topic)["retention.ms"].is_default
    change(log, topic, "retention.ms", None, AlterConfigOpType.DELETE)
    until(lambda: config_of(log, topic)["retention.ms"].is_default, lambda: None)
    for name, value in (("cleanup.policy", "shred"), ("retention.ms", "soon"), ("no.such.setting", "1")):
        with pytest.raises(KafkaException) as caught:
            change(log, topic, name, value, AlterConfigOpType.SET)
        assert refused(caught.value) == KafkaError.INVALID_CONFIG
        with pytest.raises(KafkaException) as caught:
            create(log, f"bad-{name}", 1, {name: value})
        assert refused(caught.value) == KafkaError.INVALID_CONFIG


def test_the_cluster_is_described(log: Broker) -> None:
    cluster = admin(log).describe_cluster().result(WAIT_S)
    assert [f"{node.host}:{node.port}" for node in cluster.nodes] == [log.bootstrap]
    assert f"{cluster.controller.host}:{cluster.controller.port}" == log.bootstrap


def test_deleted_records_are_gone(log: Broker, topic: str) -> None:
    send(log, topic, *(b"%d" % number for number in range(10)))
    first = TopicPartition(topic, 0, 6)
    deleted = next(iter(admin(log).delete_records([first]).values())).result(WAIT_S)
    assert deleted.low_watermark == 6
    assert read_to_end(log, topic) == [b"6", b"7", b"8", b"9"]
    for spec, offset in ((OffsetSpec.earliest(), 6), (OffsetSpec.latest(), 10)):
        listed = next(iter(admin(log).list_offsets({TopicPartition(topic, 0): spec}).values()))
        assert listed.result(WAIT_S).offset == offset
    with pytest.raises(KafkaException) as caught:
        next(iter(admin(log).delete_records([TopicPartition(topic, 0, 11)]).values())).result(WAIT_S)
    assert refused(caught.value) == KafkaError.OFFSET_OUT_OF_RANGE


def test_groups_are_described_and_deleted(log: Broker, topic: str) -> None:
    name = f"described-{topic}"
    member = consumer(log, name, **{"client.id": "one"})
    member.subscribe([topic])
    until(lambda: bool(member.assignment()), lambda: member.poll(0.05))
    client = admin(log)
    described = client.describe_consumer_groups([name])[name].result(WAIT_S)
    assert described.state.name == "STABLE"
    assert described.partition_assignor == "range"
    assert [other.client_id for other in described.members] == ["one"]
    assert len(described.members[0].assignment.topic_partitions) == 4
    assert name in {group.group_id for group in client.list_consumer_groups().result(WAIT_S).valid}
    with pytest.raises(KafkaException) as caught:
        client.delete_consumer_groups([name])[name].result(WAIT_S)
    assert refused(caught.value) == KafkaError.NON_EMPTY_GROUP
    member.close()
    client.delete_consumer_groups([name])[name].result(WAIT_S)
    with pytest.raises(KafkaException) as caught:
        client.delete_consumer_groups([name])[name].result(WAIT_S)
    assert refused(caught.value) == KafkaError.GROUP_ID_NOT_FOUND


def test_offsets_of_an_empty_group_are_set_and_listed(log: Broker, topic: str) -> None:
    group, client = f"offsets-{topic}", admin(log)
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 7), TopicPartition(topic, 2, 9)])
    client.alter_consumer_group_offsets([wanted])[group].result(WAIT_S)
    listed = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(WAIT_S)
    assert {place.partition: place.offset for place in listed.topic_partitions} == {0: 7, 2: 9}


def test_kafka_python_administers(log: Broker, topic: str, python_admin: KafkaAdminClient) -> None:
    name = f"made-{topic}"
    python_admin.create_topics([NewTopic(name, num_partitions=2, replication_factor=1)])
    until(lambda: name in python_admin.list_topics(), lambda: None)
    send(log, name, b"0", b"1", b"2")
    group, place = f"python-{topic}", PythonPartition(name, 0)
    member = consumer(log, group)
    member.commit(offsets=[TopicPartition(name, 0, 2)], asynchronous=False)
    member.close()
    assert python_admin.list_group_offsets(group)[group][place].offset == 2
    assert group in {listed["group_id"] for listed in python_admin.list_groups()}
    python_admin.delete_group_offsets(group, [place])
    assert place not in python_admin.list_group_offsets(group)[group]
    python_admin.delete_groups([group])
    python_admin.delete_records({place: 1})
    assert read_to_end(log, name) == [b"1", b"2"]
    python_admin.delete_topics([name])
    until(lambda: name not in python_admin.list_topics(), lambda: None)
