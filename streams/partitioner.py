"""Which partition a key belongs to: Kafka's DefaultPartitioner, murmur2 of the key's bytes.

Every client must agree on this or one user's events land on several partitions. librdkafka's own default is
CRC32, so our producers compute the partition here and name it explicitly.

Lists of ids are hashed as columns: about 10 million short ids a second on one core, against 27 million
bare dictionary look-ups. A cache of earlier answers could gain little and would need a bound: there is none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SEED = 0x9747B28C
MULTIPLIER = 0x5BD1E995
SHIFT = 24
MASK = 0xFFFFFFFF
POSITIVE = 0x7FFFFFFF

# Below this many keys the fixed cost of a few dozen numpy calls exceeds that of hashing them one by one.
SCALAR_KEYS_MAX = 24
# Keys hashed at once: with ids of 256 bytes the padded matrix stays at 2 MiB.
CHUNK_KEYS = 8192

# Partitions are u16 on the wire; also far more than one topic of this engine can use.
PARTITIONS_MAX = 0xFFFF


def murmur2(key: bytes) -> int:
    """The 32-bit murmur2 of `key` as Kafka computes it, as a signed integer like Java's.

    Source: org.apache.kafka.common.utils.Utils.murmur2 (Austin Appleby's MurmurHash2 with Kafka's seed).
    """
    length = len(key)
    h = SEED ^ length
    whole = length & ~3
    for start in range(0, whole, 4):
        k = int.from_bytes(key[start : start + 4], "little") * MULTIPLIER & MASK
        k = (k ^ k >> SHIFT) * MULTIPLIER & MASK
        h = (h * MULTIPLIER & MASK) ^ k
    if whole != length:
        h = (h ^ int.from_bytes(key[whole:], "little")) * MULTIPLIER & MASK
    h = (h ^ h >> 13) * MULTIPLIER & MASK
    h ^= h >> 15
    return h - (1 << 32) if h > POSITIVE else h


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of `key`. Kafka masks the sign bit of the hash, it does not take the absolute value."""
    return (murmur2(key) & POSITIVE) % partitions


def partitions_for(ids: Sequence[str], partitions: int) -> NDArray[np.uint16]:
    """The partition of each id (its UTF-8 bytes are the key): u16[len(ids)].

    Raises ValueError for a partition count that does not fit u16, UnicodeEncodeError for a lone surrogate.
    """
    if not 1 <= partitions <= PARTITIONS_MAX:
        raise ValueError(f"partitions must be 1 to {PARTITIONS_MAX}, not {partitions}")
    result = np.empty(len(ids), np.uint16)
    if len(ids) <= SCALAR_KEYS_MAX:
        for index, id_ in enumerate(ids):
            result[index] = partition_for(id_.encode(), partitions)
        return result
    for start in range(0, len(ids), CHUNK_KEYS):
        keys = [id_.encode() for id_ in ids[start : start + CHUNK_KEYS]]
        positive = murmur2_many(keys) & np.uint32(POSITIVE)
        result[start : start + len(keys)] = positive % np.uint32(partitions)
    return result


def murmur2_many(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """murmur2 of each key without sign: u32[len(keys)]. Works on a matrix of the longest key's width."""
    lengths = np.fromiter(map(len, keys), np.uint32, len(keys))
    words = _padded_words(keys, int(lengths.max(initial=0)))
    whole = lengths >> np.uint32(2)
    h = np.uint32(SEED) ^ lengths
    for column in range(words.shape[1]):
        k = words[:, column] * np.uint32(MULTIPLIER)
        k = (k ^ k >> np.uint32(SHIFT)) * np.uint32(MULTIPLIER)
        h = np.where(column < whole, (h * np.uint32(MULTIPLIER)) ^ k, h)
    # Padding is zero, so the word behind the last whole one already is the little-endian tail.
    tail = words[np.arange(len(keys)), np.minimum(whole, words.shape[1] - 1)]
    h = np.where(lengths & np.uint32(3) != 0, (h ^ tail) * np.uint32(MULTIPLIER), h)
    h = (h ^ h >> np.uint32(13)) * np.uint32(MULTIPLIER)
    return h ^ h >> np.uint32(15)


def _padded_words(keys: Sequence[bytes], longest: int) -> NDArray[np.uint32]:
    """The keys as little-endian words, zero-padded: u32[len(keys), words of the longest, at least 1]."""
    width = max(4, (longest + 3) & ~3)
    padded = b"".join([key.ljust(width, b"\0") for key in keys])
    return np.frombuffer(padded, np.dtype("<u4")).reshape(len(keys), width // 4)
