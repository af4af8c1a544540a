"""Fetch: whole batches straight from the files; an empty-handed reader is woken by the commit itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from streams.embedded import batch
from streams.embedded.broker import Broker
from streams.embedded.codec import ERRORS
from streams.embedded.errors import CorruptBatchError
from streams.embedded.file_slice import Records, whole
from streams.embedded.hot_codec import FetchedPartition, FetchRequest, FetchResult, write_fetch
from streams.embedded.partition import PartitionLog

logger = logging.getLogger(__name__)

_UNKNOWN = ERRORS["unknown_topic_or_partition"]
_OUT_OF_RANGE = ERRORS["offset_out_of_range"]
_NO_SESSION = ERRORS["fetch_session_id_not_found"]
# However long a client wants to wait, a minute is longer than any default.
_WAIT_MS_MAX = 60_000

Respond = Callable[[list[Records] | None], None]


class PendingFetch:
    """One Fetch that may wait for data. Answers exactly once, unless it is cancelled."""

    def __init__(
        self, broker: Broker, request: FetchRequest, version: int, respond: Respond, first: int
    ) -> None:
        self._broker = broker
        self._request = request
        self._version = version
        self._respond = respond
        self._timer: asyncio.TimerHandle | None = None
        self._woken = False
        self._done = False
        self._logs: list[PartitionLog] = []
        count = len(request.partitions)
        # Begin with another partition each time, so that a busy one cannot starve the others.
        start = first % count if count else 0
        self._partitions = request.partitions[start:] + request.partitions[:start]

    def start(self) -> None:
        """Answer now if there is enough, else wait."""
        results, size, failed = self._gather()
        wait_ms = min(self._request.wait_ms_max, _WAIT_MS_MAX)
        if size >= self._request.bytes_min or failed or wait_ms <= 0 or not results:
            self._finish(results)
            return
        self._logs = [log for item in self._partitions if (log := self._log(item)) is not None]
        for log in self._logs:
            log.waiters[self._wake] = None
        self._timer = asyncio.get_running_loop().call_later(wait_ms / 1000, self._time_out)

    def cancel(self) -> None:
        """The connection is gone."""
        self._done = True
        self._stop_waiting()

    def _wake(self) -> None:
        # Several partitions move in one commit cycle: gather once, after all of them.
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._retry)

    def _retry(self) -> None:
        self._woken = False
        if self._done:
            return
        results, size, failed = self._gather()
        if size >= self._request.bytes_min or failed:
            self._finish(results)

    def _time_out(self) -> None:
        if not self._done:
            self._finish(self._gather()[0])

    def _finish(self, results: list[FetchResult]) -> None:
        self._done = True
        self._stop_waiting()
        self._respond(write_fetch(results, self._version))

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for log in self._logs:
            log.waiters.pop(self._wake, None)
        self._logs = []

    # -- reading -------------------------------------------------------------------------------

    def _log(self, item: FetchedPartition) -> PartitionLog | None:
        return self._broker.topics.partition(item.topic, item.partition)

    def _gather(self) -> tuple[list[FetchResult], int, bool]:
        """(results, record bytes in them, is there an error to tell at once)."""
        left = min(
            self._request.bytes_max, self._broker.settings.fetch_bytes_max, max(self._broker.unsent.room, 1)
        )
        results: list[FetchResult] = []
        total = 0
        failed = False
        for item in self._partitions:
            result = self._read(item, left - total, is_first=total == 0)
            results.append(result)
            total += len(result.records)
            failed = failed or result.error != 0
        return results, total, failed

    def _read(self, item: FetchedPartition, left: int, *, is_first: bool) -> FetchResult:
        log = self._log(item)
        if log is None:
            return FetchResult(item.topic, item.partition, _UNKNOWN, -1, -1, -1, None, b"")
        committed = self._request.read_committed
        error = 0
        records: Records = b""
        if item.offset < log.start_offset or item.offset > log.end_offset:
            error = _OUT_OF_RANGE
        elif left > 0:
            limit = min(item.bytes_max, left)
            try:
                records = log.read(item.offset, limit, committed=committed, at_least_one=is_first)
            except CorruptBatchError as damage:
                logger.warning("%s-%d: %s", item.topic, item.partition, damage)
                error = ERRORS[damage.code]
        aborted: list[tuple[int, int]] | None = None
        if committed:
            aborted = []
            if records and log.aborted and log.aborted[-1].last_offset >= item.offset:
                records = whole(records)
                aborted = _aborted(log, item.offset, records)
        return FetchResult(
            item.topic,
            item.partition,
            error,
            log.high_watermark.offset,
            log.last_stable_offset,
            log.start_offset,
            aborted,
            records,
        )


def _aborted(log: PartitionLog, offset: int, records: bytes) -> list[tuple[int, int]]:
    """Aborted transactions within the batches that are sent."""
    position = 0
    end = offset
    while position + batch.HEADER_BYTES <= len(records):
        header = batch.read_header(records, position)
        end = header.next_offset
        position += header.size
    return [(entry.producer_id, entry.first_offset) for entry in log.aborted_in(offset, end)]


class FetchHandler:
    """Starts Fetches; counts them, for a fair rotation of partitions."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._count = 0

    def handle(self, request: FetchRequest, version: int, respond: Respond) -> PendingFetch | None:
        if request.session_id:
            # Sessions are never given out; a client that thinks it has one begins again without.
            respond(write_fetch([], version, _NO_SESSION))
            return None
        self._count += 1
        pending = PendingFetch(self._broker, request, version, respond, self._count)
        pending.start()
        return pending
