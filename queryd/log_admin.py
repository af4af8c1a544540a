"""The client with which queryd asks the log about offsets and topics.

librdkafka's admin client has been seen to stay silent for minutes after a log was away, though the log
answered everybody else. So a client that has failed once is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.broker_security import broker_options
from streams.errors import BrokerUnavailableError

_T = TypeVar("_T")


class LogAdmin:
    """Asks with one client until it fails, then with a new one. One thread at a time may use it."""

    def __init__(self, brokers: str) -> None:
        self._brokers = brokers
        self._client: AdminClient | None = None

    def ask(self, question: Callable[[AdminClient], _T]) -> _T:
        """What the question found; raises BrokerUnavailableError when the log does not answer it."""
        client = self._client or AdminClient(
            {**broker_options(self._brokers), "log_level": 0, "reconnect.backoff.max.ms": 500}
        )
        self._client = None
        try:
            found = question(client)
        except KafkaException as error:
            raise BrokerUnavailableError(str(error.args[0].str())) from error
        except TimeoutError as error:  # the future's own: the client has not even said that it failed
            raise BrokerUnavailableError("no answer in time") from error
        self._client = client
        return found
