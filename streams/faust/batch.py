"""One partition's records of one fetch, in the shape of a single record."""

from __future__ import annotations

from typing import Any


class RecordBatch:
    """What the scheduler hands on instead of records: it has a ConsumerRecord's attributes, so that Faust
    carries it as one message. ``value`` is the list of records; ``offset`` is that of the last.
    """

    __slots__ = ("offset", "partition", "timestamp", "timestamp_type", "topic", "value")

    headers: tuple[()] = ()
    key = None
    checksum = None
    serialized_key_size = 0
    serialized_value_size = 0

    def __init__(self, topic: str, partition: int, records: list[Any]) -> None:
        last = records[-1]
        self.topic = topic
        self.partition = partition
        self.offset: int = last.offset
        self.timestamp: int = last.timestamp
        self.timestamp_type: int = last.timestamp_type
        self.value = records
