"""What reads of users and of edges answer: states, preferences, edges at an entity, two hops, users alike.

A user exists by what they did: one whom nobody has heard of has empty states, no vectors and no edges. That
is what is known of them, and no error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from queryd.errors import NotServed, QueryError, nearest_name
from queryd.graph import Graph
from queryd.hot.columns import HotColumns
from queryd.hot.users import FAN_OUT_MAX, UserEdge, UserReader
from queryd.page_token import decode_page_token, encode_page_token
from schemas.model import RelationshipDef, Schema

_NEWEST: Final = "newest"


class UserReads:
    """Replies as plain JSON values.

    Args:
        clock_ms: weights are decayed to this time.
    """

    def __init__(
        self,
        schema: Schema,
        hot: HotColumns,
        users: UserReader,
        graph: Graph,
        clock_ms: Callable[[], int],
    ) -> None:
        self._schema = schema
        self._hot = hot
        self._users = users
        self._graph = graph
        self._clock_ms = clock_ms

    def states(self, user: str, state: str | None, limit: int, cursor: str | None) -> dict[str, Any]:
        """Items of a user by state, ids ascending; with one ``state`` a cursor leads to its next page."""
        names = list(self._schema.states) if state is None else [self._state(state)]
        if cursor is not None and state is None:
            raise QueryError("a cursor goes on with one state", expected=["state="], path="cursor")
        last = "" if cursor is None or state is None else decode_page_token(cursor, state)
        found: dict[str, Any] = {}
        more: str | None = None
        for name in names:
            ids = sorted(self._hot.items.ordinals.ids[row] for row in self._users.state(user, name).tolist())
            after = [id_ for id_ in ids if id_ > last] if last else ids
            found[name] = {"count": len(ids), "items": after[:limit]}
            if state is not None and len(after) > limit:
                more = encode_page_token(name, after[limit - 1])
        reply: dict[str, Any] = {"user": user, "states": found}
        return reply | ({} if more is None else {"cursor": more})

    def preference(self, user: str) -> dict[str, Any]:
        """The user's preference vectors by slot; a slot without an update is absent."""
        slots = {
            slot: {
                "updates": preference.updates,
                "vector": preference.long.tolist(),
                "short_vector": preference.short.tolist(),
            }
            for slot, preference in self._users.preferences(user).items()
        }
        return {"user": user, "slots": slots}

    async def relationships_of(self, user: str, type_: str | None, limit: int) -> dict[str, Any]:
        """Edges out of a user, of one type or of all, heaviest first."""
        kinds = list(self._schema.relationships.values()) if type_ is None else [self._kind(type_)]
        edges = [edge for kind in kinds for edge in await self._edges(user, kind, outgoing=True)]
        ordered = sorted(edges, key=lambda edge: (-edge.weight, edge.type, edge.target))[:limit]
        return {
            "user": user,
            "edges": [
                {"type": edge.type, "to": edge.target, "weight": edge.weight, "updated_at": edge.updated_ms}
                for edge in ordered
            ],
        }

    async def relationships(
        self, type_: str, id_: str, direction: str, limit: int, order: str
    ) -> dict[str, Any]:
        """Edges of one type out of or into an entity, and how many there are.

        ``complete`` says whether the order was made among all of them; of an entity with more than can be
        read for one answer, an even sample is ordered.
        """
        kind, outgoing = self._kind(type_), direction == "out"
        counted = kind.explicit and not limit
        edges = [] if counted else await self._edges(id_, kind, outgoing=outgoing)
        if order == _NEWEST:
            edges.sort(key=lambda edge: (-edge.updated_ms, edge.target, edge.source))
        else:
            edges.sort(key=lambda edge: (-edge.weight, edge.target, edge.source))
        complete = len(edges) < FAN_OUT_MAX
        kept = counted or (kind.explicit and not complete)
        return {
            "edges": [_edge_json(edge) for edge in edges[:limit]],
            "total": self._users.count(id_, kind, outgoing=outgoing) if kept else len(edges),
            "complete": complete,
        }

    def relationship(self, type_: str, source: str, target: str) -> dict[str, Any] | None:
        """One edge, None when there is none."""
        edge = self._users.edge(self._kind(type_), source, target, self._clock_ms())
        return None if edge is None else _edge_json(edge)

    async def two_hops(self, user: str, type_: str, fan_out: int, limit: int) -> dict[str, Any]:
        """Whom those that the user has edges to have edges to."""
        kind = self._kind(type_)
        if not kind.explicit:
            written = [each.name for each in self._schema.relationships.values() if each.explicit]
            raise QueryError(f"edges of type {type_!r} end at items or creators", expected=written)
        reached = await self._graph.two_hops(user, kind, fan_out, limit, self._clock_ms())
        return {"user": user, "type": type_, "reached": [each._asdict() for each in reached]}

    async def similar(self, user: str, state: str | None, limit: int) -> dict[str, Any]:
        """Users who share items in a state that the schema lists under ``co_engagement``."""
        indexed = list(self._schema.co_engagement)
        if not indexed:
            raise NotServed(
                "the schema lists no state under co_engagement", expected=["co_engagement: [...]"]
            )
        name = indexed[0] if state is None else self._state(state)
        if name not in indexed:
            raise NotServed(f"users are not found by {name!r}: co_engagement leaves it out", expected=indexed)
        users = await self._graph.alike(user, name, limit)
        return {"user": user, "state": name, "users": [each._asdict() for each in users]}

    async def _edges(self, id_: str, kind: RelationshipDef, *, outgoing: bool) -> list[UserEdge]:
        at_ms = self._clock_ms()
        if kind.explicit:
            return await self._users.written_in_turns(id_, kind, at_ms, outgoing=outgoing)
        if not outgoing:
            raise NotServed(
                f"edges of type {kind.name!r} are kept by their source", expected=["direction=out"]
            )
        return self._users.learnt(id_, at_ms, [kind])

    def _kind(self, name: str) -> RelationshipDef:
        declared = self._schema.relationships
        if name not in declared:
            near = nearest_name(name, declared)
            raise QueryError(
                f"no relationship type is called {name!r}", expected=sorted(declared), nearest=near
            )
        return declared[name]

    def _state(self, name: str) -> str:
        declared = self._schema.states
        if name not in declared:
            near = nearest_name(name, declared)
            raise QueryError(f"no state is called {name!r}", expected=sorted(declared), nearest=near)
        return name


def _edge_json(edge: UserEdge) -> dict[str, Any]:
    return {
        "type": edge.type,
        "from": edge.source,
        "to": edge.target,
        "weight": edge.weight,
        "updated_at": edge.updated_ms,
    }
