"""Reads committed records of many partitions from given offsets to given ends."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from streams.errors import MirrorError
from streams.mirror.runs import Copied

Place = tuple[str, int]

_BATCH = 5_000
# A consumer waits this long for a batch to fill up.
_WAIT_S = 0.1
_SILENCE_S = 60.0


def committed_records(
    options: Mapping[str, Any], starts: Mapping[Place, int], ends: Mapping[Place, int]
) -> Iterator[dict[Place, list[Copied]]]:
    """Records below `ends`, in order in each partition, until every partition has reached its end.

    Raises MirrorError when the log is silent or no longer has an offset.
    """
    left = {place for place, start in starts.items() if start < ends[place]}
    if not left:
        return
    consumer = Consumer(_reader_options(options))
    try:
        consumer.assign([TopicPartition(*place, starts[place]) for place in left])
        heard_s = time.monotonic()
        while left:
            messages = consumer.consume(_BATCH, _WAIT_S)
            if messages:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > _SILENCE_S:
                raise MirrorError(f"nothing came for {_SILENCE_S:g} s from {sorted(left)}; run again")
            found: dict[Place, list[Copied]] = {}
            for message in messages:
                _take(message, found, ends, left)
            yield found
    finally:
        consumer.close()


def _take(
    message: Message, found: dict[Place, list[Copied]], ends: Mapping[Place, int], left: set[Place]
) -> None:
    place, offset = _place(message), _number(message.offset())
    error = message.error()
    if error is None:
        if offset < ends[place]:
            found.setdefault(place, []).append(_copied(message, offset))
        if offset >= ends[place] - 1:
            left.discard(place)
    elif error.code() == KafkaError._PARTITION_EOF:
        if offset >= ends[place]:
            left.discard(place)
    elif error.fatal() or error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        raise MirrorError(f"{place[0]} partition {place[1]}: {error.str()}; run again")


def _copied(message: Message, offset: int) -> Copied:
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return Copied(
        offset,
        message.timestamp()[1],
        _raw(message.key()),
        _raw(message.value()),
        tuple((name, _raw(content)) for name, content in pairs),
    )


def _raw(content: str | bytes | None) -> bytes | None:
    return content.encode() if isinstance(content, str) else content


def _place(message: Message) -> Place:
    return str(message.topic()), _number(message.partition())


def _number(value: int | None) -> int:
    assert value is not None, "a message of a consumer has a place"
    return value


def _reader_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **options,
        # librdkafka asks for a group even of a reader that never joins one.
        "group.id": f"tidal-mirror-{uuid.uuid4().hex}",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        "fetch.wait.max.ms": 100,
        "queued.max.messages.kbytes": 65_536,
        "log_level": 2,
    }
