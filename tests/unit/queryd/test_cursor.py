"""Cursors: signed, expiring, of one list."""

from __future__ import annotations

import pytest

from queryd.cursor import CursorCodec, CursorState, check_same_list, query_digest
from queryd.errors import CursorError
from queryd.language.parse import parse_query

STATE = CursorState(
    schema_version=3,
    profile="trending@1",
    query=query_digest(parse_query("RETRIEVE items WINDOW 24h")),
    at_ms=1_000,
    seed=7,
    issued_ms=5_000,
    shown=bytes(range(16)),
)
CODEC = CursorCodec(b"k" * 32, life_ms=60_000)


def test_round_trip() -> None:
    state = CODEC.decode(CODEC.encode(STATE), now_ms=65_000)
    assert state == STATE
    assert state.shown_ids.tolist() == [
        int.from_bytes(bytes(range(8)), "little"),
        int.from_bytes(bytes(range(8, 16)), "little"),
    ]


def test_every_changed_character_is_noticed() -> None:
    token = CODEC.encode(STATE)
    for place in range(len(token) - 1):  # the last character may hold bits that base64 does not use
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        with pytest.raises(CursorError):
            CODEC.decode(changed, now_ms=5_000)


def test_another_key_and_another_time_are_refused() -> None:
    token = CODEC.encode(STATE)
    with pytest.raises(CursorError, match="another server"):
        CursorCodec(b"x" * 32).decode(token, now_ms=5_000)
    with pytest.raises(CursorError, match="expired"):
        CODEC.decode(token, now_ms=65_001)


def test_paging_clauses_are_no_part_of_the_list() -> None:
    check_same_list(
        STATE, parse_query('RETRIEVE items WINDOW 24h LIMIT 9 CURSOR "x" SEED 3'), 3, "trending@1"
    )


@pytest.mark.parametrize(
    ("text", "version", "profile"),
    [
        ("RETRIEVE items WINDOW 7d", 3, "trending@1"),
        ("RETRIEVE items WINDOW 24h", 4, "trending@1"),
        ("RETRIEVE items WINDOW 24h", 3, "trending@2"),
    ],
)
def test_another_list_is_refused(text: str, version: int, profile: str) -> None:
    with pytest.raises(CursorError):
        check_same_list(STATE, parse_query(text), version, profile)
