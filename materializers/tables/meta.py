"""What a partition knows about itself: how far it has applied its sources, and whose descendant its rows
are.
"""

from __future__ import annotations

from typing import Final

import msgspec

META_TABLE: Final = "meta"
"""Table of both records below. The key is the shard's name, or ``OWNERSHIP_KEY``."""
OWNERSHIP_KEY: Final = b"partition"


class ShardMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Written with the rows of every flush, in the same write batch.

    Attributes:
        applied: last offset applied, by source topic.
        hw: item shard: last offset of ``tidal.signals`` applied, by source partition.
        rerouted_hw: user shard: the same for events that were found on a wrong partition.
        sent_away: user shard: last offset of an event found here that belongs to another partition, by that
            partition.
        forgotten_hw: user shard: last offset of ``tidal.users`` whose erasure was applied, by its partition.
        counters: small state of the shard that belongs to the same write (see the shard).
    """

    applied: dict[str, int] = {}
    hw: dict[int, int] = {}
    rerouted_hw: dict[int, int] = {}
    sent_away: dict[int, int] = {}
    forgotten_hw: dict[int, int] = {}
    counters: dict[str, int] = {}


class Ownership(msgspec.Struct, frozen=True, kw_only=True):
    """The last record of every checkpoint, and a row on the owner's disk.

    Attributes:
        lineage: id of the last checkpoint known to be committed ("" = none yet).
        attempt: id of the checkpoint being tried; it may have been committed.
        attempt_flush: last flush that the attempt contains: later rows are pending whatever became of it.
        generation: how often the partition was acquired, by anybody. The highest one owns.
        acquired_ms: wall clock of the acquisition, for people.
    """

    lineage: str = ""
    attempt: str = ""
    attempt_flush: int = 0
    generation: int = 0
    acquired_ms: int = 0


_encoder = msgspec.msgpack.Encoder()
_shard_decoder = msgspec.msgpack.Decoder(ShardMeta)
_ownership_decoder = msgspec.msgpack.Decoder(Ownership)


def encode(record: ShardMeta | Ownership) -> bytes:
    return _encoder.encode(record)


def decode_shard(row: bytes | None) -> ShardMeta:
    """The shard's record; an empty one if there is no row yet."""
    return ShardMeta() if row is None else _shard_decoder.decode(row)


def decode_ownership(row: bytes | None) -> Ownership:
    """The ownership record; an empty one if there is no row yet."""
    return Ownership() if row is None else _ownership_decoder.decode(row)
