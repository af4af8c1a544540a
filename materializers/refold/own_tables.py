"""The tables that the shards keep for themselves, as views of their own for a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from blake3 import blake3

from materializers.canonical import several
from materializers.facts import DAMAGE, Canonical, Fact, raw_facts, unreadable
from materializers.materializer import RowReader, Scope
from materializers.shards.card_positions import CARD_POSITIONS_TABLE
from materializers.shards.dedup import DEDUP_TABLE
from materializers.shards.entity_shard import ENTITY_SHARD_TABLES
from materializers.shards.erasures import ERASURES_TABLE, OPEN_ERASURES_TABLE
from materializers.shards.parking import PARKED_TABLE, decode_parked
from materializers.shards.user_shard import USER_SHARD_TABLES
from schemas.model import Schema

_DIGEST_BYTES: Final = 24


class OwnTables(NamedTuple):
    """``facts`` of the tables of one shard."""

    name: str
    scope: Scope
    facts: Canonical


def digests(rows: RowReader, schema: Schema) -> Iterator[Fact]:
    """What each generation remembers, in groups by the first byte of the user's EntityId: there are millions,
    and rows are cut where flushes fell.
    """
    generations: dict[int, list[bytes]] = {}
    for key, value in rows.scan(DEDUP_TABLE.name):
        if len(key) != _DIGEST_BYTES // 3 or len(value) % _DIGEST_BYTES:
            yield unreadable(DEDUP_TABLE.name, key, ValueError(f"{len(value)} bytes"))
        else:
            generations.setdefault(int.from_bytes(key[:4], "big"), []).append(value)
    for number, values in generations.items():
        remembered = np.frombuffer(b"".join(values), dtype="<u8").reshape(-1, 3)
        remembered = remembered[np.lexsort(remembered.T[::-1])]
        bounds = np.searchsorted(remembered[:, 0] >> np.uint64(56), np.arange(257)).tolist()
        for first_byte, (start, end) in enumerate(pairwise(bounds)):
            if start < end:
                about = (f"generation {number}", f"users 0x{first_byte:02x}…")
                said = blake3(remembered[start:end].tobytes()).hexdigest()[:16]
                yield Fact(DEDUP_TABLE.name, about, f"{end - start} digests, {said}")


def waiting_events(rows: RowReader, schema: Schema) -> Iterator[Fact]:
    """Events that wait for their item's record."""
    for key, value in rows.scan(PARKED_TABLE.name):
        try:
            event = decode_parked(value)
        except DAMAGE as error:
            yield unreadable(PARKED_TABLE.name, key, error)
            continue
        number = int.from_bytes(key[-8:], "big")
        said = (event.user, event.signal, event.weight, event.ts_ms, event.record_ts_ms)
        yield Fact(PARKED_TABLE.name, (event.item, f"number {number}", f"offset {event.offset}"), said)


def own_tables() -> tuple[OwnTables, ...]:
    """Of the user shard and of the entity shard. Not compared is what the log does not decide: in which order
    it was folded (``card_positions``), and how many rows an erasure found and when the disk was wiped of
    them (``erasures``, ``open_erasures``).
    """
    read_apart = {DEDUP_TABLE.name, PARKED_TABLE.name, CARD_POSITIONS_TABLE.name}
    plain = [spec.name for spec in USER_SHARD_TABLES if spec.name not in read_apart]
    users: tuple[Canonical, ...] = (digests, waiting_events, raw_facts(*plain))
    of_wipes = (ERASURES_TABLE, OPEN_ERASURES_TABLE)
    entities = raw_facts(*(spec.name for spec in ENTITY_SHARD_TABLES if spec not in of_wipes))
    return (
        OwnTables("user shard", Scope.USER, several(*users)),
        OwnTables("entity shard", Scope.ENTITY, entities),
    )
