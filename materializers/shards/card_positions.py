"""Which item records a user partition saw with which of its events: the order between two topics.

``tidal.items`` and ``tidal.signals`` have no common order, so the partition makes one and writes it down. A
row is made when the partition is about to fold with cards that have advanced since the row before:
``applied`` is the last offset of ``tidal.signals`` folded so far, ``next_offsets`` how far the cards read
each partition of ``tidal.items``. Events beyond ``applied``, up to that of the next row, saw exactly these
cards; events that waited for one of them were applied here, before any later event. Rows are written in the
flush of the events that they are about, so they and the log alone decide the tables.
"""

from __future__ import annotations

from typing import Final

import msgspec

from materializers.materializer import RowWriter, TableSpec

CARD_POSITIONS_TABLE: Final = TableSpec("card_positions", "number u64 BE -> applied, positions", bloom=False)
ROWS_MAX: Final = 1 << 18
"""Of a partition, about 60 bytes each. Cards advance at most about five times a second while item records
come, so this reaches back half a day of incessant changes, and years of occasional ones; older rows go.
"""


class CardPositions(msgspec.Struct, frozen=True, array_like=True):
    """One row. ``next_offsets``: by partition of ``tidal.items`` the first offset that was not seen."""

    applied: int
    next_offsets: dict[int, int]


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(CardPositions)


def decode_card_positions(row: bytes) -> CardPositions:
    return _decoder.decode(row)


def card_positions_key(number: int) -> bytes:
    return number.to_bytes(8, "big")


class CardHistory:
    """The rows of one user partition that no flush has written yet, and the number of the next one."""

    def __init__(self, rows_max: int = ROWS_MAX) -> None:
        self._rows_max = rows_max
        self._number = 0
        self._unwritten: list[CardPositions] = []

    def note(self, applied: int, next_offsets: dict[int, int]) -> None:
        """The partition folds on from ``applied`` with cards at ``next_offsets``."""
        self._unwritten.append(CardPositions(applied, next_offsets))

    def counters(self) -> dict[str, int]:
        """What has to be restored with the rows; call it after ``flush``."""
        return {"card_positions_number": self._number}

    def flush(self, writer: RowWriter) -> None:
        """Write what was noted since the last call; drop as many of the oldest rows beyond the bound."""
        for row in self._unwritten:
            writer.put(CARD_POSITIONS_TABLE.name, card_positions_key(self._number), _encode(row))
            if self._number >= self._rows_max:
                outdated = card_positions_key(self._number - self._rows_max)
                writer.delete(CARD_POSITIONS_TABLE.name, outdated)
            self._number += 1
        self._unwritten.clear()

    def restore(self, counters: dict[str, int]) -> None:
        self._number = counters.get("card_positions_number", 0)
        self._unwritten.clear()
