"""Publishes a load while others are killed, as a stranger: plain JSON, its own partitioner."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Producer

from tests.crash.load import Write

FLUSH_S = 120.0


class Traffic:
    """A producer thread; ``acknowledged`` is what the log has promised to keep."""

    def __init__(self, bootstrap: str, writes: Iterable[Write], events_per_s: float) -> None:
        self._writes = writes
        self._pause_s = 1.0 / events_per_s
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": 0,
                "log_level": 2,
            }
        )
        self.acknowledged: dict[tuple[str, int, int], bytes | None] = {}
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._run, name="traffic")
        self._stop = threading.Event()

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def finish(self) -> None:
        """Wait until everything is written and acknowledged."""
        self._thread.join()
        assert self._producer.flush(FLUSH_S) == 0, "the log did not acknowledge everything in time"
        assert not self.failures, self.failures[:5]

    def abandon(self) -> None:
        """Stop early; for the end of a failed test."""
        self._stop.set()
        self._thread.join()
        self._producer.purge()

    def _run(self) -> None:
        due_s = time.monotonic()
        for write in self._writes:
            if self._stop.is_set():
                return
            self._produce(write)
            due_s += self._pause_s * max(write.events, 1)
            self._producer.poll(max(0.0, due_s - time.monotonic()))

    def _produce(self, write: Write) -> None:
        while True:
            try:
                self._producer.produce(write.topic, write.value, write.key, on_delivery=self._delivered)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failures.append(str(error))
        else:
            self.acknowledged[message.topic(), message.partition(), message.offset()] = message.value()
