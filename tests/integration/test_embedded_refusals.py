"""What is not there or not served is refused with the protocol's own error, in every version of every API."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from kio.index import load_request_schema, load_response_schema
from kio.serial import entity_reader

from streams.embedded import EmbeddedLog
from streams.embedded.codec import APIS, ERRORS, _entity_writer, field_shape, is_flexible
from tests.integration.embedded_wire import Wire, framed

VALUES: dict[str, Any] = {
    # A real time-out, else it would be that which is refused.
    "transaction_timeout": 1_000, "session_timeout": 6_000, "rebalance_timeout": 6_000, "resource_type": 2,
    "member_id": "nobody", "generation_id": 7, "producer_id": 77, "producer_epoch": 0, "count": 3,
    "protocol_type": "consumer", "timestamp": -1, "replica_id": -1, "max_bytes": 1_000, "acks": -1,
    "mechanism": "PLAIN", "generation_id_or_member_epoch": 7,
    "producer_id_v3": 77, "v3_and_below_producer_id": 77,
}  # fmt: skip
MISSING = "missing"

# What an API says of a topic, group, member, transaction or login that does not exist.
EXPECTED = {
    "Produce": "unknown_topic_or_partition",
    "Fetch": "unknown_topic_or_partition",
    "ListOffsets": "unknown_topic_or_partition",
    "Metadata": "unknown_topic_or_partition",
    "OffsetCommit": "unknown_member_id",
    "Heartbeat": "unknown_member_id",
    "LeaveGroup": "unknown_member_id",
    "SyncGroup": "unknown_member_id",
    "JoinGroup": "unknown_member_id",
    "DeleteTopics": "unknown_topic_or_partition",
    "DeleteRecords": "unknown_topic_or_partition",
    "AddPartitionsToTxn": "unknown_topic_or_partition",
    "AddOffsetsToTxn": "invalid_producer_id_mapping",
    "EndTxn": "invalid_producer_id_mapping",
    "DescribeConfigs": "unknown_topic_or_partition",
    "AlterConfigs": "unknown_topic_or_partition",
    "IncrementalAlterConfigs": "unknown_topic_or_partition",
    "CreatePartitions": "unknown_topic_or_partition",
    "DeleteGroups": "group_id_not_found",
    "OffsetDelete": "group_id_not_found",
    "ConsumerGroupHeartbeat": "unsupported_version",
    "SaslHandshake": "illegal_sasl_state",
    "SaslAuthenticate": "illegal_sasl_state",
}
CASES = [
    (api.name, api.key, version)
    for api in APIS.values()
    if api.name in EXPECTED
    for version in range(3 if api.key == 0 else api.version_min, api.version_max + 1)
]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    running = EmbeddedLog(tmp_path / "log")
    await running.start()
    yield running
    await running.stop()


def missing(schema: Any) -> dict[str, Any]:
    """An entity in which every name is of something that does not exist, one element in each array."""
    values = {}
    for field in dataclasses.fields(schema):
        if "tag" in field.metadata:
            continue
        inner, is_array, _ = field_shape(field.type)
        value = missing(inner) if dataclasses.is_dataclass(inner) else plain(field)
        values[field.name] = [value] if is_array else value
    return values


def plain(field: dataclasses.Field[Any]) -> Any:
    kind = field.metadata["kafka_type"]
    if field.name in VALUES:
        return VALUES[field.name]
    if "instance_id" in field.name or field.name == "rack_id":
        return None
    return {"string": MISSING, "bytes": b"", "records": b"", "bool": False, "uuid": bytes(16)}.get(kind, 0)


def errors(entity: Any) -> Iterator[int]:
    """Every error number in an answer that is not zero."""
    for field in dataclasses.fields(entity):
        value = getattr(entity, field.name)
        if field.name.endswith("error_code") and int(value):
            yield int(value)
        for item in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(item):
                yield from errors(item)


async def test_whatever_does_not_exist_is_named_by_its_error(log: EmbeddedLog) -> None:
    wire = await Wire.open(log)
    found = {}
    for name, key, version in CASES:
        body: list[bytes] = []
        schema = load_request_schema(key, version)
        _entity_writer(schema)(body, missing(schema))
        tags = b"\x00" if is_flexible(key, version) else b""
        wire.send(framed(struct.pack(">hhih", key, version, 5, -1) + tags + b"".join(body)))
        correlation_id, answer = await wire.answer()
        assert correlation_id == 5
        entity, size = entity_reader(load_response_schema(key, version))(answer[len(tags) :], 0)
        assert size == len(answer) - len(tags)
        found[(name, version)] = set(errors(entity))
    assert found == {(name, version): {ERRORS[EXPECTED[name]]} for name, _, version in CASES}
