"""Cursors: opaque, signed, and enough to go on without any memory of the page before.

Token: URL-safe base64 of ``u8 version | 16 bytes of keyed BLAKE3 | msgpack body``. The body pins schema
version, profile version, the query, time and seed, and carries the EntityIds shown so far, so that no page
ever repeats an item and none that still qualifies is skipped, whatever moved in between.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

import msgspec
import numpy as np
from blake3 import blake3

from queryd.errors import CursorError
from queryd.hot.arrays import U64
from queryd.language.ast import LIMIT_DEFAULT, Query
from queryd.language.text import to_text

CURSOR_VERSION: Final = 1
SHOWN_MAX: Final = 2_000
"""Items over all pages of one list; 8 bytes of token each."""
_TAG_BYTES: Final = 16
_CHARS_MAX: Final = 65_536


class CursorState(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor pins: ``query`` digests the query without its paging, ``shown`` little-endian u64s."""

    schema_version: int
    profile: str
    query: bytes
    at_ms: int
    seed: int
    issued_ms: int
    shown: bytes

    @property
    def shown_ids(self) -> U64:
        """EntityIds shown on the pages before, u64[n]."""
        return np.frombuffer(self.shown, dtype="<u8").astype(np.uint64)


_decoder = msgspec.msgpack.Decoder(CursorState)


class CursorCodec:
    """Signs and checks cursors.

    Args:
        key: 32 secret bytes; every daemon behind one address must have the same.
        life_ms: how long a cursor may be continued.
    """

    def __init__(self, key: bytes, life_ms: int = 3_600_000) -> None:
        assert len(key) == blake3.key_size
        self._key = key
        self._life_ms = life_ms

    def encode(self, state: CursorState) -> str:
        """The token of ``state``."""
        body = msgspec.msgpack.encode(state)
        raw = bytes((CURSOR_VERSION,)) + self._tag(body) + body
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def decode(self, token: str, now_ms: int) -> CursorState:
        """The state of a token that this key has signed.

        Raises:
            CursorError: tampered with, cut off, of another version, or expired.
        """
        if not 0 < len(token) <= _CHARS_MAX:
            raise CursorError("the cursor is empty or too long; pass it on exactly as it was returned")
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise CursorError(
                "the cursor is not one of ours; pass it on exactly as it was returned"
            ) from None
        body = raw[1 + _TAG_BYTES :]
        if raw[:1] != bytes((CURSOR_VERSION,)) or not hmac.compare_digest(
            raw[1 : 1 + _TAG_BYTES], self._tag(body)
        ):
            raise CursorError("the cursor was changed or comes from another server; begin at the first page")
        state = _decoder.decode(body)
        if now_ms - state.issued_ms > self._life_ms:
            raise CursorError(f"the cursor expired after {self._life_ms // 1000} s; begin at the first page")
        return state

    def _tag(self, body: bytes) -> bytes:
        return blake3(body, key=self._key).digest(_TAG_BYTES)


def query_digest(query: Query) -> bytes:
    """What two pages of one list have in common: the query without paging, waiting and explaining."""
    plain = msgspec.structs.replace(
        query, cursor=None, after=None, explain="no", limit=LIMIT_DEFAULT, fields=(), seed=None
    )
    return blake3(to_text(plain).encode()).digest(_TAG_BYTES)


def check_same_list(state: CursorState, query: Query, schema_version: int, profile: str) -> None:
    """Raises:
    CursorError: the cursor belongs to another query, schema version or profile version.
    """
    if state.query != query_digest(query):
        raise CursorError("the cursor belongs to another query; repeat the query as it was, or begin anew")
    if state.schema_version != schema_version or state.profile != profile:
        raise CursorError(
            f"the ranking has changed since the cursor was issued ({state.profile} of schema "
            f"{state.schema_version}); begin at the first page"
        )
