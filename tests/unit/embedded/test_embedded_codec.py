"""The wire format against kio's own readers and writers, for every API in every version that is served."""

from __future__ import annotations

import dataclasses
import datetime
import io
from typing import Any
from uuid import UUID

import pytest
from kio.index import load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer
from kio.serial._serialize import get_writer
from kio.static.primitive import i32Timedelta

from streams.embedded import codec, hot_codec
from streams.embedded.errors import RequestError
from streams.embedded.handle_cluster import api_versions_body
from streams.embedded.hot_codec import FetchResult, ProduceResult
from streams.embedded.request_reader import read_request

SERVED = [
    (api.key, version)
    for api in codec.APIS.values()
    for version in range(api.version_min, api.version_max + 1)
    if not (api.key == 0 and version < 3)
]
MS = i32Timedelta.parse(datetime.timedelta(milliseconds=1500))


@pytest.mark.parametrize("key, version", SERVED)
def test_an_answer_of_defaults_is_readable(key: int, version: int) -> None:
    body = codec.encode(key, version, {"no_such_field": 1})
    entity, size = entity_reader(load_response_schema(key, version))(body, 0)
    assert size == len(body)
    assert getattr(entity, "error_code", 0) == 0


@pytest.mark.parametrize("version", range(9))
def test_metadata_in_every_version(version: int) -> None:
    body = codec.encode(
        3,
        version,
        {
            "brokers": [{"node_id": 1, "host": "h", "port": 9092, "rack": None}],
            "controller_id": 1,
            "cluster_id": "c",
            "topics": [
                {
                    "name": "t",
                    "partitions": [
                        {"partition_index": 3, "leader_id": 1, "replica_nodes": (1,), "isr_nodes": (1,)}
                    ],
                }
            ],
        },
    )
    entity: Any = entity_reader(load_response_schema(3, version))(body, 0)[0]
    assert (entity.brokers[0].host, entity.brokers[0].port) == ("h", 9092)
    assert entity.topics[0].name == "t"
    assert entity.topics[0].partitions[0].partition_index == 3
    assert entity.topics[0].partitions[0].isr_nodes == (1,)


def test_api_versions_lists_what_is_served() -> None:
    entity: Any = entity_reader(load_response_schema(18, 3))(codec.encode(18, 3, api_versions_body(0)), 0)[0]
    listed = {api.api_key: (api.min_version, api.max_version) for api in entity.api_keys}
    assert listed[0] == (0, 9)
    assert listed[1] == (4, 12)
    assert listed[68] == (0, 1)
    assert 69 not in listed


def encoded(entity: Any) -> bytes:
    buffer = io.BytesIO()
    entity_writer(type(entity))(buffer, entity)
    return buffer.getvalue()


def nested(entity_type: Any, name: str) -> Any:
    """The element type of an array field."""
    return entity_type.__dataclass_fields__[name].type.__args__[0]


@pytest.mark.parametrize("version", range(3, 10))
def test_produce_requests(version: int) -> None:
    request_type: Any = load_request_schema(0, version)
    topic_type = nested(request_type, "topic_data")
    partition_type = nested(topic_type, "partition_data")
    request = request_type(
        transactional_id="tx",
        acks=-1,
        timeout=MS,
        topic_data=(
            topic_type(
                name="t",
                partition_data=(
                    partition_type(index=4, records=b"abc"),
                    partition_type(index=5, records=None),
                ),
            ),
        ),
    )
    frame = bytearray(b"head") + encoded(request)
    read = hot_codec.read_produce(memoryview(frame), 4, version)
    assert (read.transactional_id, read.acks) == ("tx", -1)
    assert [(p.topic, p.partition) for p in read.partitions] == [("t", 4), ("t", 5)]
    assert read.partitions[0].records is not None
    assert bytes(read.partitions[0].records) == b"abc"
    assert read.partitions[1].records is None


@pytest.mark.parametrize("version", range(3, 10))
def test_produce_answers(version: int) -> None:
    results = [
        ProduceResult("t", 0, 0, 41, 2),
        ProduceResult("u", 1, 3, -1, -1, "why"),
        ProduceResult("t", 2, 0, 7, 0),
    ]
    body = hot_codec.write_produce(results, version)
    entity, size = entity_reader(load_response_schema(0, version))(body, 0)
    assert size == len(body)
    found = [
        (topic.name, p.index, int(p.error_code), p.base_offset)
        for topic in entity.responses  # type: ignore[attr-defined]
        for p in topic.partition_responses
    ]
    assert found == [("t", 0, 0, 41), ("t", 2, 0, 7), ("u", 1, 3, -1)]


@pytest.mark.parametrize("version", range(4, 13))
def test_fetch_requests(version: int) -> None:
    request_type: Any = load_request_schema(1, version)
    topic_type = nested(request_type, "topics")
    partition_type = nested(topic_type, "partitions")
    request = request_type(
        max_wait=MS,
        min_bytes=2,
        max_bytes=3_000,
        isolation_level=1,
        topics=(
            topic_type(
                topic="t", partitions=(partition_type(partition=4, fetch_offset=99, partition_max_bytes=77),)
            ),
            topic_type(
                topic="u", partitions=(partition_type(partition=5, fetch_offset=0, partition_max_bytes=78),)
            ),
        ),
        **({"forgotten_topics_data": ()} if version >= 7 else {}),
        **({} if version > 14 else {"replica_id": -1}),
    )
    read = hot_codec.read_fetch(memoryview(encoded(request)), 0, version)
    assert (read.wait_ms_max, read.bytes_min, read.bytes_max, read.read_committed) == (1500, 2, 3_000, True)
    assert [tuple(p) for p in read.partitions] == [("t", 4, 99, 77), ("u", 5, 0, 78)]


@pytest.mark.parametrize("version", range(4, 13))
@pytest.mark.parametrize("aborted", [None, [], [(7, 10), (8, 11)]])
def test_fetch_answers(version: int, aborted: list[tuple[int, int]] | None) -> None:
    results = [
        FetchResult("t", 0, 0, 50, 40, 10, aborted, b"r" * 20_000),
        FetchResult("t", 1, 1, 5, 5, 0, aborted, b""),
    ]
    body = b"".join(hot_codec.write_fetch(results, version))
    entity: Any
    entity, size = entity_reader(load_response_schema(1, version))(body, 0)
    assert size == len(body)
    first, second = entity.responses[0].partitions
    assert (first.high_watermark, first.last_stable_offset, first.records) == (50, 40, b"r" * 20_000)
    assert [(a.producer_id, a.first_offset) for a in first.aborted_transactions or ()] == (aborted or [])
    assert int(second.error_code) == 1


def test_headers_old_and_compact() -> None:
    old = codec.read_request_header(bytes.fromhex("0003000400000007000161") + b"body")
    assert (old.api_key, old.version, old.correlation_id, old.client_id, old.body) == (3, 4, 7, "a", 11)
    compact = codec.read_request_header(bytes.fromhex("000c000400000007ffff00") + b"body")
    assert (compact.client_id, compact.body) == (None, 11)


@pytest.mark.parametrize(
    "frame", [b"", b"\x00", bytes.fromhex("0003000400000007000561"), bytes.fromhex("000c000400000007ffff")]
)
def test_a_short_header_is_an_error(frame: bytes) -> None:
    with pytest.raises(RequestError):
        codec.read_request_header(frame)


@pytest.mark.parametrize("count", [b"\x7f\xff\xff\xff", b"\x00\x10\x00\x00"])
def test_an_array_longer_than_its_frame_is_an_error(count: bytes) -> None:
    frame = b"\xff\xff" + b"\xff\xff" + b"\x00\x00\x00\x00" + count
    with pytest.raises(RequestError):
        hot_codec.read_produce(memoryview(frame), 0, 3)


READ = [(key, version) for key, version in SERVED if key not in (0, 1)]
FLEXIBLE = [(key, version) for key, version in READ if codec.is_flexible(key, version)]


def filled(entity: Any) -> Any:
    """An entity with something in every field: strings, two elements in each array."""
    values = {}
    for field in dataclasses.fields(entity):
        inner, is_array, _ = codec.field_shape(field.type)
        value = filled(inner) if dataclasses.is_dataclass(inner) else plain(field.metadata["kafka_type"])
        values[field.name] = (value, value) if is_array else value
    return entity(**values)


def plain(kind: str) -> Any:
    values = {"string": "text", "bytes": b"raw", "bool": True, "uuid": UUID(int=7)}
    return MS if kind.startswith("timedelta") else values.get(kind, 3)


def tagged(entity: Any) -> bytes:
    """The entity on the wire, with two unknown fields in each of its structs."""
    out = b""
    for field in dataclasses.fields(entity):
        value = getattr(entity, field.name)
        inner, is_array, _ = codec.field_shape(field.type)
        if is_array:
            out += codec.write_uvarint(len(value) + 1)
        for item in value if is_array else (value,):
            out += tagged(item) if dataclasses.is_dataclass(inner) else primitive(field, item)
    return out + b"\x02\x63\x05hello\xe4\x07\x00"


def primitive(field: Any, value: Any) -> bytes:
    buffer = io.BytesIO()
    kind = field.metadata["kafka_type"]
    optional = codec.field_shape(field.type)[2]
    get_writer(kind, True, optional and kind in ("string", "bytes"))(buffer, value)
    return buffer.getvalue()


@pytest.mark.parametrize("key, version", READ)
def test_requests_are_read_as_kio_writes_them(key: int, version: int) -> None:
    entity = filled(load_request_schema(key, version))
    frame = b"head" + encoded(entity)
    assert read_request(key, version, frame + b"more", 4) == entity
    for end in range(4, len(frame)):
        with pytest.raises(RequestError):
            read_request(key, version, frame[:end], 4)


@pytest.mark.parametrize("key, version", [(3, 1), (3, 8), (9, 6)])
def test_arrays_may_be_null_where_kafka_says_so(key: int, version: int) -> None:
    schema: Any = load_request_schema(key, version)
    entity = dataclasses.replace(filled(schema), topics=None)
    assert read_request(key, version, encoded(entity), 0).topics is None


@pytest.mark.parametrize("count", [b"\x7f\xff\xff\xff", b"\x20\x00\x00\x00", b"\xff\xff\xff\xff"])
def test_an_array_that_claims_too_much_costs_nothing(count: bytes) -> None:
    # DescribeGroups, whose array may not be null either; kio's native reader ends the process here.
    with pytest.raises(RequestError, match=r"DescribeGroups v0 cannot be read: (an array of|null)"):
        read_request(15, 0, count + b"\x00\x01a", 0)


@pytest.mark.parametrize("key, version", FLEXIBLE)
def test_unknown_tagged_fields_are_stepped_over(key: int, version: int) -> None:
    schema: Any = load_request_schema(key, version)
    assert not any("tag" in field.metadata for field in dataclasses.fields(schema))
    entity = filled(schema)
    assert read_request(key, version, b"head" + encoded(entity), 4) == entity
    frame = b"head" + tagged(entity)
    assert read_request(key, version, frame, 4) == entity
    for end in range(4, len(frame)):
        with pytest.raises(RequestError):
            read_request(key, version, frame[:end], 4)


def test_a_refusal_says_why_where_the_response_can() -> None:
    for key, version in ((68, 0), (1, 13), (71, 0), (11, 9), (17, 1)):
        body = codec.encode_refusal(key, version, 35)
        assert body is not None
        entity: Any = entity_reader(load_response_schema(key, version))(body, 0)[0]
        assert int(entity.error_code) == 35
    assert codec.encode_refusal(3, 12, 35) is None
    assert codec.encode_refusal(69, 0, 35) is None
    assert codec.encode_refusal(68, 99, 35) is None
    assert codec.encode_refusal(999, 0, 35) is None
