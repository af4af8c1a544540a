"""Look-up and deletion by offset: ListOffsets, DeleteRecords."""

from __future__ import annotations

import logging
from typing import Any

from streams.embedded.broker import Broker, Caller
from streams.embedded.codec import ERRORS, ResponseBody
from streams.embedded.errors import CorruptBatchError
from streams.embedded.partition import PartitionLog

logger = logging.getLogger(__name__)

_LATEST, _EARLIEST, _NEWEST_TIME = -1, -2, -3


class OffsetHandlers:
    """Where a partition begins and ends, and which offset a time has."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def list_offsets(self, request: Any, caller: Caller) -> ResponseBody:
        committed = getattr(request, "isolation_level", 0) == 1
        return {
            "topics": [
                {
                    "name": topic.name,
                    "partitions": [self._find(topic.name, asked, committed) for asked in topic.partitions],
                }
                for topic in request.topics
            ]
        }

    def _find(self, topic: str, asked: Any, committed: bool) -> dict[str, Any]:
        log = self._broker.topics.partition(topic, asked.partition_index)
        if log is None:
            return {
                "partition_index": asked.partition_index,
                "error_code": ERRORS["unknown_topic_or_partition"],
            }
        try:
            offset, timestamp = _look_up(log, asked.timestamp, committed)
        except CorruptBatchError as damage:
            logger.warning("%s-%d: %s", topic, asked.partition_index, damage)
            return {"partition_index": asked.partition_index, "error_code": ERRORS[damage.code]}
        return {
            "partition_index": asked.partition_index,
            "offset": offset,
            "timestamp": timestamp,
            "leader_epoch": 0 if offset >= 0 else -1,
        }

    async def delete_records(self, request: Any, caller: Caller) -> ResponseBody:
        topics = [
            {
                "name": topic.name,
                "partitions": [self._delete(topic.name, asked) for asked in topic.partitions],
            }
            for topic in request.topics
        ]
        await self._broker.commit.barrier()
        return {"topics": topics}

    def _delete(self, topic: str, asked: Any) -> dict[str, Any]:
        log = self._broker.topics.partition(topic, asked.partition_index)
        error = ""
        if log is None:
            error = "unknown_topic_or_partition"
        elif not log.config.is_deleted:
            # A compacted topic's records belong to its keys, not to its age.
            error = "policy_violation"
        elif not -1 <= asked.offset <= log.high_watermark.offset:
            error = "offset_out_of_range"
        if error or log is None:
            return {
                "partition_index": asked.partition_index,
                "low_watermark": -1,
                "error_code": ERRORS[error],
            }
        self._broker.topics.move_start(log, log.high_watermark.offset if asked.offset == -1 else asked.offset)
        return {"partition_index": asked.partition_index, "low_watermark": log.start_offset}


def _look_up(log: PartitionLog, timestamp: int, committed: bool) -> tuple[int, int]:
    """(offset, timestamp) for a time or one of the special values; -1 for what there is not."""
    if timestamp == _LATEST:
        return (log.last_stable_offset if committed else log.high_watermark.offset), -1
    if timestamp == _EARLIEST:
        return log.start_offset, -1
    if timestamp == _NEWEST_TIME:
        found = log.newest_time(committed=committed)
    else:
        found = log.offset_for_time(timestamp, committed=committed)
    return (-1, -1) if found is None else (found.offset, found.timestamp)
