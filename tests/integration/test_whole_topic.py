"""Reading whole topics, and the dead letters, on a real log."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer as RawProducer

from schemas.errors import RecordError
from schemas.records.dead_letter import dead_letter
from streams.admin import init_topics
from streams.dead_letters import FOREIGN, count_dead_letters, dead_letter_message, read_dead_letters
from streams.errors import BrokerUnavailableError, OffsetError, TopicError
from streams.partitioner import partition_for
from streams.records import LogRecord
from streams.topics import DEAD_LETTER, TopicSpec
from streams.whole_topic import Record, WholeTopicReader
from tests.brokers import Broker
from tests.log_reading import make_topics
from tests.server_process import free_port

TOPIC = "tidal.words"
READ_S = 30


@pytest.fixture
def log(broker: Broker) -> Broker:
    """A broker with one topic of three partitions."""
    init_topics(broker.bootstrap, [TopicSpec(TOPIC, 3, {}, 1)])
    return broker


def write(bootstrap: str, records: dict[int, list[str]]) -> None:
    """Values by partition, one record each."""
    producer = RawProducer({"bootstrap.servers": bootstrap})
    for partition, values in records.items():
        for value in values:
            producer.produce(TOPIC, value, f"k-{value}", partition)
    assert producer.flush(READ_S) == 0


def values(records: list[Record]) -> dict[int, list[str]]:
    """Values by partition, in the order read."""
    found: dict[int, list[str]] = {}
    for partition, _, _, _, value in records:
        found.setdefault(partition, []).append((value or b"").decode())
    return found


def test_every_partition_is_read_to_its_end_and_then_followed(log: Broker) -> None:
    """An empty partition does not keep the reader from being caught up."""
    write(log.bootstrap, {0: ["a", "b"], 2: ["c"]})
    with WholeTopicReader(log.bootstrap, TOPIC) as reader:
        assert not reader.caught_up
        records = reader.read_all(READ_S)
        assert values(records) == {0: ["a", "b"], 2: ["c"]}
        assert reader.next_offsets == {0: 2, 1: 0, 2: 1}
        assert {(key, offset) for _, offset, _, key, _ in records} == {(b"k-a", 0), (b"k-b", 1), (b"k-c", 0)}
        assert all(timestamp_ms > 1_600_000_000_000 for _, _, timestamp_ms, _, _ in records)

        write(log.bootstrap, {1: ["d"]})
        later: list[Record] = []
        while not later:
            later = reader.poll(1)
        assert values(later) == {1: ["d"]}
        assert reader.caught_up


def test_reading_goes_on_from_given_offsets(log: Broker) -> None:
    """What next_offsets says is what start_offsets takes."""
    write(log.bootstrap, {0: ["a", "b"], 1: ["c"]})
    with WholeTopicReader(log.bootstrap, TOPIC, {0: 1}) as reader:
        assert values(reader.read_all(READ_S)) == {0: ["b"], 1: ["c"]}
        offsets = reader.next_offsets
    write(log.bootstrap, {0: ["d"]})
    with WholeTopicReader(log.bootstrap, TOPIC, offsets) as reader:
        assert values(reader.read_all(READ_S)) == {0: ["d"]}
    with WholeTopicReader(log.bootstrap, TOPIC, {0: 3, 1: 1, 2: 0}) as reader:
        assert reader.caught_up
        assert reader.poll(0.2) == []


def test_two_readers_of_one_topic_see_the_same(log: Broker) -> None:
    """There is no group that would divide the partitions between them."""
    write(log.bootstrap, {0: ["a"], 1: ["b"]})
    with WholeTopicReader(log.bootstrap, TOPIC) as one, WholeTopicReader(log.bootstrap, TOPIC) as two:
        assert values(one.read_all(READ_S)) == values(two.read_all(READ_S)) == {0: ["a"], 1: ["b"]}


def test_aborted_records_are_not_seen(log: Broker) -> None:
    """And the markers of a transaction do not keep the reader from its end."""
    producer = RawProducer({"bootstrap.servers": log.bootstrap, "transactional.id": "words"})
    producer.init_transactions(READ_S)
    for value, commit in (("kept", True), ("dropped", False)):
        producer.begin_transaction()
        producer.produce(TOPIC, value, None, 0)
        producer.flush(READ_S)
        if commit:
            producer.commit_transaction(READ_S)
        else:
            producer.abort_transaction(READ_S)
    with WholeTopicReader(log.bootstrap, TOPIC) as reader:
        assert values(reader.read_all(READ_S)) == {0: ["kept"]}
        offsets = reader.next_offsets
    with WholeTopicReader(log.bootstrap, TOPIC, offsets) as reader:
        assert reader.read_all(READ_S) == []


def test_a_start_behind_the_end_is_refused(log: Broker) -> None:
    """The log was replaced: state that is ahead of it must not be kept."""
    write(log.bootstrap, {0: ["a"]})
    with pytest.raises(OffsetError, match="partition 0 ends at offset 1, the reader is at 9"):
        WholeTopicReader(log.bootstrap, TOPIC, {0: 9})


def test_a_missing_topic_and_a_missing_log_are_named(broker: Broker) -> None:
    """With what to do."""
    with pytest.raises(TopicError, match=r"topic tidal\.nothing does not exist"):
        WholeTopicReader(broker.bootstrap, "tidal.nothing")
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerUnavailableError, match=address):
        WholeTopicReader(address, TOPIC, timeout_s=0.5)


def test_a_restarted_log_is_read_on(log: Broker) -> None:
    """The reader reconnects by itself and neither repeats nor leaves out."""
    write(log.bootstrap, {0: ["a"]})
    with WholeTopicReader(log.bootstrap, TOPIC) as reader:
        assert values(reader.read_all(READ_S)) == {0: ["a"]}
        log.kill()
        assert reader.poll(0.3) == []
        log.restart()
        write(log.bootstrap, {0: ["b", "c"]})
        records: list[Record] = []
        while len(records) < 2:
            records += reader.poll(1)
        assert values(records) == {0: ["b", "c"]}


def _record(topic: str, partition: int, offset: int, timestamp_ms: int) -> LogRecord:
    return LogRecord(topic, partition, offset, timestamp_ms, None, None, ())


def test_dead_letters_are_read_back_and_counted(broker: Broker) -> None:
    """Original bytes and key, origin and reason; a stranger's record is counted apart."""
    make_topics(broker.bootstrap, 4)
    producer = RawProducer({"bootstrap.servers": broker.bootstrap})
    wrong = RecordError("unknown_kind", "kind", "no signal is called 'viev'")
    broken = RecordError("malformed_json", "", "unexpected end")
    letters = [
        (
            dead_letter(wrong, _record("tidal.signals", 3, 17, 1_700_000_000_000), event=2),
            b"user_1",
            b'{"kind":"viev"}',
        ),
        (dead_letter(wrong, _record("tidal.signals", 3, 18, 1_700_000_000_001)), None, b"{}"),
        (dead_letter(broken, _record("tidal.items", 0, 1, 1_700_000_000_002)), b"item_1", b"{"),
    ]
    for letter, key, raw in letters:
        message = dead_letter_message(letter, key, raw, 4)
        producer.produce(
            message.topic, message.value, message.key, message.partition, headers=list(message.headers)
        )
    producer.produce(DEAD_LETTER, b"hello", None, 0)
    assert producer.flush(READ_S) == 0

    stored = list(read_dead_letters(broker.bootstrap))
    ours = [one for one in stored if one.letter is not None]
    assert len(ours) == len(letters)
    assert {(one.letter, one.key, one.value) for one in ours} == set(letters)
    assert {one.partition for one in ours if one.key == b"user_1"} == {partition_for(b"user_1", 4)}
    assert {one.partition for one in ours if one.key is None} == {3}
    counts = count_dead_letters(broker.bootstrap)
    assert counts.total == 4
    assert counts.by_code == {"unknown_kind": 2, "malformed_json": 1, FOREIGN: 1}
    assert counts.by_topic == {"tidal.signals": 2, "tidal.items": 1}
