"""A log copied into another one, offsets kept: into a second embedded log, and into a real Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from streams.broker_security import BrokerSecurity
from streams.errors import MirrorError
from streams.mirror import Log, MirrorReport, mirror
from streams.mirror.reader import committed_records
from streams.mirror.runs import Copied
from streams.mirror.topics import Cluster
from tests.brokers import Broker
from tests.integration.embedded_process import LogProcess

WAIT_S = 30.0
PLAIN = BrokerSecurity()
TOPICS = ("events", "rows", "empty")


@pytest.fixture
def source(tmp_path: Path) -> Iterator[LogProcess]:
    process = LogProcess(tmp_path / "source")
    process.start()
    yield process
    process.close()


def options(address: str) -> dict[str, str]:
    return {"bootstrap.servers": address}


def create(address: str, name: str, partitions: int, config: dict[str, str]) -> None:
    # Kept in a name: its futures fail when the client is collected.
    admin = AdminClient(options(address))
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(WAIT_S)


def write_plainly(address: str, topic: str, count: int, first: int = 0) -> None:
    producer = Producer({**options(address), "enable.idempotence": True})
    for number in range(first, first + count):
        producer.produce(
            topic,
            b"%d" % number if number % 7 else None,
            b"k%d" % (number % 40),
            timestamp=1_000_000 + number,
            headers=[("n", b"%d" % number), ("n", b"")] if number % 3 else None,
        )
    assert producer.flush(WAIT_S) == 0


def write_in_transactions(address: str, topic: str, count: int) -> None:
    """Commits of one and of many records, every third transaction aborted."""
    producer = Producer({**options(address), "transactional.id": "writer"})
    producer.init_transactions(WAIT_S)
    for number in range(count):
        producer.begin_transaction()
        for index in range(1 + 3 * (number % 2)):
            producer.produce(topic, b"v" * 200, b"%d" % (number % 20), partition=index % 2)
        if number % 3 == 2:
            producer.flush(WAIT_S)
            producer.abort_transaction(WAIT_S)
        else:
            producer.commit_transaction(WAIT_S)


def fill(address: str) -> None:
    """Markers, aborted records, deleted starts, tombstones, an empty partition, committed offsets."""
    create(address, "events", 3, {"retention.ms": "-1"})
    create(address, "rows", 2, {"cleanup.policy": "compact", "segment.bytes": "4096"})
    create(address, "empty", 1, {})
    write_plainly(address, "events", 600)
    write_in_transactions(address, "rows", 60)
    admin = AdminClient(options(address))
    for future in admin.delete_records([TopicPartition("events", 0, 25)]).values():
        future.result(WAIT_S)
    reader = Consumer({**options(address), "group.id": "readers", "enable.auto.commit": False})
    reader.commit(offsets=[TopicPartition("events", 0, 30), TopicPartition("rows", 1, 7)], asynchronous=False)
    reader.close()


def contents(address: str) -> tuple[dict[tuple[str, int], tuple[int, int]], list[tuple[str, int, Copied]]]:
    cluster = Cluster(options(address), address)
    counts = cluster.partitions()
    places = [(name, index) for name in TOPICS for index in range(counts[name])]
    bounds = cluster.bounds(places)
    starts = {place: low for place, (low, _) in bounds.items()}
    ends = {place: high for place, (_, high) in bounds.items()}
    found = [
        (*place, record)
        for batch in committed_records(options(address), starts, ends)
        for place, records in batch.items()
        for record in records
    ]
    return bounds, sorted(found, key=lambda entry: (*entry[:2], entry[2].offset))


def committed(address: str, group: str) -> dict[tuple[str, int], int]:
    admin = AdminClient(options(address))
    answer = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(WAIT_S)
    return {(p.topic, p.partition): p.offset for p in answer.topic_partitions or []}


def config(address: str, topic: str) -> dict[str, str | None]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient(options(address))
    described = admin.describe_configs([resource])[resource].result(WAIT_S)
    return {name: entry.value for name, entry in described.items()}


def table(records: list[tuple[str, int, Copied]]) -> dict[tuple[int, bytes | None], Copied]:
    return {(index, record.key): record for name, index, record in records if name == "rows"}


def run(source: LogProcess, target: str) -> MirrorReport:
    return mirror(Log(source.address, PLAIN), Log(target, PLAIN), TOPICS, replication=1)


def check_same(source: LogProcess, target: str) -> None:
    (bounds, records), (copied_bounds, copied) = contents(source.address), contents(target)
    assert [entry for entry in copied if entry[0] != "rows"] == [
        entry for entry in records if entry[0] != "rows"
    ]
    # Either side may compact meanwhile; what each key has last, and where, stays.
    assert table(copied) == table(records)
    assert {place: end for place, (_, end) in copied_bounds.items()} == {
        place: end for place, (_, end) in bounds.items()
    }
    assert committed(target, "readers") == {("events", 0): 30, ("rows", 1): 7}
    assert config(target, "rows")["cleanup.policy"] == "compact"
    assert config(target, "events")["cleanup.policy"] == "delete"
    assert config(target, "events")["retention.ms"] == "-1"


def check_two_runs(source: LogProcess, target: str) -> None:
    fill(source.address)
    report = run(source, target)
    assert (report.topics, report.partitions, report.groups) == (3, 6, 1)
    assert report.copied >= report.compared > 600
    check_same(source, target)
    write_plainly(source.address, "events", 100, first=600)
    write_in_transactions(source.address, "rows", 10)
    again = run(source, target)
    assert 100 < again.copied < 200
    check_same(source, target)
    # A third run has nothing to do, and new records go on where the copy ends.
    assert run(source, target).copied == 0
    producer = Producer(options(target))
    offsets: list[int | None] = []
    producer.produce("events", b"next", partition=1, on_delivery=lambda _, m: offsets.append(m.offset()))
    producer.flush(WAIT_S)
    assert offsets == [contents(source.address)[0][("events", 1)][1]]
    with pytest.raises(MirrorError, match=r"events partition 1 ends at offset .* it is no copy"):
        run(source, target)


def test_into_another_embedded_log(source: LogProcess, tmp_path: Path) -> None:
    target = LogProcess(tmp_path / "target")
    target.start()
    try:
        check_two_runs(source, target.address)
    finally:
        target.close()


@pytest.mark.kafka
def test_into_a_real_kafka(source: LogProcess, broker: Broker) -> None:
    check_two_runs(source, broker.bootstrap)


def test_a_topic_that_is_none_and_other_partitions_are_refused(source: LogProcess, tmp_path: Path) -> None:
    create(source.address, "t", 2, {})
    with pytest.raises(MirrorError, match="has no topic x"):
        mirror(Log(source.address, PLAIN), Log(source.address, PLAIN), ["x"])
    target = LogProcess(tmp_path / "target")
    target.start()
    try:
        create(target.address, "t", 3, {})
        with pytest.raises(MirrorError, match="t has 2 partitions at the source and 3 at the target"):
            mirror(Log(source.address, PLAIN), Log(target.address, PLAIN))
    finally:
        target.close()


def test_a_copy_that_lost_a_record_is_told(source: LogProcess, tmp_path: Path) -> None:
    target = LogProcess(tmp_path / "target")
    target.start()
    try:
        create(source.address, "t", 1, {})
        write_plainly(source.address, "t", 10)
        create(target.address, "t", 1, {})
        write_plainly(target.address, "t", 3, first=1)
        with pytest.raises(MirrorError, match="t partition 0 is not the same on both sides from offset 0"):
            mirror(Log(source.address, PLAIN), Log(target.address, PLAIN))
    finally:
        target.close()
