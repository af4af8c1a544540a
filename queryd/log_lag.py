"""How far the tables are behind the log, in records and in time.

Offsets alone do not tell time, and asking the log for the record at an applied offset would read it. So the
ends of the partitions are remembered as they are seen each second: tables that have passed the ends of a
minute ago are less than a minute behind, whatever the records' own timestamps say.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # no __all__

from materializers.materializer import Scope
from streams.broker_security import broker_options
from streams.topics import BY_ITEM, ENTITY_TOPICS, RELATIONSHIPS, SIGNALS

logger = logging.getLogger("queryd.lag")

SAMPLE_EVERY_S = 1.0
SAMPLES_MAX = 600
"""Ten minutes of ends: a longer lag is shown as "at least"."""
REQUEST_S = 5.0

TOPICS: Mapping[str, Scope] = {
    SIGNALS: Scope.USER,
    BY_ITEM: Scope.ITEM,
    **dict.fromkeys((*ENTITY_TOPICS.values(), RELATIONSHIPS), Scope.ENTITY),
}

Offsets: TypeAlias = Mapping[tuple[str, int], int]


class AppliedTables(Protocol):
    """What the lag is measured on: see `queryd.hot.tables.Tables`."""

    def partitions(self, scope: Scope) -> Sequence[int]: ...

    def applied(self, scope: Scope, partition: int) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class Lag:
    """Records and milliseconds behind the log. Both are None before the log has answered once."""

    records: int | None
    behind_ms: int | None


class EndHistory:
    """Ends of partitions as seen over time; the end is the offset that the next record will get."""

    def __init__(self, samples_max: int = SAMPLES_MAX) -> None:
        self._samples: deque[tuple[int, Offsets]] = deque(maxlen=samples_max)

    @property
    def newest(self) -> Offsets:
        """The ends seen last; empty before the first time."""
        return self._samples[-1][1] if self._samples else {}

    def add(self, at_ms: int, ends: Offsets) -> None:
        """Remembers the ends seen at `at_ms`."""
        self._samples.append((at_ms, ends))

    def lag(self, applied: Offsets, now_ms: int) -> Lag:
        """How far `applied` (the last offset applied in each partition, -1 for none) is behind."""
        if not self._samples:
            return Lag(None, None)
        records = sum(_missing(end, applied.get(key, -1)) for key, end in self.newest.items())
        if records == 0:
            return Lag(0, 0)
        for at_ms, ends in reversed(self._samples):
            if all(_missing(end, applied.get(key, -1)) == 0 for key, end in ends.items()):
                return Lag(records, now_ms - at_ms)
        return Lag(records, now_ms - self._samples[0][0])


def _missing(end: int, applied: int) -> int:
    return max(0, end - applied - 1)


class LogLag:
    """Watches the ends of the partitions that this machine's tables hold."""

    def __init__(self, brokers: str, group: str, tables: AppliedTables, clock_ms: Callable[[], int]) -> None:
        """`group` is the workers' consumer group, whose committed offsets are shown."""
        self._brokers = brokers
        self._group = group
        self._tables = tables
        self._clock_ms = clock_ms
        self._history = EndHistory()
        self._committed: Offsets = {}
        self._fault: str | None = None

    async def run(self) -> None:
        """Looks once a second, until cancelled. A log that does not answer is noted, never fatal."""
        client = AdminClient({**broker_options(self._brokers), "log_level": 0})
        while True:
            keys = list(self._applied())
            try:
                ends, committed = await asyncio.to_thread(_look, client, self._group, keys)
            except KafkaException as error:
                self._note(str(error.args[0].str()))
            else:
                self._note(None)
                self._history.add(self._clock_ms(), ends)
                self._committed = committed
            await asyncio.sleep(SAMPLE_EVERY_S)

    def now(self) -> Lag:
        """The lag at this moment."""
        return self._history.lag(self._applied(), self._clock_ms())

    def status(self) -> dict[str, Any]:
        """By topic, summed over partitions: end, applied and committed offsets, and the lag in records."""
        applied, ends = self._applied(), self._history.newest
        lag = self._history.lag(applied, self._clock_ms())
        return {
            "reachable": self._fault is None,
            "fault": self._fault,
            "lag_records": lag.records,
            "lag_ms": lag.behind_ms,
            "topics": {topic: _topic_status(topic, applied, ends, self._committed) for topic in TOPICS},
        }

    def _applied(self) -> Offsets:
        found: dict[tuple[str, int], int] = {}
        for topic, scope in TOPICS.items():
            for partition in self._tables.partitions(scope):
                found[topic, partition] = self._tables.applied(scope, partition).get(topic, -1)
        return found

    def _note(self, fault: str | None) -> None:
        """Says once that the log has gone, and once that it is back."""
        if (fault is None) != (self._fault is None):
            logger.warning(
                "the log answers again" if fault is None else "the log does not answer: %s",
                *filter(None, [fault]),
            )
        self._fault = fault


def _topic_status(topic: str, applied: Offsets, ends: Offsets, committed: Offsets) -> dict[str, int]:
    keys = [key for key in applied if key[0] == topic]
    return {
        # What was applied after the last look was in the log too.
        "end": sum(max(ends.get(key, 0), applied[key] + 1) for key in keys),
        "applied": sum(applied[key] + 1 for key in keys),
        "committed": sum(committed.get(key, 0) for key in keys),
        "lag_records": sum(_missing(ends.get(key, 0), applied[key]) for key in keys),
    }


def _look(
    client: AdminClient, group: str, keys: Sequence[tuple[str, int]]
) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
    """The end of each partition, and what the group has committed. Raises KafkaException."""
    if not keys:
        return {}, {}
    wanted = {
        TopicPartition(topic, partition): OffsetSpec.latest()  # type: ignore[no-untyped-call]
        for topic, partition in keys
    }
    futures = client.list_offsets(wanted, request_timeout=REQUEST_S)
    ends = {(key.topic, key.partition): future.result(REQUEST_S).offset for key, future in futures.items()}
    asked = client.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group)], request_timeout=REQUEST_S
    )
    found = asked[group].result(REQUEST_S).topic_partitions
    return ends, {(each.topic, each.partition): max(0, each.offset) for each in found}
