"""The blocking producer on a real log: what is acknowledged is there, once, in order."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import pytest

from schemas.errors import RecordError
from schemas.records.columns import EventColumns
from schemas.settings import ProducerSettings
from streams.errors import (
    BrokerUnavailableError,
    DeliveryError,
    ProducerClosedError,
    QueueFullError,
    StreamError,
    TopicError,
)
from streams.partitioner import partition_for
from streams.positions import Position
from streams.producer import Producer
from streams.topics import ITEMS, RELATIONSHIPS, USERS
from streams.whole_topic import Record, WholeTopicReader
from tests.brokers import Broker
from tests.log_reading import READ_TIMEOUT_S, LoggedEvent, logged_events, make_topics
from tests.server_process import ROOT

PARTITIONS = 4
ACK_S = 60
PROMPT = ProducerSettings(group_linger_ms=1)


@pytest.fixture
def log(broker: Broker) -> Broker:
    """A broker with the engine's topics."""
    make_topics(broker.bootstrap, PARTITIONS)
    return broker


def numbered(producer: Producer, users: int, numbers: range) -> list[Future[Position]]:
    """Events numbered by their weight, dealt to users in turn."""
    return [producer.publish("view", f"item_{n}", f"user_{n % users}", weight=n) for n in numbers]


def by_user(events: Sequence[LoggedEvent]) -> dict[str, list[int]]:
    """The numbers of each user's events, in the order of the log."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for event in events:
        numbers[event.user].append(int(event.weight))
    return dict(numbers)


def read_records(bootstrap: str, topic: str) -> list[Record]:
    """Every record of a topic."""
    with WholeTopicReader(bootstrap, topic) as reader:
        return reader.read_all(READ_TIMEOUT_S)


def publish_until_refused(producer: Producer, accepted: list[Future[Position]]) -> None:
    """One user's events numbered from 1, until an error."""
    for number in range(1, 1000):
        accepted.append(producer.publish("view", "item_1", "user_1", weight=number))


def columns_of(users: Sequence[str], count: int) -> EventColumns:
    """`count` events numbered by weight, dealt to users in turn."""
    return EventColumns(
        kinds=["view", "like"],
        items=[f"item_{n}" for n in range(50)],
        users=list(users),
        kind=(np.arange(count) % 2).astype(np.uint16),
        item=(np.arange(count) % 50).astype(np.uint32),
        user=(np.arange(count) % len(users)).astype(np.uint32),
        weight=np.arange(count, dtype=np.int64) * 1_000_000,
        ts_ms=np.full(count, 1_700_000_000_000, np.int64),
    )


def test_a_position_is_where_the_event_is(log: Broker) -> None:
    """On the partition of its user, in the record at that offset, once."""
    with Producer(log.bootstrap) as producer:
        futures = numbered(producer, 50, range(500))
        positions = [future.result(ACK_S) for future in futures]
    events = logged_events(log.bootstrap)
    assert len(events) == 500
    places = {int(event.weight): (event.partition, event.offset) for event in events}
    for number, position in enumerate(positions):
        assert (position.partition, position.offset) == places[number]
        assert position.partition == partition_for(f"user_{number % 50}".encode(), PARTITIONS)


def test_events_of_a_moment_share_a_record(log: Broker) -> None:
    """A full group is one record; an anonymous event goes by its item."""
    with Producer(log.bootstrap, ProducerSettings(group_linger_ms=60_000)) as producer:
        full = [producer.publish("view", f"item_{n}", "user_1") for n in range(100)]
        assert len({future.result(ACK_S) for future in full}) == 1
        lone = producer.publish("view", "item_7")
        producer.flush(ACK_S)
        position = lone.result(0)
    assert position.partition == partition_for(b"item_7", PARTITIONS)
    assert Counter((e.partition, e.offset) for e in logged_events(log.bootstrap)).most_common(1)[0][1] == 100


def test_a_group_does_not_wait_for_more_than_its_linger(log: Broker) -> None:
    """Nobody flushes and nobody else publishes."""
    with Producer(log.bootstrap) as producer:
        assert producer.publish("view", "item_1", "user_1").result(ACK_S).offset == 0


def test_one_users_events_keep_the_order_of_the_calls(log: Broker) -> None:
    """Also when single events and batches of both sizes alternate."""
    with Producer(log.bootstrap, ProducerSettings(bulk_events_max=70)) as producer:
        sizes = [1, 1, 30, 1, 500, 1, 1, 101, 2, 1]
        start = 0
        for size in sizes:
            batch = columns_of(["user_1"], size)
            batch.weight += start * 1_000_000
            start += size
            if size == 1:
                producer.publish("view", "item_1", "user_1", weight=start - 1)
            else:
                producer.publish_columns(batch)
    assert by_user(logged_events(log.bootstrap)) == {"user_1": list(range(sum(sizes)))}


def test_many_threads_publish_at_once(log: Broker) -> None:
    """Each thread's user keeps its order."""
    with Producer(log.bootstrap) as producer:

        def publish(user: str) -> None:
            for number in range(300):
                producer.publish("view", "item_1", user, weight=number)

        threads = [threading.Thread(target=publish, args=(f"user_{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert by_user(logged_events(log.bootstrap)) == {f"user_{n}": list(range(300)) for n in range(8)}


def test_a_large_batch_is_split_by_partition(log: Broker) -> None:
    """Every event once; the positions are those of the records."""
    batch = columns_of([f"user_{n}" for n in range(40)] + [""], 150_000)
    with Producer(log.bootstrap) as producer:
        positions = producer.publish_columns(batch).result(ACK_S)
        assert producer.publish_columns(columns_of(["u"], 0)).result(0) == []
    events = logged_events(log.bootstrap)
    assert sorted(int(event.weight) for event in events) == list(range(150_000))
    assert {(event.partition, event.offset) for event in events} == {
        (p.partition, p.offset) for p in positions
    }
    assert len(positions) == len(set(positions))
    assert all(e.partition == partition_for((e.user or e.item).encode(), PARTITIONS) for e in events)


def test_small_batches_of_many_callers_share_records(log: Broker) -> None:
    """An edge that takes an array from each of many clients still writes few records."""
    with Producer(log.bootstrap, ProducerSettings(group_linger_ms=60_000)) as producer:
        futures = [producer.publish_columns(columns_of(["user_1"], 5)) for _ in range(20)]
        positions = [future.result(ACK_S) for future in futures]
    assert {position for several in positions for position in several} == {positions[0][0]}
    assert len(logged_events(log.bootstrap)) == 100


def test_entity_records_and_edges_go_to_their_topics(log: Broker) -> None:
    """A delete is a null value; an edge lies with its source."""
    with Producer(log.bootstrap) as producer:
        producer.put_entity("item", "item_1", {"title": "One", "creator": "c"})
        deleted = producer.put_entity("user", "user_1", None)
        producer.put_relationship("follows", "user_1", "creator_9", {})
        edge = producer.put_relationship("blocks", "user_1", "creator_1", None)
        producer.flush(ACK_S)
        assert deleted.result(0).topic == USERS
        assert edge.result(0).partition == partition_for(b"user_1", PARTITIONS)
    items = read_records(log.bootstrap, ITEMS)
    assert [(key, value) for *_, key, value in items] == [
        (b"item_1", b'{"id":"item_1","title":"One","creator":"c"}')
    ]
    assert [(key, value) for *_, key, value in read_records(log.bootstrap, USERS)] == [(b"user_1", None)]
    edges = read_records(log.bootstrap, RELATIONSHIPS)
    assert [(partition, key, value) for partition, _, _, key, value in edges] == [
        (partition_for(b"user_1", PARTITIONS), b'["follows","user_1","creator_9"]', b"{}"),
        (partition_for(b"user_1", PARTITIONS), b'["blocks","user_1","creator_1"]', None),
    ]


def test_close_flushes_and_nothing_can_be_published_after(log: Broker) -> None:
    """Even when every group would linger for a minute."""
    producer = Producer(log.bootstrap, ProducerSettings(group_linger_ms=60_000))
    futures = numbered(producer, 7, range(50))
    producer.close()
    assert all(future.result(0) for future in futures)
    assert len(logged_events(log.bootstrap)) == 50
    with pytest.raises(ProducerClosedError, match="create a new one"):
        producer.publish("view", "item_1")
    with pytest.raises(ProducerClosedError):
        producer.flush(1)
    producer.close()


def test_a_program_that_ends_without_close_has_flushed(log: Broker) -> None:
    """At the interpreter's exit."""
    program = (
        "import sys; from streams.producer import Producer; p = Producer(sys.argv[1])\n"
        "for n in range(250): p.publish('view', 'item', f'user_{n}')\n"
    )
    subprocess.run([sys.executable, "-c", program, log.bootstrap], cwd=ROOT, check=True, timeout=60)
    assert len(logged_events(log.bootstrap)) == 250


def test_a_bad_event_is_refused_and_the_others_go_on(log: Broker) -> None:
    """The error is raised to the caller and names the field."""
    with Producer(log.bootstrap) as producer:
        producer.publish("view", "item_1", "user_1")
        with pytest.raises(RecordError, match="item"):
            producer.publish("view", "", "user_1")
        producer.publish("view", "item_2", "user_1")
    assert [event.item for event in logged_events(log.bootstrap)] == ["item_1", "item_2"]


def test_a_missing_topic_is_the_futures_error(broker: Broker) -> None:
    """It says which command makes it; the producer works as soon as it is there."""
    with Producer(broker.bootstrap, PROMPT) as producer:
        for future in (
            producer.publish("view", "item_1", "user_1"),
            producer.publish_columns(columns_of(["u"], 200)),
            producer.put_entity("item", "a", {}),
        ):
            with pytest.raises(TopicError, match=r"does not exist.*tidal topics init"):
                future.result(ACK_S)
        make_topics(broker.bootstrap, PARTITIONS)
        producer.publish("view", "item_1", "user_1").result(ACK_S)
        assert producer.stats().buffered_bytes == 0


def test_a_log_that_comes_later_gets_what_was_published_before(log: Broker) -> None:
    """A producer starts without a log, and delivers in order when there is one."""
    log.kill()
    with Producer(log.bootstrap, PROMPT) as producer:
        futures = numbered(producer, 3, range(300))
        time.sleep(0.3)
        assert not any(future.done() for future in futures)
        log.restart()
        assert all(future.result(ACK_S) for future in futures)
    assert by_user(logged_events(log.bootstrap)) == {f"user_{u}": list(range(u, 300, 3)) for u in range(3)}


def test_a_full_buffer_slows_the_caller_then_refuses_and_drops_nothing(log: Broker) -> None:
    """While the log is away the buffer fills to its bound; all that was accepted arrives afterwards."""
    bound = 40_000
    settings = ProducerSettings(
        buffer_bytes_max=bound, block_timeout_s=0.2, group_linger_ms=1, record_bytes_max=20_000
    )
    with Producer(log.bootstrap, settings) as producer:
        producer.publish("view", "item_1", "user_1", weight=0).result(ACK_S)
        log.kill()
        accepted: list[Future[Position]] = []
        with pytest.raises(QueueFullError, match=rf"after 0\.2 s: \d+ of {bound} bytes"):
            publish_until_refused(producer, accepted)
        assert 0 < len(accepted) < 999
        assert producer.stats().buffered_bytes <= bound
        with pytest.raises(QueueFullError):
            producer.publish_columns(columns_of(["user_2"], 500))
        log.restart()
        assert all(future.result(ACK_S) for future in accepted)
        producer.publish("view", "item_1", "user_1", weight=len(accepted) + 1).result(ACK_S)
    assert by_user(logged_events(log.bootstrap)) == {"user_1": list(range(len(accepted) + 2))}


def test_a_caller_waits_for_room_and_goes_on_when_there_is(log: Broker) -> None:
    """The bound is far below what is published: the log's pace becomes the caller's."""
    settings = ProducerSettings(buffer_bytes_max=8_000, group_linger_ms=1, record_bytes_max=4_000)
    with Producer(log.bootstrap, settings) as producer:
        futures = numbered(producer, 4, range(400))
        batch = producer.publish_columns(columns_of(["user_9"], 2_000))
        assert all(future.result(ACK_S) for future in futures)
        assert batch.result(ACK_S)
        assert producer.stats().buffered_bytes == 0
    assert len(logged_events(log.bootstrap)) == 2_400


def test_what_is_not_acknowledged_in_time_fails_in_its_future(log: Broker) -> None:
    """Both what the client holds and what could not even be partitioned."""
    settings = ProducerSettings(delivery_timeout_ms=2_000, group_linger_ms=1)
    with Producer(log.bootstrap, settings) as known, Producer(log.bootstrap, settings) as fresh:
        known.publish("view", "item_1", "user_1").result(ACK_S)
        log.kill()
        held, unknown = known.publish("view", "a", "user_1"), fresh.publish("view", "a", "user_1")
        with pytest.raises(DeliveryError, match="not acknowledged within 2000 ms") as raised:
            held.result(ACK_S)
        assert raised.value.retriable
        with pytest.raises(BrokerUnavailableError, match=log.bootstrap):
            unknown.result(ACK_S)
        log.restart()
        known.publish("view", "item_1", "user_1").result(ACK_S)
        fresh.publish("view", "item_1", "user_1").result(ACK_S)


def test_close_without_a_log_ends_in_time_and_fails_what_is_left(log: Broker) -> None:
    """Nothing hangs and nothing is forgotten silently."""
    known, fresh = Producer(log.bootstrap, PROMPT), Producer(log.bootstrap, PROMPT)
    known.publish("view", "item_1", "user_1").result(ACK_S)
    log.kill()
    futures = [*numbered(known, 3, range(30)), *numbered(fresh, 3, range(30))]
    futures.append(known.put_entity("item", "a", {}))
    batch = fresh.publish_columns(columns_of(["u"], 500))
    for producer in (known, fresh):
        with pytest.raises(DeliveryError, match="away or slow"):
            producer.close(0.3)
    for future in [*futures, batch]:
        with pytest.raises(StreamError, match="closed before"):
            future.result(0)
    log.restart()


def test_flush_names_what_is_left_when_time_is_up(log: Broker) -> None:
    """And keeps it: the log comes back and it is delivered."""
    with Producer(log.bootstrap, PROMPT) as producer:
        producer.publish("view", "item_1", "user_1").result(ACK_S)
        log.kill()
        future = producer.publish("view", "item_2", "user_1")
        with pytest.raises(DeliveryError, match="1 records are unacknowledged"):
            producer.flush(0.3)
        log.restart()
        producer.flush(ACK_S)
        assert future.done()


def kill_and_restart_under_load(log: Broker, kills: int) -> None:
    """Publish without pause while the log is killed; then compare what was acknowledged with the log."""
    futures: list[Future[Position]] = []
    stop = threading.Event()
    patient = ProducerSettings(group_linger_ms=1, block_timeout_s=120, close_timeout_s=120)
    with Producer(log.bootstrap, patient) as producer:

        def publish() -> None:
            number = 0
            while not stop.is_set():
                futures.append(producer.publish("view", "item_1", f"user_{number % 20}", weight=number))
                number += 1
                time.sleep(0.0002)

        publisher = threading.Thread(target=publish)
        publisher.start()
        for _ in range(kills):
            time.sleep(0.4)
            log.kill()
            time.sleep(0.1)
            log.restart()
        time.sleep(0.4)
        stop.set()
        publisher.join()
        positions = [future.result(ACK_S) for future in futures]
    events = logged_events(log.bootstrap)
    places = {int(event.weight): (event.partition, event.offset) for event in events}
    for number, position in enumerate(positions):
        assert places[number] == (position.partition, position.offset)
    assert len(events) == len(futures), "an event is in the log twice"
    assert by_user(events) == {
        f"user_{u}": list(range(u, len(futures), 20)) for u in range(min(20, len(futures)))
    }


def test_a_killed_log_loses_nothing_acknowledged_and_repeats_nothing(log: Broker) -> None:
    """SIGKILL in the middle of writing, back on the same address."""
    kill_and_restart_under_load(log, kills=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_log_killed_again_and_again(log: Broker) -> None:
    """The same for longer. A real Kafka takes seconds to come back: with many kills in a row a record waits
    for longer than records may."""
    kill_and_restart_under_load(log, kills=12 if log.variant == "embedded" else 3)
