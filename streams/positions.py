"""Positions in the log, and the opaque token that stands for them outside.

A position is what an acknowledgement returns and what `AFTER` waits for: the record at (topic, partition,
offset) is in the log. One request may touch several partitions, so a token carries a list of positions.

Token: URL-safe base64 without padding of

    u8 version | msgpack [[topic, [[partition, offset], ...]], ...] | first 4 bytes of BLAKE3 of all before

The check bytes are against typing mistakes and cut-off copies, not against forgery: a position grants
nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
from blake3 import blake3

from streams.errors import PositionError

TOKEN_VERSION = 1
CHECK_BYTES = 4
# A request has at most 1,000 events and a topic seldom more than a few dozen partitions; a token longer than
# this is not ours. Eight KiB also is what HTTP servers usually allow for a whole request line.
TOKEN_CHARS_MAX = 8192


class Position(msgspec.Struct, frozen=True, order=True):
    """The place of one record in the log. `offset` counts records of the partition from 0."""

    topic: str
    partition: int
    offset: int

    def encode(self) -> str:
        """The token of this position alone."""
        return Positions((self,)).encode()

    @classmethod
    def parse(cls, token: str) -> Position:
        """The one position in `token`; raises PositionError for a bad token or one of several positions."""
        positions = Positions.parse(token)
        if len(positions.positions) != 1:
            raise PositionError(
                f"position token stands for {len(positions.positions)} positions where one is expected; "
                "read it with Positions.parse"
            )
        return positions.positions[0]


class Positions(msgspec.Struct, frozen=True):
    """Positions in several partitions, sorted; one for each, the newest, which implies the older ones."""

    positions: tuple[Position, ...]

    @classmethod
    def of(cls, positions: Iterable[Position]) -> Positions:
        """The highest position in each partition of each topic."""
        newest: dict[tuple[str, int], Position] = {}
        for position in positions:
            key = (position.topic, position.partition)
            if key not in newest or newest[key].offset < position.offset:
                newest[key] = position
        return cls(tuple(sorted(newest.values())))

    def __iter__(self) -> Iterator[Position]:
        return iter(self.positions)

    def encode(self) -> str:
        """The opaque, URL-safe token."""
        topics: dict[str, list[tuple[int, int]]] = {}
        for position in self.positions:
            topics.setdefault(position.topic, []).append((position.partition, position.offset))
        body = bytes([TOKEN_VERSION]) + msgspec.msgpack.encode(list(topics.items()))
        return base64.urlsafe_b64encode(body + _check(body)).rstrip(b"=").decode()

    @classmethod
    def parse(cls, token: str) -> Positions:
        """The positions in `token`; raises PositionError that says what is wrong with it."""
        body = _checked_body(token)
        if body[0] != TOKEN_VERSION:
            raise PositionError(
                f"position token has version {body[0]}, this release reads {TOKEN_VERSION}; "
                "write again and use the position of that answer"
            )
        try:
            topics = _BODY.decode(body[1:])
        except msgspec.MsgspecError as error:
            raise PositionError(f"position token {_shown(token)} does not hold positions: {error}") from error
        return cls(tuple(Position(topic, *place) for topic, places in topics for place in places))


_Natural = Annotated[int, msgspec.Meta(ge=0)]
_BODY = msgspec.msgpack.Decoder(list[tuple[str, list[tuple[_Natural, _Natural]]]])


def _checked_body(token: str) -> bytes:
    if not 0 < len(token) <= TOKEN_CHARS_MAX:
        raise PositionError(f"a position token has 1 to {TOKEN_CHARS_MAX} characters, not {len(token)}")
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise PositionError(f"position token {_shown(token)} is not URL-safe base64: {error}") from error
    body, check = raw[:-CHECK_BYTES], raw[-CHECK_BYTES:]
    if not body or check != _check(body):
        raise PositionError(
            f"position token {_shown(token)} is damaged or cut off; pass it on exactly as it was returned"
        )
    return body


def _check(body: bytes) -> bytes:
    return blake3(body).digest(CHECK_BYTES)


def _shown(token: str) -> str:
    return repr(token if len(token) <= 40 else token[:40] + "…")
