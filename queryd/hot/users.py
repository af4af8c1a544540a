"""What the tables say of one user, read when a query needs it: states, preference, edges, hidden creators."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from materializers.rows.edge_counts import TABLE as EDGE_COUNTS
from materializers.rows.edge_counts import decode_edge_count, edge_count_key
from materializers.rows.entities import (
    EDGES,
    StoredEdge,
    decode_edge,
    edge_keys_of,
    edge_range,
)
from materializers.rows.preference import TABLE as PREFERENCE
from materializers.rows.preference import Preference, decode_preference, preference_key
from materializers.rows.relationships import (
    ROW,
    decode_relationship,
    relationship_key,
    relationship_range,
    split_relationship_key,
)
from materializers.rows.relationships import TABLE as RELATIONSHIPS
from materializers.rows.user_state import TABLE as USER_STATE
from materializers.rows.user_state import decode_state, state_range
from queryd.hot.arrays import F64, I64, U32, U64
from queryd.hot.columns import NOT_MAPPED, HotColumns, OrdinalMap
from queryd.hot.edges_ahead import AheadWrite, EdgesAhead
from queryd.hot.tables import Tables
from schemas.ids import entity_id
from schemas.model import RelationshipDef
from streams.partitioner import partition_for

FAN_OUT_MAX = 10_000  # edges of one type that a query reads; of an entity with more an even sample
_EDGES_AT_ONCE = 500  # about 1.5 ms


class UserEdge(NamedTuple):
    """An edge out of (or into) an entity; ``weight`` as decayed to the time of reading."""

    type: str
    source: str
    target: str
    weight: float
    updated_ms: int


class UserReader:
    """Reads of one user's rows, each a point read or a short range.

    Args:
        partitions: partitions of the user-keyed topics.
    """

    def __init__(self, tables: Tables, hot: HotColumns, partitions: int) -> None:
        self._tables = tables
        self._hot = hot
        self._partitions = partitions
        self.ahead = EdgesAhead(tables)

    def partition(self, id_: str) -> int:
        """The partition of an id: where its rows are."""
        return partition_for(id_.encode(), self._partitions)

    def state(self, user: str, state: str) -> U32:
        """queryd's ordinals of the user's items in a state, u32[n]."""
        return self.state_of(self.partition(user), entity_id(user), self._hot.schema.states[state].code)

    def state_of(self, partition: int, user: int, state_code: int) -> U32:
        """queryd's ordinals u32[n] of the items that the user with this EntityId has in a state."""
        rows = self._tables.scan(USER_STATE, partition, *state_range(user, state_code))
        bitmap = decode_state(value for _, value in rows)
        if not bitmap:
            return np.zeros(0, dtype=np.uint32)
        local = np.asarray(bitmap.to_array(), dtype=np.uint32)
        items = self._hot.user_item_maps.get(partition, OrdinalMap()).translate(local)
        known: U32 = items[items != NOT_MAPPED]
        return known

    def preferences(self, user: str) -> dict[str, Preference]:
        """The user's preference vectors by embedding slot; a slot without an update is absent."""
        slots = list(self._hot.schema.entities["item"].embeddings)
        partition, key = self.partition(user), entity_id(user)
        rows = self._tables.get_many(PREFERENCE, [(partition, preference_key(key, slot)) for slot in slots])
        return {
            slot: decode_preference(row) for slot, row in zip(slots, rows, strict=True) if row is not None
        }

    def learnt(self, user: str, at_ms: int, types: Sequence[RelationshipDef] | None = None) -> list[UserEdge]:
        """Edges that signals have taught, of some types (None: all), weights decayed to ``at_ms``."""
        wanted = self._implicit() if types is None else [kind for kind in types if not kind.explicit]
        edges: list[UserEdge] = []
        for kind in wanted:
            edges += self._learnt(user, kind, at_ms, FAN_OUT_MAX - len(edges))
        return edges

    def _learnt(self, user: str, kind: RelationshipDef, at_ms: int, edges_max: int) -> list[UserEdge]:
        found = self._tables.scan(
            RELATIONSHIPS, self.partition(user), *relationship_range(entity_id(user), kind.code)
        )
        rows = list(islice(found, edges_max))
        if not rows:
            return []
        stored = ROW.decode([value for _, value in rows])
        weights = _faded(stored["weight"], stored["updated_ms"], at_ms, kind.half_life_ms)
        if kind.target == "item":
            targets = self._item_names([key for key, _ in rows])
        else:
            targets = [ROW.tail(value).decode() for _, value in rows]
        columns = zip(targets, weights.tolist(), stored["updated_ms"].tolist(), strict=True)
        return [
            UserEdge(kind.name, user, target, weight, updated_ms)
            for target, weight, updated_ms in columns
            if target is not None
        ]

    def written(
        self,
        id_: str,
        kind: RelationshipDef,
        at_ms: int,
        *,
        outgoing: bool = True,
        edges_max: int = FAN_OUT_MAX,
    ) -> list[UserEdge]:
        """Explicit edges of one type out of an entity, or into it, weights decayed to ``at_ms``.

        An entity with more than ``edges_max`` is served some, in the order of hashes: an even sample.
        """
        edges: dict[tuple[str, str], UserEdge] = {}
        for page in self._pages(id_, kind, outgoing, edges_max, edges_max):
            edges.update(_by_ends(page, kind, at_ms))
        return self._with_ahead(edges, id_, kind, at_ms, outgoing)

    async def written_in_turns(
        self, id_: str, kind: RelationshipDef, at_ms: int, *, outgoing: bool = True
    ) -> list[UserEdge]:
        """As ``written``, letting others have the loop between pages: ten thousand edges take 30 ms."""
        edges: dict[tuple[str, str], UserEdge] = {}
        for page in self._pages(id_, kind, outgoing, FAN_OUT_MAX, _EDGES_AT_ONCE):
            edges.update(_by_ends(page, kind, at_ms))
            await asyncio.sleep(0)
        return self._with_ahead(edges, id_, kind, at_ms, outgoing)

    def _pages(
        self, id_: str, kind: RelationshipDef, outgoing: bool, edges_max: int, page_max: int
    ) -> Iterator[list[bytes]]:
        """Rows of edges. No scan stays open between two pages: the tables may catch up there."""
        start, end = edge_range(id_, kind.name, outgoing=outgoing)
        left = edges_max
        for partition in [self.partition(id_)] if outgoing else range(self._partitions):
            begin = start
            while left > 0:
                wanted = min(page_max, left)
                rows = list(islice(self._tables.scan(EDGES, partition, begin, end), wanted))
                left -= len(rows)
                if rows:
                    yield [value for _, value in rows]
                if len(rows) < wanted:
                    break
                begin = rows[-1][0] + b"\x00"

    def _with_ahead(
        self,
        edges: dict[tuple[str, str], UserEdge],
        id_: str,
        kind: RelationshipDef,
        at_ms: int,
        outgoing: bool,
    ) -> list[UserEdge]:
        for write in self.ahead.of(kind.name, id_, outgoing=outgoing):
            edges.pop((write.source, write.target), None)
            if write.weight is not None:
                edges[write.source, write.target] = _ahead_edge(kind, write, at_ms)
        return list(edges.values())

    def edge(self, kind: RelationshipDef, source: str, target: str, at_ms: int) -> UserEdge | None:
        """One edge, weight decayed to ``at_ms``; None when there is none. A point read."""
        partition = self.partition(source)
        if kind.explicit:
            write = self.ahead.find(kind.name, source, target)
            if write is not None:
                return None if write.weight is None else _ahead_edge(kind, write, at_ms)
            key = edge_keys_of(kind.name, source, target)[0]
            [row] = self._tables.get_many(EDGES, [(partition, key)])
            return None if row is None else _written_edge(kind, decode_edge(row), at_ms)
        key = relationship_key(entity_id(source), kind.code, entity_id(target))
        [row] = self._tables.get_many(RELATIONSHIPS, [(partition, key)])
        if row is None:
            return None
        stored = decode_relationship(row)
        weight = faded(stored.weight, stored.updated_ms, at_ms, kind.half_life_ms)
        return UserEdge(kind.name, source, target, weight, stored.updated_ms)

    def count(self, id_: str, kind: RelationshipDef, *, outgoing: bool) -> int:
        """How many explicit edges of a type leave an entity, or lead to it; from kept counts."""
        key = edge_count_key(id_, kind.name, outgoing=outgoing)
        partitions = [self.partition(id_)] if outgoing else range(self._partitions)
        rows = self._tables.get_many(EDGE_COUNTS, [(partition, key) for partition in partitions])
        return sum(decode_edge_count(row) for row in rows)

    def hidden_creators(self, user: str, at_ms: int) -> list[str]:
        """Targets of the user's hiding edges (block, mute …)."""
        hiding = [kind for kind in self._hot.schema.relationships.values() if kind.hides]
        return [edge.target for kind in hiding for edge in self.written(user, kind, at_ms)]

    def affinity(self, user: str, at_ms: int) -> tuple[U64, F64]:
        """Targets (EntityIds u64[n]) and weights f64[n] of all edges that do not hide, decayed to ``at_ms``;
        implicit ones to items are left out.

        A target may occur once for each edge type.
        """
        targets: list[U64] = []
        weights: list[F64] = []
        key, partition = entity_id(user), self.partition(user)
        for kind in self._implicit():
            if kind.target != "creator":
                continue
            rows = list(self._tables.scan(RELATIONSHIPS, partition, *relationship_range(key, kind.code)))
            if rows:
                stored = ROW.decode([value for _, value in rows])
                targets.append(
                    np.array([int.from_bytes(row[-8:], "big") for row, _ in rows], dtype=np.uint64)
                )
                weights.append(_faded(stored["weight"], stored["updated_ms"], at_ms, kind.half_life_ms))
        for kind in self._hot.schema.relationships.values():
            if kind.explicit and not kind.hides:
                edges = self.written(user, kind, at_ms)
                targets.append(np.array([entity_id(edge.target) for edge in edges], dtype=np.uint64))
                weights.append(np.array([edge.weight for edge in edges], dtype=np.float64))
        return np.concatenate([_NO_TARGETS, *targets]), np.concatenate([_NO_WEIGHTS, *weights])

    def followed(self, user: str, at_ms: int) -> list[str]:
        """Targets of the user's explicit edges that do not hide."""
        kinds = [kind for kind in self._hot.schema.relationships.values() if kind.explicit and not kind.hides]
        return [edge.target for kind in kinds for edge in self.written(user, kind, at_ms)]

    def _item_names(self, keys: Sequence[bytes]) -> list[str | None]:
        """Ids of the items that edges lead to; None for one that queryd has not met yet."""
        items = self._hot.items.ordinals
        entities = [split_relationship_key(key)[2] for key in keys]
        found = items.find_entities(np.array(entities, dtype=np.uint64))
        return [items.ids[ordinal] if ordinal >= 0 else None for ordinal in found.tolist()]

    def _implicit(self) -> list[RelationshipDef]:
        return [kind for kind in self._hot.schema.relationships.values() if not kind.explicit]


def _by_ends(
    rows: Sequence[bytes], kind: RelationshipDef, at_ms: int
) -> Iterator[tuple[tuple[str, str], UserEdge]]:
    for value in rows:
        edge = _written_edge(kind, decode_edge(value), at_ms)
        yield (edge.source, edge.target), edge


def _written_edge(kind: RelationshipDef, stored: StoredEdge, at_ms: int) -> UserEdge:
    weight = faded(stored.weight, stored.ts_ms, at_ms, kind.half_life_ms)
    return UserEdge(kind.name, stored.source, stored.target, weight, stored.ts_ms)


def _ahead_edge(kind: RelationshipDef, write: AheadWrite, at_ms: int) -> UserEdge:
    assert write.weight is not None
    weight = faded(write.weight, write.ts_ms, at_ms, kind.half_life_ms)
    return UserEdge(kind.name, write.source, write.target, weight, write.ts_ms)


def faded(weight: float, updated_ms: int, at_ms: int, half_life_ms: int | None) -> float:
    """``weight · 2^(−(at − updated)/half-life)``; as it is without a half-life or before its update."""
    if half_life_ms is None or at_ms <= updated_ms:
        return weight
    return float(weight * 2.0 ** (-(at_ms - updated_ms) / half_life_ms))


def _faded(weights: F64, updated_ms: I64, at_ms: int, half_life_ms: int | None) -> F64:
    """``faded`` of many: weights f64[n], updated_ms i64[n]."""
    if half_life_ms is None:
        return weights.astype(np.float64)
    return weights * np.exp2(-np.maximum(at_ms - updated_ms, 0) / half_life_ms)


_NO_TARGETS: U64 = np.zeros(0, dtype=np.uint64)
_NO_WEIGHTS: F64 = np.zeros(0, dtype=np.float64)
