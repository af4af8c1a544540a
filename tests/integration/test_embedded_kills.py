"""kill -9 again and again under four idempotent producers and one with transactions.

Five kills, or a hundred with TIDAL_LOG_FULL=1 (`make log-proofs`). The seed decides the moments;
TIDAL_SEED repeats them.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from streams.embedded.inspection import verify_log
from tests.integration.embedded_process import LogProcess

KILLS = 100 if os.environ.get("TIDAL_LOG_FULL") else 5
PRODUCERS = 4
PARTITIONS = 3
RECORDS_PER_TURN = 8
PAUSE_S = 0.004
WAIT_S = 120.0
# A client that gets no answer any more gives its transaction up, and its successor settles it.
TRANSACTION_S = 15.0
GROUP = "positions"
PLAIN, WHOLE = "plain", "whole"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogProcess]:
    process = LogProcess(tmp_path / "log")
    process.start()
    yield process
    process.close()


class Idempotent(threading.Thread):
    """Numbers its records and remembers which were acknowledged, and where."""

    def __init__(self, log: LogProcess, name: int) -> None:
        super().__init__(daemon=True)
        self.number_of = name
        self.acknowledged: dict[tuple[int, int], int] = {}
        self.failures: list[KafkaError] = []
        self._stopping = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": log.address,
                "enable.idempotence": True,
                "linger.ms": 2,
                # Some get no chance for minutes: the client looks for leaders only every half second.
                "message.timeout.ms": 0,
                "reconnect.backoff.max.ms": 200,
                "queue.buffering.max.messages": 20_000,
                "log_level": 0,
            }
        )

    def run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            for _ in range(RECORDS_PER_TURN):
                try:
                    value = b"%d %d" % (self.number_of, number)
                    self._producer.produce(
                        PLAIN, value, partition=number % PARTITIONS, on_delivery=self._delivered
                    )
                    number += 1
                except BufferError:
                    self._producer.poll(0.05)
            self._producer.poll(0)
            time.sleep(PAUSE_S)
        self._producer.flush(WAIT_S)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append(error)
            return
        place = (message.partition() or 0, message.offset() or 0)
        self.acknowledged[place] = int((message.value() or b"").split()[1])

    def stop(self) -> None:
        self._stopping.set()


class Transactions(threading.Thread):
    """Each transaction writes its number to every partition and commits it as an offset of a group.

    librdkafka's send_offsets_to_transaction does not look at its time-out while its log is away, be it this
    one or Apache Kafka. So each owner has a thread; a silent one is left behind, its successor fences it.
    """

    def __init__(self, log: LogProcess) -> None:
        super().__init__(daemon=True)
        self.committed: list[int] = []
        self._log = log
        self._stopping = threading.Event()
        self._numbers = count(1)
        self._owner: threading.Thread | None = None
        self._heard_s = 0.0
        # Closing a client in the middle of a commit may never return either, so those are kept.
        self._given_up: list[Producer] = []

    def run(self) -> None:
        while not self._stopping.wait(0.05):
            owner = self._owner
            silent = time.monotonic() - self._heard_s > 2 * TRANSACTION_S
            if owner is None or not owner.is_alive() or silent:
                self._heard_s = time.monotonic()
                self._owner = threading.Thread(target=self._own, daemon=True)
                self._owner.start()
        if self._owner is not None:
            self._owner.join(2 * TRANSACTION_S)

    def _own(self) -> None:
        """Be the owner until something fails."""
        source = Consumer({"bootstrap.servers": self._log.address, "group.id": GROUP, "log_level": 0})
        sender = Producer(
            {
                "bootstrap.servers": self._log.address,
                "transactional.id": "x",
                "reconnect.backoff.max.ms": 100,
                "log_level": 0,
            }
        )
        try:
            sender.init_transactions(TRANSACTION_S)
            while not self._stopping.is_set() and self._owner is threading.current_thread():
                self._one(sender, source)
        except KafkaException:
            # Whatever became of this one, the next owner settles it.
            self._given_up.append(sender)

    def _one(self, sender: Producer, source: Consumer) -> None:
        number = next(self._numbers)
        sender.begin_transaction()
        for partition in range(PARTITIONS):
            sender.produce(WHOLE, b"%d" % number, partition=partition)
        position = TopicPartition(WHOLE, 0, number)
        sender.send_offsets_to_transaction([position], source.consumer_group_metadata(), TRANSACTION_S)
        sender.commit_transaction(TRANSACTION_S)
        self.committed.append(number)
        self._heard_s = time.monotonic()
        time.sleep(PAUSE_S)

    def stop(self) -> None:
        self._stopping.set()


def read_all(log: LogProcess, topic: str, partition: int) -> list[tuple[int, bytes]]:
    """(offset, value) of what a reader of committed records sees, up to the end."""
    reader = Consumer(
        {
            "bootstrap.servers": log.address, "group.id": "oracle", "enable.partition.eof": True,
            "check.crcs": True, "fetch.wait.max.ms": 20, "enable.auto.commit": False,
        }
    )  # fmt: skip
    reader.list_topics(topic, WAIT_S)
    reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
    found: list[tuple[int, bytes]] = []
    deadline = time.monotonic() + WAIT_S
    ended = False
    while not ended:
        assert time.monotonic() < deadline
        for message in reader.consume(5_000, 0.2):
            error = message.error()
            if error is None:
                found.append((message.offset() or 0, message.value() or b""))
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended = True
    reader.close()
    return found


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_nothing_acknowledged_is_lost_doubled_or_out_of_order(log: LogProcess) -> None:
    seed = int(os.environ.get("TIDAL_SEED", random.randrange(1 << 32)))
    print(f"TIDAL_SEED={seed}")
    rng = random.Random(seed)
    admin = AdminClient({"bootstrap.servers": log.address})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in (PLAIN, WHOLE)]).values():
        future.result(WAIT_S)
    senders = [Idempotent(log, number) for number in range(PRODUCERS)]
    whole = Transactions(log)
    for thread in (*senders, whole):
        thread.start()
    for _ in range(KILLS):
        time.sleep(rng.uniform(0.05, 1.5))
        log.kill()
        log.start()
    for sender in senders:
        finish(sender)
    check_plain(log, senders)
    wait_for_a_transaction(whole)
    finish(whole)
    check_whole(log, whole.committed)
    log.kill()
    assert [finding for finding in verify_log(log.data_dir).findings if finding.severity == "damage"] == []


def finish(thread: Idempotent | Transactions) -> None:
    """Ask it to end, and wait until it has."""
    thread.stop()
    thread.join(2 * WAIT_S)
    assert not thread.is_alive()


def wait_for_a_transaction(whole: Transactions) -> None:
    """After the last kill the workload goes on."""
    before, deadline = len(whole.committed), time.monotonic() + WAIT_S
    while len(whole.committed) <= before:
        assert time.monotonic() < deadline, "no transaction since the last kill"
        time.sleep(0.01)


def check_plain(log: LogProcess, senders: list[Idempotent]) -> None:
    """Every acknowledged record is at its offset, each number once, in order for its producer."""
    found = {partition: dict(read_all(log, PLAIN, partition)) for partition in range(PARTITIONS)}
    for sender in senders:
        assert sender.failures == []
        assert len(sender.acknowledged) > KILLS
        for (partition, offset), number in sender.acknowledged.items():
            assert found[partition].get(offset) == b"%d %d" % (sender.number_of, number), (partition, offset)
        for partition, records in found.items():
            numbers = [
                int(value.split()[1])
                for value in records.values()
                if int(value.split()[0]) == sender.number_of
            ]
            # From the first to the last without a gap: once each, in order.
            assert numbers == list(range(partition, numbers[-1] + 1, PARTITIONS))
    records, acknowledged = sum(map(len, found.values())), sum(len(s.acknowledged) for s in senders)
    print(f"{KILLS} kills: {records} records, {acknowledged} acknowledged")


def check_whole(log: LogProcess, committed: list[int]) -> None:
    """All partitions show the same transactions, the committed ones among them, and the last one's offset."""
    seen = [[int(value) for _, value in read_all(log, WHOLE, partition)] for partition in range(PARTITIONS)]
    assert all(numbers == seen[0] for numbers in seen)
    assert seen[0] == sorted(set(seen[0]))
    assert set(committed) <= set(seen[0])
    reader = Consumer({"bootstrap.servers": log.address, "group.id": GROUP})
    assert reader.committed([TopicPartition(WHOLE, 0)], WAIT_S)[0].offset == seen[0][-1]
    reader.close()
    print(f"{len(seen[0])} transactions, {len(committed)} acknowledged")
