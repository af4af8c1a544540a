"""Relationship weights: how much a user's signals tie them to a creator or to an item, by edge type.

A signal declares what it adds to each implicit edge type; the type declares what it leads to, the creator of
the signal's item or the item itself. An edge's weight w, last updated at u, takes an event at t with the
delta d as

    w = clamp(w · 2^(−max(0, t − u)/h) + d · 2^(−max(0, u − t)/h), 0, 1)        u = max(u, t)

so a late event adds what would be left of it. The event's own weight plays no part: the delta says what one
such event is worth. A type without half-life never fades. An edge to a creator needs the item's record:
events on an item without a creator move none. An edge to the item needs no record, and counts in the order of
the log.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from materializers.batches import UserBatch
from materializers.canonical import implicit_edges
from materializers.column_table import ColumnTable
from materializers.decay import NEVER_MS, faded
from materializers.erasing import erase_rows
from materializers.grouping import distinct
from materializers.interner import Interner
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

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

EDGES_MAX = 1 << 17  # active edges of one partition and target in memory, about 65 bytes each: 9 MB
_TARGET_BITS = 28
_TYPE_BITS = 7
_USER_BITS = 28


class TooManyNamesError(TidalError):
    """A worker has interned more users, creators or items than an edge's key can tell apart."""

    def __init__(self, what: str, wid: int, bits: int) -> None:
        super().__init__(
            f"{what} number {wid} of this worker does not fit {bits} bits of an edge's key: "
            "run more workers, each with fewer partitions"
        )


class _EdgeTypes(NamedTuple):
    """The implicit edge types to one kind of target that some signal moves.

    ``codes`` u32[types], ``half_life_ms`` f64[types] (inf = never fades), ``delta`` f64[types, signals],
    ``moves`` bool[signals].
    """

    codes: U32
    half_life_ms: F64
    delta: F64
    moves: npt.NDArray[np.bool_]

    @staticmethod
    def of(schema: Schema, target: str) -> _EdgeTypes:
        moved = {name for signal in schema.signal_list for name in signal.relationship}
        types = [
            edge for edge in schema.relationships.values() if edge.name in moved and edge.target == target
        ]
        deltas = np.array([relationship_deltas(schema, edge.name) for edge in types], dtype=np.float64)
        delta = deltas.reshape(len(types), len(schema.signal_list))
        return _EdgeTypes(
            np.array([edge.code for edge in types], dtype=np.uint32),
            np.array([edge.half_life_ms or np.inf for edge in types], dtype=np.float64),
            delta,
            np.any(delta != 0.0, axis=0),
        )


class Relationships:
    """The fold of one user partition: edges to creators, and edges to items."""

    def __init__(self, context: PartitionContext, edges_max: int = EDGES_MAX) -> None:
        self._rows = context.rows
        creators, items = (_EdgeTypes.of(context.schema, target) for target in ("creator", "item"))
        self._to_creators = _Edges("creator", creators, context, context.creators, edges_max, tailed=True)
        self._to_items = _Edges("item", items, context, context.items, edges_max, tailed=False)

    def on_batch(self, batch: UserBatch) -> None:
        """Apply every edge's events in order: to items all, to creators those whose item is known."""
        carded = batch.carded
        self._to_creators.apply(carded.user, carded.creator, carded.signal, carded.ts_ms)
        self._to_items.apply(batch.user, batch.item, batch.signal, batch.ts_ms)

    def checkpoint(self, writer: RowWriter) -> None:
        """Changed edges."""
        self._to_creators.table.flush(writer)
        self._to_items.table.flush(writer)

    def restore(self, reader: RowReader) -> None:
        """Edges are read when an event touches them."""
        self._rows = reader
        self._to_creators.table.restore(reader)
        self._to_items.table.restore(reader)

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        """Edges from the users."""
        for edges in (self._to_creators, self._to_items):
            edges.table.drop(lambda keys: np.isin(_split(keys)[0], users.wids))
        return erase_rows(TABLE, users.entity_ids, self._rows, writer)


class _Edges:
    """Edges to one kind of target; ``tailed``: a row ends in the target's id."""

    def __init__(
        self,
        what: str,
        types: _EdgeTypes,
        context: PartitionContext,
        targets: Interner,
        edges_max: int,
        *,
        tailed: bool,
    ) -> None:
        self._what = what
        self._types = types
        self._users = context.users
        self._targets = targets
        self.table = ColumnTable(
            TABLE,
            ROW,
            context.rows,
            self._keys_of,
            order_of=self._columns_of,
            tail_of=self._targets_of if tailed else None,
            defaults={"updated_ms": NEVER_MS},
            slots_max=edges_max,
        )

    def apply(self, user: U32, target: U32, signal: U16, ts_ms: I64) -> None:
        """Apply events [n] in order; those without a user or a target (wid 0) move nothing."""
        moving = np.flatnonzero(self._types.moves[signal] & (user != 0) & (target != 0))
        if not len(moving):
            return
        delta = self._types.delta[:, signal[moving]]
        types, events = np.nonzero(delta)
        delta = delta[types, events]
        events = moving[events]
        rounds = rounds_of(self._int_keys(user[events], types, target[events]))
        slots = self.table.slots(rounds.keys)
        self._fold(rounds, slots, ts_ms[events], delta, self._types.half_life_ms[types])
        self.table.touch(slots)

    def _fold(self, rounds: Rounds, slots: I64, ts_ms: I64, delta: F64, half_life_ms: F64) -> None:
        weight, updated = self.table["weight"][slots], self.table["updated_ms"][slots]
        for size, part in rounds:
            event = rounds.events[part]
            at, fading = ts_ms[event], half_life_ms[event]
            known = np.where(updated[:size] == NEVER_MS, at, updated[:size])
            kept = faded(weight[:size], known, fading, at)
            added = faded(delta[event], at, fading, known)
            weight[:size] = np.clip(kept + added, 0.0, 1.0)
            updated[:size] = np.maximum(known, at)
        self.table["weight"][slots], self.table["updated_ms"][slots] = weight, updated

    def _int_keys(self, user: U32, types: I64, target: U32) -> I64:
        for what, wids, bits in (("user", user, _USER_BITS), (self._what, target, _TARGET_BITS)):
            if int(wids.max()) >> bits:
                raise TooManyNamesError(what, int(wids.max()), bits)
        high = user.astype(np.int64) << (_TYPE_BITS + _TARGET_BITS)
        return high | (types << _TARGET_BITS) | target.astype(np.int64)

    def _columns_of(self, keys: I64) -> tuple[U64, U32, U64]:
        user, types, target = _split(keys)
        return self._users.entity_ids[user], self._types.codes[types], self._targets.entity_ids[target]

    def _keys_of(self, keys: I64) -> list[bytes]:
        return relationship_keys(*self._columns_of(keys))

    def _targets_of(self, keys: I64) -> list[bytes]:
        targets = _split(keys)[2]
        named = distinct(targets)
        names = [name.encode() for name in self._targets.strings(named.astype(np.uint32))]
        return [names[place] for place in np.searchsorted(named, targets).tolist()]


def _split(keys: I64) -> tuple[I64, I64, I64]:
    """User, type and target of int keys."""
    user = keys >> (_TYPE_BITS + _TARGET_BITS)
    types = (keys >> _TARGET_BITS) & ((1 << _TYPE_BITS) - 1)
    return user, types, keys & ((1 << _TARGET_BITS) - 1)


VIEW = View(
    name="relationships",
    scope=Scope.USER,
    tables=(TableSpec(TABLE, "user, type code, target"),),
    build=Relationships,
    canonical=implicit_edges,
)
