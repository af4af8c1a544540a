"""Reads over the graph of edges and shared items that take more than one row: two hops, and users alike.

Each is bounded by what it reads, not by how large the graph is, and gives the loop to others between reads.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from materializers.rows.co_engagement import TABLE as CO_ENGAGEMENT
from materializers.rows.co_engagement import co_engagement_key, decode_users
from materializers.rows.user_ids import TABLE as USER_IDS
from materializers.rows.user_ids import decode_user_id, user_id_key
from queryd.hot.arrays import F64, I64, U32, U64, Mask
from queryd.hot.columns import HotColumns
from queryd.hot.tables import Tables
from queryd.hot.users import UserEdge, UserReader
from schemas.ids import entity_id
from schemas.model import RelationshipDef

SEEN_EDGES_OF_EACH: Final = 10
"""Two hops read up to this many times the fan-out of each entity's edges, to take its heaviest."""
ITEMS_READ_MAX: Final = 64
"""Items of a user whose other users are looked up: eight times as many point reads with eight partitions."""
COMPARED_MAX: Final = 256
"""Users whose own sets are read and compared."""
_READS_BETWEEN_PAUSES: Final = 16


class Reached(NamedTuple):
    """An entity two hops away: ``weight`` Σ over ``paths`` ways of the product of their two edges."""

    id: str
    weight: float
    paths: int


class Alike(NamedTuple):
    """A user who shares items: ``score`` = shared / √(items of the one · items of the other), in (0, 1]."""

    id: str
    score: float
    shared: int


class Graph:
    """Traversals over one engine's tables.

    Args:
        partitions: partitions of the user-keyed topics.
    """

    def __init__(self, tables: Tables, hot: HotColumns, users: UserReader, partitions: int) -> None:
        self._tables = tables
        self._hot = hot
        self._users = users
        self._partitions = partitions

    async def two_hops(
        self, source: str, kind: RelationshipDef, fan_out: int, limit: int, at_ms: int
    ) -> list[Reached]:
        """Whom those that ``source`` has edges to have edges to: the ``limit`` heaviest, then by id.

        Of each entity the ``fan_out`` heaviest edges count, so at most fan_out² paths are followed. Left out
        are ``source`` itself and those it has an edge to already.
        """
        direct = await self._users.written_in_turns(source, kind, at_ms)
        known = {source, *(edge.target for edge in direct)}
        weights: dict[str, float] = defaultdict(float)
        paths: dict[str, int] = defaultdict(int)
        for number, first in enumerate(_heaviest(direct, fan_out), 1):
            reach = self._users.written(first.target, kind, at_ms, edges_max=fan_out * SEEN_EDGES_OF_EACH)
            for second in _heaviest(reach, fan_out):
                if second.target not in known:
                    weights[second.target] += first.weight * second.weight
                    paths[second.target] += 1
            if number % _READS_BETWEEN_PAUSES == 0:
                await asyncio.sleep(0)
        reached = [Reached(id_, weight, paths[id_]) for id_, weight in weights.items()]
        return heapq.nsmallest(limit, reached, key=lambda each: (-each.weight, each.id))

    async def alike(self, user: str, state: str, limit: int) -> list[Alike]:
        """Users who share items that are in a state, the most alike first, then by id.

        Candidates come from the samples of the user's rarest items; their sets are then compared as they are,
        so every score is exact, and who is missed shares only items that a great many have.
        """
        mine = self._users.state(user, state)
        if not len(mine):
            return []
        homes, candidates = await self._candidates(user, state, mine)
        scores, shared = await self._compared(homes, candidates, state, mine)
        names = self._names(homes, candidates)
        found = [
            Alike(name, score, count)
            for name, score, count in zip(names, scores.tolist(), shared.tolist(), strict=True)
            if name is not None and count > 0
        ]
        return heapq.nsmallest(limit, found, key=lambda each: (-each.score, each.id))

    async def _candidates(self, user: str, state: str, mine: U32) -> tuple[I64, U64]:
        """Partitions i64[n] and EntityIds u64[n] of users who share a rare item with ``user``.

        Those with most of them come first; an item's say falls with how many users have it.
        """
        code = self._hot.schema.states[state].code
        items = self._hot.items.ordinals.entity_ids[self._rarest(state, mine)]
        keys = [co_engagement_key(item, code) for item in items.tolist()]
        users: list[U64] = []
        homes: list[I64] = []
        says: list[F64] = []
        for number, key in enumerate(keys, 1):
            rows = self._tables.get_many(CO_ENGAGEMENT, [(home, key) for home in range(self._partitions)])
            samples = [_NOBODY if row is None else decode_users(row) for row in rows]
            sizes = [len(sample) for sample in samples]
            users += samples
            homes.append(np.repeat(np.arange(self._partitions), sizes))
            says.append(np.full(sum(sizes), 1.0 / np.log2(2.0 + sum(sizes))))
            if number % _READS_BETWEEN_PAUSES == 0:
                await asyncio.sleep(0)
        every, say = np.concatenate(users), np.concatenate(says)
        distinct, first, inverse = np.unique(every, return_index=True, return_inverse=True)
        total = np.bincount(inverse, weights=say)
        chosen = np.lexsort((distinct, -total))
        chosen = chosen[distinct[chosen] != np.uint64(entity_id(user))][:COMPARED_MAX]
        return np.concatenate(homes)[first[chosen]], distinct[chosen]

    def _rarest(self, state: str, mine: U32) -> U32:
        """At most ``ITEMS_READ_MAX`` of the items: those with the fewest signals that set the state."""
        counts = np.zeros(len(mine), dtype=np.int64)
        for index, signal in enumerate(self._hot.schema.signal_list):
            if state in signal.state:
                counts += self._hot.total_counts(index)[mine]
        rarest = np.lexsort((mine, counts))[:ITEMS_READ_MAX]
        return mine[rarest]

    async def _compared(self, homes: I64, users: U64, state: str, mine: U32) -> tuple[F64, I64]:
        """Scores f64[n] and shared items i64[n] of candidates, from their own sets."""
        code = self._hot.schema.states[state].code
        in_mine: Mask = np.zeros(len(self._hot.items), dtype=np.bool_)
        in_mine[mine] = True
        scores = np.zeros(len(users), dtype=np.float64)
        shared = np.zeros(len(users), dtype=np.int64)
        for place, (home, candidate) in enumerate(zip(homes.tolist(), users.tolist(), strict=True)):
            theirs = self._users.state_of(home, candidate, code)
            shared[place] = np.count_nonzero(in_mine[theirs])
            scores[place] = shared[place] / np.sqrt(len(mine) * max(1, len(theirs)))
            if place % _READS_BETWEEN_PAUSES == 0:
                await asyncio.sleep(0)
                in_mine = _as_long_as(in_mine, len(self._hot.items))
        return scores, shared

    def _names(self, homes: I64, users: U64) -> Sequence[str | None]:
        """Ids of users; None for one that was forgotten in between."""
        keys = [(home, user_id_key(user)) for home, user in zip(homes.tolist(), users.tolist(), strict=True)]
        rows = self._tables.get_many(USER_IDS, keys)
        return [None if row is None else decode_user_id(row) for row in rows]


_NOBODY: U64 = np.zeros(0, dtype=np.uint64)


def _heaviest(edges: Sequence[UserEdge], count: int) -> list[UserEdge]:
    """Edges with a weight above 0, the heaviest first, then by target."""
    live = [edge for edge in edges if edge.weight > 0.0]
    return heapq.nsmallest(count, live, key=lambda edge: (-edge.weight, edge.target))


def _as_long_as(mask: Mask, items: int) -> Mask:
    """``mask`` with room for items that came while others were served."""
    longer: Mask = np.zeros(max(items, len(mask)), dtype=np.bool_)
    longer[: len(mask)] = mask
    return longer
