"""How far the tables are behind the log, in records and in time.

Offsets alone do not tell time, and asking the log for the record at an applied offset would read it. So the
ends of the partitions are remembered as they are seen each second: tables that have passed the ends of a
minute ago are less than a minute behind, whatever the records' own timestamps say.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

import msgspec

from materializers.materializer import Scope
from queryd.log_admin import LogAdmin, LogClient
from queryd.retention import RetentionWatch
from streams.errors import BrokerUnavailableError
from streams.topics import BY_ITEM, ENTITY_TOPICS, RELATIONSHIPS, SIGNALS

logger = logging.getLogger("queryd.lag")

SAMPLE_EVERY_S = 1.0
SAMPLES_MAX = 600
"""Ten minutes of ends: a longer lag is shown as "at least"."""

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

    def lag(self, applied: Offsets, now_ms: int, topics: Collection[str] | None = None) -> Lag:
        """How far `applied` (the last offset applied in each partition, -1 for none) is behind.

        `topics`: only these count; all without it.
        """
        if not self._samples:
            return Lag(None, None)
        records = sum(_behind(self.newest, applied, topics))
        if records == 0:
            return Lag(0, 0)
        for at_ms, ends in reversed(self._samples):
            if not any(_behind(ends, applied, topics)):
                return Lag(records, now_ms - at_ms)
        return Lag(records, now_ms - self._samples[0][0])


def _behind(ends: Offsets, applied: Offsets, topics: Collection[str] | None) -> Iterator[int]:
    """Records of each partition that are not applied."""
    for key, end in ends.items():
        if topics is None or key[0] in topics:
            yield _missing(end, applied.get(key, -1))


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
        self._away_since_ms = 0
        self._retention = RetentionWatch(brokers, group)

    async def run(self) -> None:
        """Looks once a second, until cancelled. A log that does not answer is noted, never fatal."""
        await asyncio.gather(self._watch(), self._retention.run(self._clock_ms))

    async def _watch(self) -> None:
        log = LogAdmin(self._brokers, self._group)
        while True:
            keys = list(self._applied())
            look = partial(_look, keys=keys)
            try:
                ends, committed = await asyncio.to_thread(log.ask, look)
            except BrokerUnavailableError as error:
                self._note(str(error))
            else:
                self._note(None)
                self._history.add(self._clock_ms(), ends)
                self._committed = committed
            await asyncio.sleep(SAMPLE_EVERY_S)

    def now(self) -> Lag:
        """The lag at this moment."""
        return self._history.lag(self._applied(), self._clock_ms())

    @property
    def fault(self) -> str | None:
        """Why the log does not answer and since when; None while it does. Noticed after some seconds."""
        if self._fault is None:
            return None
        away_s = max(0, self._clock_ms() - self._away_since_ms) / 1000
        return f"the log has not answered for {away_s:.0f} s ({self._fault}); tables stay as they are"

    def status(self) -> dict[str, Any]:
        """By topic, summed over partitions: end, applied and committed offsets, the lag in records and time.

        `scopes`: how far the tables of each scope are behind what they are made from. `retention`: where the
        log is about to delete what no checkpoint holds.
        """
        applied, now_ms = self._applied(), self._clock_ms()
        lag = self._history.lag(applied, now_ms)
        return {
            "reachable": self._fault is None,
            "fault": self._fault,
            "lag_records": lag.records,
            "lag_ms": lag.behind_ms,
            "topics": {topic: self._topic_status(topic, applied, now_ms) for topic in TOPICS},
            "scopes": {scope.value: self._scope_status(scope, applied, now_ms) for scope in Scope},
            "retention": msgspec.to_builtins(self._retention.warnings),
        }

    def _topic_status(self, topic: str, applied: Offsets, now_ms: int) -> dict[str, int | None]:
        ends, committed = self._history.newest, self._committed
        keys = [key for key in applied if key[0] == topic]
        return {
            # What was applied after the last look was in the log too.
            "end": sum(max(ends.get(key, 0), applied[key] + 1) for key in keys),
            "applied": sum(applied[key] + 1 for key in keys),
            "committed": sum(committed.get(key, 0) for key in keys),
            "lag_records": sum(_missing(ends.get(key, 0), applied[key]) for key in keys),
            "lag_ms": self._history.lag(applied, now_ms, (topic,)).behind_ms,
        }

    def _scope_status(self, scope: Scope, applied: Offsets, now_ms: int) -> dict[str, int | None]:
        topics = [topic for topic, of_scope in TOPICS.items() if of_scope is scope]
        lag = self._history.lag(applied, now_ms, topics)
        return {"lag_records": lag.records, "lag_ms": lag.behind_ms}

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
            self._away_since_ms = self._clock_ms()
        self._fault = fault


def _look(
    client: LogClient, keys: Sequence[tuple[str, int]]
) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
    """The end of each partition, and what the group has committed. Raises KafkaException."""
    committed = client.committed(keys)
    return client.ends(keys), {key: offset or 0 for key, offset in committed.items()}
