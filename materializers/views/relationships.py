"""Relationship weights: how much a user's signals tie them to a creator, by edge type.

A signal declares what it adds to each implicit edge type. An edge's weight w, last updated at u, takes an
event at t with the delta d as

    w = clamp(w · 2^(−max(0, t − u)/h) + d · 2^(−max(0, u − t)/h), 0, 1)        u = max(u, t)

so a late event adds what would be left of it. The event's own weight plays no part: the delta says what one
such event is worth. A type without half-life never fades. Events of a user on an item without a
creator move nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from materializers.batches import CardedEvents, UserBatch
from materializers.column_table import ColumnTable
from materializers.decay import NEVER_MS, faded
from materializers.erasing import erase_rows
from materializers.materializer import (
    Forgotten,
    PartitionContext,
    RowReader,
    RowWriter,
    Scope,
    TableSpec,
    View,
)
from materializers.rounds import Rounds, rounds_of
from materializers.rows.relationships import ROW, TABLE, relationship_keys
from materializers.views.signal_columns import relationship_deltas
from schemas.errors import TidalError
from schemas.model import Schema

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

EDGES_MAX = 1 << 17  # active edges of one partition in memory, about 65 bytes each: 9 MB
_TARGET_BITS = 28
_TYPE_BITS = 7
_USER_BITS = 28


class TooManyNamesError(TidalError):
    """A worker has interned more users or creators than an edge's key can tell apart."""

    def __init__(self, what: str, wid: int, bits: int) -> None:
        super().__init__(
            f"{what} number {wid} of this worker does not fit {bits} bits of an edge's key: "
            "run more workers, each with fewer partitions"
        )


class _EdgeTypes(NamedTuple):
    """The implicit edge types that some signal moves: ``code`` u32[types], ``half_life_ms`` f64[types]
    (inf = never fades), ``delta`` f64[types, signals]."""

    code: npt.NDArray[np.uint32]
    half_life_ms: F64
    delta: F64

    @staticmethod
    def of(schema: Schema) -> _EdgeTypes:
        moved = {name for signal in schema.signal_list for name in signal.relationship}
        types = [edge for edge in schema.relationships.values() if edge.name in moved]
        deltas = [relationship_deltas(schema, edge.name) for edge in types]
        return _EdgeTypes(
            np.array([edge.code for edge in types], dtype=np.uint32),
            np.array([edge.half_life_ms or np.inf for edge in types], dtype=np.float64),
            np.array(deltas, dtype=np.float64).reshape(len(types), len(schema.signal_list)),
        )


class Relationships:
    """The fold of one user partition."""

    def __init__(self, context: PartitionContext, edges_max: int = EDGES_MAX) -> None:
        self._types = _EdgeTypes.of(context.schema)
        self._users = context.users
        self._creators = context.creators
        self._rows = context.rows
        self._edges = ColumnTable(
            TABLE,
            ROW,
            context.rows,
            self._keys_of,
            tail_of=self._targets_of,
            defaults={"updated_ms": NEVER_MS},
            slots_max=edges_max,
        )

    def on_batch(self, batch: UserBatch) -> None:
        """Apply the events whose item is known, each edge's in order."""
        carded = batch.carded
        delta = self._types.delta[:, carded.signal]
        moving = (delta != 0.0) & (carded.user != 0) & (carded.creator != 0)
        events, types = np.nonzero(moving.T)
        if not len(events):
            return
        rounds = rounds_of(_edge_keys(carded, events, types))
        slots = self._edges.slots(rounds.keys)
        self._fold(rounds, slots, carded.ts_ms[events], delta[types, events], types)
        self._edges.touch(slots)

    def checkpoint(self, writer: RowWriter) -> None:
        """Changed edges."""
        self._edges.flush(writer)

    def restore(self, reader: RowReader) -> None:
        """Edges are read when an event touches them."""
        self._rows = reader
        self._edges.restore(reader)

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        """Edges from the users."""
        self._edges.drop(lambda keys: np.isin(_split(keys)[0], users.wids))
        return erase_rows(TABLE, users.entity_ids, self._rows, writer)

    def _fold(self, rounds: Rounds, slots: I64, ts_ms: I64, delta: F64, types: I64) -> None:
        weight, updated = self._edges["weight"][slots], self._edges["updated_ms"][slots]
        half_life = self._types.half_life_ms[types]
        for size, part in rounds:
            event = rounds.events[part]
            at, fading = ts_ms[event], half_life[event]
            known = np.where(updated[:size] == NEVER_MS, at, updated[:size])
            kept = faded(weight[:size], known, fading, at)
            added = faded(delta[event], at, fading, known)
            weight[:size] = np.clip(kept + added, 0.0, 1.0)
            updated[:size] = np.maximum(known, at)
        self._edges["weight"][slots], self._edges["updated_ms"][slots] = weight, updated

    def _keys_of(self, keys: I64) -> list[bytes]:
        user, type_index, target = _split(keys)
        return relationship_keys(
            self._users.entity_ids[user], self._types.code[type_index], self._creators.entity_ids[target]
        )

    def _targets_of(self, keys: I64) -> list[bytes]:
        names = self._creators.strings(_split(keys)[2].astype(np.uint32))
        return [name.encode() for name in names]


def _edge_keys(carded: CardedEvents, events: I64, types: I64) -> I64:
    user, creator = carded.user[events].astype(np.int64), carded.creator[events].astype(np.int64)
    for what, wids, bits in (("user", user, _USER_BITS), ("creator", creator, _TARGET_BITS)):
        if int(wids.max()) >> bits:
            raise TooManyNamesError(what, int(wids.max()), bits)
    return (user << (_TYPE_BITS + _TARGET_BITS)) | (types << _TARGET_BITS) | creator


def _split(keys: I64) -> tuple[I64, I64, I64]:
    user = keys >> (_TYPE_BITS + _TARGET_BITS)
    type_index = (keys >> _TARGET_BITS) & ((1 << _TYPE_BITS) - 1)
    return user, type_index, keys & ((1 << _TARGET_BITS) - 1)


VIEW = View(
    name="relationships",
    scope=Scope.USER,
    tables=(TableSpec(TABLE, "user, type code, target"),),
    build=Relationships,
)
