"""What the rows of one user partition say of its users, held against the plain fold."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from materializers.rows.co_engagement import decode_users, split_co_engagement_key
from materializers.rows.ordinals import decode_ordinal
from materializers.rows.preference import decode_preference, preference_key
from materializers.rows.relationships import decode_relationship, relationship_key
from materializers.rows.user_state import decode_state, state_range
from schemas.ids import entity_id
from tests.memory_rows import MemoryRows
from tests.oracle import CleanFold

Samples = dict[tuple[int, int], list[int]]
"""(item's EntityId, state code) -> EntityIds of users."""


def states_of(rows: MemoryRows, user: str, state_code: int) -> set[str]:
    """The items that a user has in a state."""
    items = [decode_ordinal(value) for _, value in rows.scan("user_items")]
    containers = [value for _, value in rows.scan("user_state", *state_range(entity_id(user), state_code))]
    return {items[ordinal] for ordinal in decode_state(containers)}


def samples_of(rows: MemoryRows) -> Samples:
    """Who shares which item."""
    return {
        split_co_engagement_key(key): decode_users(row).tolist() for key, row in rows.scan("co_engagement")
    }


def check_states(rows: MemoryRows, oracle: CleanFold, users: Iterable[str]) -> None:
    """Every state of every user, and none of nobody's."""
    for user in users:
        for state in oracle.schema.states.values():
            assert states_of(rows, user, state.code) == oracle.state(user, state.name)
    assert not list(rows.scan("user_state", *state_range(entity_id(""))))


def check_relationships(rows: MemoryRows, oracle: CleanFold, users: Iterable[str]) -> None:
    """Every implicit edge within 1e-9, and no other."""
    stored = dict(rows.scan("relationships"))
    for user in users:
        for edge_type in oracle.schema.relationships.values():
            if edge_type.explicit:
                continue
            for target, expected in oracle.relationships(user, edge_type.name).items():
                row = decode_relationship(
                    stored.pop(relationship_key(entity_id(user), edge_type.code, entity_id(target)))
                )
                assert row.target == ("" if edge_type.target == "item" else target)
                assert row.updated_ms == expected.updated_ms
                assert row.weight == pytest.approx(expected.weight, rel=1e-9, abs=1e-12)
    assert not stored


def check_preferences(rows: MemoryRows, oracle: CleanFold, users: Iterable[str]) -> None:
    """Both vectors of every slot within 1e-6 or what rounding explains, and no vector without an update."""
    for user in users:
        for slot in oracle.schema.entities["item"].embeddings:
            [value] = rows.get_many("preference", [preference_key(entity_id(user), slot)])
            expected = oracle.preference(user, slot)
            if expected is None:
                assert value is None
                continue
            assert value is not None
            stored = decode_preference(value)
            assert stored.updates == expected.updates
            assert stored.long.tolist() == pytest.approx(expected.long, abs=expected.error)
            assert stored.short.tolist() == pytest.approx(expected.short, abs=expected.error)
