"""kill -9 under load: nothing acknowledged is missing, nothing is there twice, order is kept."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.integration.embedded_process import LogProcess

PARTITIONS = 3
WAIT_S = 30.0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogProcess]:
    process = LogProcess(tmp_path / "log")
    process.start()
    yield process
    process.close()


def create(log: LogProcess, *topics: str, config: dict[str, str] | None = None) -> None:
    admin = AdminClient({"bootstrap.servers": log.address})
    futures = admin.create_topics([NewTopic(topic, PARTITIONS, 1, config=config or {}) for topic in topics])
    for future in futures.values():
        future.result(WAIT_S)


def read_all(log: LogProcess, topic: str, partition: int) -> list[int]:
    """The numbers in one partition, up to its end."""
    reader = Consumer(
        {
            "bootstrap.servers": log.address,
            "group.id": "oracle",
            "enable.partition.eof": True,
            "check.crcs": True,
            "fetch.wait.max.ms": 20,
        }
    )
    # The client looks for a leader that it does not know yet only every half second.
    reader.list_topics(topic, WAIT_S)
    reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
    numbers: list[int] = []
    deadline = time.monotonic() + WAIT_S
    while True:
        assert time.monotonic() < deadline
        message = reader.poll(1.0)
        if message is not None and message.error() is not None:
            break
        if message is not None:
            numbers.append(int(message.value()))
    reader.close()
    return numbers


def transactional(log: LogProcess) -> Producer:
    return Producer(
        {"bootstrap.servers": log.address, "transactional.id": "x", "reconnect.backoff.max.ms": 100}
    )


class Load(threading.Thread):
    """An idempotent producer that numbers its records; what was acknowledged is remembered."""

    def __init__(self, log: LogProcess) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[list[int]] = [[] for _ in range(PARTITIONS)]
        self.failures: list[object] = []
        self._stopping = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": log.address,
                "enable.idempotence": True,
                "linger.ms": 2,
                "message.timeout.ms": 60_000,
                "reconnect.backoff.max.ms": 200,
                "queue.buffering.max.messages": 20_000,
            }
        )

    def run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            partition = number % PARTITIONS
            try:
                self._producer.produce(
                    "t", value=b"%d" % number, partition=partition, on_delivery=self._delivered
                )
                number += 1
            except BufferError:
                self._producer.poll(0.05)
            if number % 100 == 0:
                self._producer.poll(0.002)
        self._producer.flush(WAIT_S)

    def _delivered(self, error: object, message) -> None:  # type: ignore[no-untyped-def]
        if error is not None:
            self.failures.append(error)
        else:
            self.acknowledged[message.partition()].append(int(message.value()))

    def finish(self) -> None:
        self._stopping.set()
        self.join(WAIT_S)
        assert not self.is_alive()


def test_nothing_acknowledged_is_lost_or_doubled_over_kills(log: LogProcess) -> None:
    seed = int(os.environ.get("TIDAL_SEED", random.randrange(1 << 32)))
    print(f"TIDAL_SEED={seed}")
    rng = random.Random(seed)
    create(log, "t")
    load = Load(log)
    load.start()
    for _ in range(3):
        time.sleep(rng.uniform(0.1, 0.5))
        log.kill()
        log.start()
    time.sleep(0.3)
    load.finish()
    assert load.failures == []
    assert sum(map(len, load.acknowledged)) > 100
    for partition in range(PARTITIONS):
        numbers = read_all(log, "t", partition)
        assert numbers == sorted(set(numbers)), "twice or out of order"
        assert set(load.acknowledged[partition]) <= set(numbers), "acknowledged and gone"


def test_an_open_transaction_survives_a_kill_and_commits(log: LogProcess) -> None:
    create(log, "t", config={"cleanup.policy": "compact"})
    sender = Producer(
        {"bootstrap.servers": log.address, "transactional.id": "x", "reconnect.backoff.max.ms": 200}
    )
    sender.init_transactions(WAIT_S)
    sender.begin_transaction()
    for partition in range(PARTITIONS):
        sender.produce("t", key=b"k", value=b"1", partition=partition)
    assert sender.flush(WAIT_S) == 0
    log.kill()
    log.start()
    assert read_all(log, "t", 0) == []
    for partition in range(PARTITIONS):
        sender.produce("t", key=b"k", value=b"2", partition=partition)
    sender.commit_transaction(WAIT_S)
    for partition in range(PARTITIONS):
        assert read_all(log, "t", partition) == [1, 2]


def test_a_new_owner_after_a_kill_aborts_the_open_transaction(log: LogProcess) -> None:
    create(log, "t")
    zombie = Producer(
        {"bootstrap.servers": log.address, "transactional.id": "x", "reconnect.backoff.max.ms": 200}
    )
    zombie.init_transactions(WAIT_S)
    zombie.begin_transaction()
    zombie.produce("t", value=b"1", partition=0)
    assert zombie.flush(WAIT_S) == 0
    log.kill()
    log.start()
    owner = transactional(log)
    owner.init_transactions(WAIT_S)
    owner.begin_transaction()
    owner.produce("t", value=b"2", partition=0)
    owner.commit_transaction(WAIT_S)
    with pytest.raises(KafkaException):
        zombie.commit_transaction(WAIT_S)
    assert read_all(log, "t", 0) == [2]
    log.kill()
    log.start()
    assert read_all(log, "t", 0) == [2]


def test_transactions_are_whole_over_kills(log: LogProcess) -> None:
    """Each transaction writes its number to every partition: all have it or none has."""
    seed = int(os.environ.get("TIDAL_SEED", random.randrange(1 << 32)))
    print(f"TIDAL_SEED={seed}")
    rng = random.Random(seed)
    create(log, "t")
    stopping = threading.Event()
    committed: list[int] = []

    def kill_now_and_then() -> None:
        for _ in range(3):
            before = len(committed)
            while len(committed) < before + 3:
                time.sleep(0.005)
            time.sleep(rng.uniform(0.0, 0.1))
            log.kill()
            log.start()
        stopping.set()

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    number = 0
    while not stopping.is_set():
        sender = transactional(log)
        try:
            sender.init_transactions(WAIT_S)
            while not stopping.is_set():
                number += 1
                sender.begin_transaction()
                for partition in range(PARTITIONS):
                    sender.produce("t", value=b"%d" % number, partition=partition)
                sender.commit_transaction(WAIT_S)
                committed.append(number)
        except KafkaException:
            # Whatever became of this one, the next owner settles it.
            continue
    killer.join(WAIT_S)
    numbers = [read_all(log, "t", partition) for partition in range(PARTITIONS)]
    assert numbers[0] == numbers[1] == numbers[2]
    assert numbers[0] == sorted(set(numbers[0]))
    assert set(committed) <= set(numbers[0])
    assert len(committed) >= 9


def test_groups_and_offsets_survive_a_kill(log: LogProcess) -> None:
    create(log, "t")
    config: dict[str, object] = {
        "bootstrap.servers": log.address,
        "group.id": "g",
        "enable.auto.commit": False,
        "session.timeout.ms": 6_000,
        "reconnect.backoff.max.ms": 100,
    }
    member = Consumer(config)
    member.subscribe(["t"])
    deadline = time.monotonic() + WAIT_S
    while not member.assignment():
        assert time.monotonic() < deadline
        member.poll(0.1)
    member.commit(offsets=[TopicPartition("t", 1, 42)], asynchronous=False)
    log.kill()
    log.start()
    assert member.committed([TopicPartition("t", 1)], WAIT_S)[0].offset == 42
    generations = []
    while not generations:
        assert time.monotonic() < deadline
        member.poll(0.1)
        try:
            member.commit(offsets=[TopicPartition("t", 1, 43)], asynchronous=False)
            generations.append(43)
        except KafkaException:
            # Not a member again yet.
            continue
    assert member.committed([TopicPartition("t", 1)], WAIT_S)[0].offset == 43
    member.close()
