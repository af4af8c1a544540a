"""murmur2 and the partition it gives, against Kafka's own values and another client's implementation."""

from __future__ import annotations

import numpy as np
import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from streams.partitioner import (
    CHUNK_KEYS,
    SCALAR_KEYS_MAX,
    murmur2,
    murmur2_many,
    partition_for,
    partitions_for,
)

# Apache Kafka, clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java, testMurmur2.
KAFKA_VALUES = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "expected"), KAFKA_VALUES.items())
def test_murmur2_gives_kafkas_own_test_values(key: bytes, expected: int) -> None:
    """The values of Kafka's unit test."""
    assert murmur2(key) == expected


def test_a_negative_hash_loses_its_sign_bit_and_not_its_sign() -> None:
    """Kafka's toPositive is a mask; abs() would give another partition."""
    assert partition_for(b"21", 1000) == (-973932308 & 0x7FFFFFFF) % 1000
    assert partition_for(b"21", 1000) != 973932308 % 1000


@given(st.binary(max_size=300), st.integers(1, 0xFFFF))
def test_murmur2_agrees_with_another_client(key: bytes, partitions: int) -> None:
    """aiokafka was written independently of this module."""
    assert murmur2(key) & 0xFFFFFFFF == aiokafka_murmur2(key)
    assert partition_for(key, partitions) == (aiokafka_murmur2(key) & 0x7FFFFFFF) % partitions


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=60))
def test_hashing_as_columns_equals_hashing_one_by_one(keys: list[bytes]) -> None:
    """Keys of all lengths side by side, the empty key and trailing zero bytes included."""
    assert murmur2_many(keys).astype(np.int32).tolist() == [murmur2(key) for key in keys]


@pytest.mark.parametrize("count", [0, 1, SCALAR_KEYS_MAX, SCALAR_KEYS_MAX + 1, CHUNK_KEYS + 3])
def test_lists_are_partitioned_on_every_path(count: int) -> None:
    """One by one, as columns, and in several chunks."""
    ids = [f"usuário_{index * 7919}" for index in range(count)]
    result = partitions_for(ids, 8)
    assert result.dtype == np.uint16
    assert result.tolist() == [partition_for(id_.encode(), 8) for id_ in ids]


def test_a_partition_count_that_cannot_be_is_refused() -> None:
    """Zero would divide by zero, 65,536 would wrap round."""
    for partitions in (0, 65536):
        with pytest.raises(ValueError, match="partitions must be 1 to 65535"):
            partitions_for(["a"], partitions)
