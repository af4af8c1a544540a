"""Rows that say which item records a partition saw, and their bound."""

from __future__ import annotations

from materializers.shards.card_positions import (
    CARD_POSITIONS_TABLE,
    CardHistory,
    CardPositions,
    decode_card_positions,
)
from tests.memory_rows import MemoryRows, MemoryWriter


def _stored(rows: MemoryRows) -> list[CardPositions]:
    return [decode_card_positions(row) for _, row in rows.scan(CARD_POSITIONS_TABLE.name)]


def _flush(history: CardHistory, rows: MemoryRows) -> None:
    writer = MemoryWriter(rows)
    history.flush(writer)
    writer.commit()


def test_rows_go_on_after_a_restart_and_the_oldest_go_beyond_the_bound() -> None:
    rows = MemoryRows()
    history = CardHistory(rows_max=3)
    for applied in range(2):
        history.note(applied, {0: applied + 1})
    _flush(history, rows)
    assert _stored(rows) == [CardPositions(0, {0: 1}), CardPositions(1, {0: 2})]
    again = CardHistory(rows_max=3)
    again.restore(history.counters())
    for applied in range(2, 5):
        again.note(applied, {0: applied + 1})
    _flush(again, rows)
    assert [row.applied for row in _stored(rows)] == [2, 3, 4]


def test_two_advances_between_two_events_are_two_rows() -> None:
    rows = MemoryRows()
    history = CardHistory()
    history.note(7, {0: 1})
    history.note(7, {0: 2})
    _flush(history, rows)
    assert _stored(rows) == [CardPositions(7, {0: 1}), CardPositions(7, {0: 2})]
