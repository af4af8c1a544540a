"""What queryd asks its log: ends, beginnings, offsets at a time, what the workers' group has committed."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # no __all__

from queryd.log_admin import LogAdmin, LogClient
from streams.errors import BrokerUnavailableError
from tests.brokers import Broker
from tests.server_process import free_port

TOPIC, GROUP = "asked", "workers"
KEYS = [(TOPIC, 0), (TOPIC, 1)]


@pytest.fixture
def client(broker: Broker) -> LogClient:
    """Five records in partition 0, a second apart, the first two deleted, three of them read by the group."""
    options: dict[str, str | int | float | bool] = {"bootstrap.servers": broker.bootstrap}
    admin = AdminClient(options)
    admin.create_topics([NewTopic(TOPIC, 2, config={"retention.ms": "-1"})])[TOPIC].result(15)
    producer = Producer(options)
    for second in range(5):
        producer.produce(TOPIC, b"v", partition=0, timestamp=(1 + second) * 1000)
    assert producer.flush(15) == 0
    begin = TopicPartition(TOPIC, 0, 2)
    admin.delete_records([begin])[begin].result(15)
    reader = Consumer({**options, "group.id": GROUP})
    reader.commit(offsets=[TopicPartition(TOPIC, 0, 3)], asynchronous=False)
    reader.close()
    return LogClient(broker.bootstrap, GROUP)


def test_it_tells_what_the_log_has(client: LogClient) -> None:
    assert client.partitions([TOPIC, "missing"]) == KEYS
    assert client.starts(KEYS) == {KEYS[0]: 2, KEYS[1]: 0}
    assert client.ends(KEYS) == {KEYS[0]: 5, KEYS[1]: 0}
    assert client.first_since(KEYS, 3500) == {KEYS[0]: 3, KEYS[1]: -1}
    assert client.first_since(KEYS, 9000) == {KEYS[0]: -1, KEYS[1]: -1}
    assert client.committed(KEYS) == {KEYS[0]: 3, KEYS[1]: None}
    assert client.settings([TOPIC])[TOPIC]["retention.ms"] == "-1"
    assert client.ends([]) == client.committed([]) == {}


def test_what_a_transaction_has_not_committed_is_in_the_log_too(broker: Broker, client: LogClient) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": "open"})
    producer.init_transactions(15)
    producer.begin_transaction()
    producer.produce(TOPIC, b"v", partition=1)
    assert producer.flush(15) == 0
    assert client.ends(KEYS)[KEYS[1]] == 1
    producer.abort_transaction(15)


def test_an_error_of_the_log_is_that_it_is_not_available() -> None:
    admin = LogAdmin(f"127.0.0.1:{free_port()}", GROUP)

    def asked(client: LogClient) -> None:
        raise TimeoutError

    with pytest.raises(BrokerUnavailableError, match="no answer in time"):
        admin.ask(asked)
