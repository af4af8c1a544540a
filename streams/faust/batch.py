"""One partition's records of one fetch, in the shape of a single record."""

from __future__ import annotations

from collections.abc import Sequence

from streams.records import Records


class RecordBatch:
    """What the scheduler hands on instead of records: it has a ConsumerRecord's attributes, so that Faust
    carries it as one message. ``value`` holds the records in parts of bounded size; ``offset`` is that of the
    last record.
    """

    __slots__ = ("offset", "partition", "timestamp", "topic", "value")

    headers: tuple[()] = ()
    key = None
    checksum = None
    serialized_key_size = 0
    serialized_value_size = 0
    timestamp_type = 0

    def __init__(self, topic: str, partition: int, parts: Sequence[Records]) -> None:
        last = parts[-1]
        self.topic = topic
        self.partition = partition
        self.offset = last.last_offset
        self.timestamp = int(last.timestamp[-1])
        self.value = parts
