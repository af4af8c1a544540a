"""What a test needs to see of the log: topics made, and every event that is really in it."""

from __future__ import annotations

from typing import NamedTuple

from schemas.records.columnar import decode_columnar
from schemas.settings import TopicSettings
from schemas.weights import WEIGHT_SCALE
from streams.admin import init_topics
from streams.topics import SIGNALS, all_topics
from streams.whole_topic import WholeTopicReader

READ_TIMEOUT_S = 30


class LoggedEvent(NamedTuple):
    """One event, and where its record is."""

    partition: int
    offset: int
    kind: str
    item: str
    user: str
    weight: float


def make_topics(bootstrap: str, partitions: int = 4) -> None:
    """All topics of the engine."""
    init_topics(bootstrap, all_topics(TopicSettings(partitions=partitions)))


def logged_events(bootstrap: str) -> list[LoggedEvent]:
    """Every event of every columnar record of tidal.signals, each partition in its order."""
    with WholeTopicReader(bootstrap, SIGNALS) as reader:
        records = reader.read_all(READ_TIMEOUT_S)
    events = []
    for partition, offset, _, _, value in records:
        columns = decode_columnar(value or b"")
        events += [
            LoggedEvent(
                partition,
                offset,
                columns.kinds[columns.kind[row]],
                columns.items[columns.item[row]],
                columns.users[columns.user[row]],
                int(columns.weight[row]) / WEIGHT_SCALE,
            )
            for row in range(len(columns))
        ]
    return events
