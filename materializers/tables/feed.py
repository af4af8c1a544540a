"""The change feed: one row for each flush with the hot values that changed, for readers that keep columns in
RAM.

A row of table ``changes`` has the flush's number as its key, u64 big endian, so that a reader scans from the
last number it has seen. Rows are trimmed after a while; a reader that finds a hole must read the tables anew.
"""

from __future__ import annotations

from typing import Final

import msgspec

CHANGES_TABLE: Final = "changes"

OWNERSHIP_SECTION: Final = "ownership"
"""Payload: ``OwnershipChange``. The partition's rows were replaced as a whole: read its tables anew."""


REPLACED_SECTION: Final = "replaced"
"""No payload. Rows of the partition were replaced by others, as by a rebuild: to readers the same as a new
owner.
"""


class OwnershipChange(msgspec.Struct, frozen=True, array_like=True):
    """A worker acquired a partition (its rows are complete from here on) or let it go.

    Writers put one in their feed; the read side answers with its own, one for each partition whose owner
    changed between two catch-ups, and leaves the partition's other sections of that catch-up out.
    """

    owned: bool
    generation: int


class Section(msgspec.Struct, frozen=True, array_like=True):
    """What one view of one partition says about a flush; encoders and decoders are in
    ``materializers.rows``.
    """

    name: str
    partition: int
    payload: bytes


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One flush. ``written_ms`` is wall clock and only measures freshness."""

    sequence: int
    written_ms: int
    sections: list[Section]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Change)
_ownership_decoder = msgspec.msgpack.Decoder(OwnershipChange)


def change_key(sequence: int) -> bytes:
    return sequence.to_bytes(8, "big")


def encode_change(change: Change) -> bytes:
    return _encoder.encode(change)


def decode_change(row: bytes) -> Change:
    return _decoder.decode(row)


def encode_ownership_change(change: OwnershipChange) -> bytes:
    return _encoder.encode(change)


def decode_ownership_change(payload: bytes) -> OwnershipChange:
    return _ownership_decoder.decode(payload)
