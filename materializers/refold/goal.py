"""How far a refold goes: exactly as far as the tables that it is held against."""

from __future__ import annotations

import msgspec

from materializers.materializer import Scope
from materializers.shards.card_positions import (
    CARD_POSITIONS_TABLE,
    CardPositions,
    card_positions_key,
    decode_card_positions,
)
from materializers.tables.reader import TableReader


class PartitionGoal(msgspec.Struct, frozen=True, kw_only=True):
    """What one partition's tables contain.

    Attributes:
        applied: last offset applied of each source topic, -1 for none.
        marks: item scope: last offset of ``tidal.signals`` applied, by source partition.
        card_rows: rows of ``card_positions`` from number ``first_card_row`` on.
    """

    applied: dict[str, int]
    marks: dict[int, int]
    first_card_row: int
    card_rows: list[CardPositions]


Goal = dict[int, PartitionGoal]
"""By partition."""


def goal_of(reader: TableReader, first_card_rows: dict[int, int] | None = None) -> Goal:
    """The goal that the reader's present picture is.

    Args:
        first_card_rows: by partition the first row of ``card_positions`` that is wanted.
    """
    wanted = first_card_rows or {}
    return {
        partition: partition_goal(reader, partition, wanted.get(partition, 0))
        for partition in reader.partitions(Scope.USER)
    }


def partition_goal(reader: TableReader, partition: int, first_card_row: int) -> PartitionGoal:
    """The goal of one partition."""
    applied: dict[str, int] = {}
    for scope in (Scope.USER, Scope.ENTITY):
        applied.update(reader.applied(scope, partition))
    start = card_positions_key(first_card_row)
    rows = list(reader.scan(CARD_POSITIONS_TABLE.name, partition, start))
    first = int.from_bytes(rows[0][0], "big") if rows else first_card_row
    return PartitionGoal(
        applied=applied,
        marks=dict(reader.forwarded(partition)),
        first_card_row=first,
        card_rows=[decode_card_positions(row) for _, row in rows],
    )
