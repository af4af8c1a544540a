"""The connection to the log with librdkafka's answers scripted: those that no real log gives on demand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams import log_client
from streams.errors import DeliveryError
from streams.log_client import LogClient, OutgoingRecord
from streams.positions import Position


class Report:
    """A delivered message."""

    def __init__(self, offset: int | None) -> None:
        self._offset = offset

    def offset(self) -> int | None:
        return self._offset


class ScriptedProducer:
    """Stands for confluent_kafka.Producer: keeps what it is given until the test lets it land."""

    made: list[ScriptedProducer]

    def __init__(self, config: dict[str, Any]) -> None:
        self.sent: list[tuple[bytes, Callable[..., None]]] = []
        self.refuse: KafkaError | None = None
        type(self).made.append(self)

    def produce(
        self,
        topic: str,
        value: bytes,
        key: bytes,
        partition: int,
        on_delivery: Callable[..., None],
        headers: Any,
    ) -> None:
        if self.refuse is not None:
            raise KafkaException(self.refuse)
        self.sent.append((value, on_delivery))

    def land(self, offset: int | None, error: KafkaError | None = None) -> None:
        """The oldest record's report."""
        _, on_delivery = self.sent.pop(0)
        on_delivery(error, Report(offset))

    def poll(self, timeout_s: float) -> int:
        time.sleep(0.001)
        return 0

    def purge(self) -> None:
        """All that is under way fails."""
        while self.sent:
            self.land(None, KafkaError(KafkaError._PURGE_QUEUE))

    def flush(self, timeout_s: float) -> int:
        return 0


class Outcomes:
    """What became of each record, by value, in the order of the reports."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, Position | None, Exception | None]] = []

    def record(self, value: bytes, partition: int = 0) -> OutgoingRecord:
        """A record that reports here."""

        def on_delivery(position: Position | None, error: Exception | None) -> None:
            self.seen.append((value, position, error))

        return OutgoingRecord("t", partition, None, value, (), on_delivery)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client over scripted producers."""
    ScriptedProducer.made = []
    monkeypatch.setattr(log_client, "Producer", ScriptedProducer)
    client = LogClient("log:1", {}, 1000)
    yield client
    client.stop()


def producer() -> ScriptedProducer:
    """The one in use."""
    return ScriptedProducer.made[-1]


def test_the_first_record_goes_alone_and_the_rest_in_order(client: LogClient) -> None:
    """Until the log has acknowledged something from this producer on that partition."""
    outcomes = Outcomes()
    for value in (b"1", b"2", b"3"):
        client.send(outcomes.record(value))
    client.send(outcomes.record(b"other", partition=1))
    assert [value for value, _ in producer().sent] == [b"1", b"other"]
    producer().land(7)
    assert [value for value, _ in producer().sent] == [b"other", b"2", b"3"]
    assert outcomes.seen == [(b"1", Position("t", 0, 7), None)]


def test_a_delivery_without_an_offset_is_no_acknowledgement(client: LogClient) -> None:
    """librdkafka only infers that the record is stored."""
    outcomes = Outcomes()
    client.send(outcomes.record(b"1"))
    producer().land(None)
    ((_, position, error),) = outcomes.seen
    assert position is None
    assert isinstance(error, DeliveryError)
    assert error.retriable
    assert "never this one" in str(error)


def test_when_the_first_fails_the_next_is_sent(client: LogClient) -> None:
    """One refused record does not stop its partition."""
    outcomes = Outcomes()
    client.send(outcomes.record(b"1"))
    client.send(outcomes.record(b"2"))
    producer().land(None, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    assert [value for value, _ in producer().sent] == [b"2"]
    error = outcomes.seen[0][2]
    assert isinstance(error, DeliveryError)
    assert not error.retriable
    assert "max.message.bytes" in str(error)


def test_stop_fails_what_waits_behind_the_first(client: LogClient) -> None:
    """Nobody is left waiting."""
    outcomes = Outcomes()
    for value in (b"1", b"2", b"3"):
        client.send(outcomes.record(value))
    client.stop()
    assert [value for value, _, _ in outcomes.seen] == [b"1", b"2", b"3"]
    assert all("closed before" in str(error) for _, _, error in outcomes.seen)


def test_after_a_fatal_error_the_next_record_has_a_new_producer(client: LogClient) -> None:
    """What was under way fails by name; the edge of a running site need not be restarted."""
    outcomes = Outcomes()
    client.send(outcomes.record(b"1"))
    producer().land(0)
    client.send(outcomes.record(b"2"))
    client.send(outcomes.record(b"3"))
    fatal = KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "desynchronised", fatal=True)
    producer().land(None, fatal)
    assert len(ScriptedProducer.made) == 1
    client.send(outcomes.record(b"4"))
    assert len(ScriptedProducer.made) == 2
    assert [value for value, _ in producer().sent] == [b"4"]
    assert [(value, error is None) for value, _, error in outcomes.seen] == [
        (b"1", True),
        (b"2", False),
        (b"3", False),
    ]


def test_a_producer_that_refuses_fatally_is_replaced_too(client: LogClient) -> None:
    """The refused record is reported, the one after it goes through."""
    outcomes = Outcomes()
    producer().refuse = KafkaError(KafkaError._FATAL, "gone", fatal=True)
    client.send(outcomes.record(b"1"))
    client.send(outcomes.record(b"2"))
    assert [value for value, _, error in outcomes.seen if error] == [b"1"]
    assert [value for value, _ in producer().sent] == [b"2"]
