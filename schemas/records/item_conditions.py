"""The engine's own records in ``tidal.signals``: which item conditions of segments an item satisfies.

Items have a topic of their own, without a common order with anybody's events; so every partition of
``tidal.signals`` is told, in its own order. Marked by the header ``tidal-type: item-conditions``. An item
that has never satisfied any has no record. ``source`` is the position of the item's record that caused it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from schemas.errors import RecordError
from schemas.records.profile_record import TYPE_HEADER

ITEM_CONDITIONS_TYPE: Final = b"item-conditions"
ITEM_CONDITIONS_HEADERS: Final = ((TYPE_HEADER, ITEM_CONDITIONS_TYPE),)


class ItemConditions(msgspec.Struct, frozen=True):
    """``item`` satisfies ``holds``, conditions in canonical text, and no other. ``source`` = (partition,
    offset) in ``tidal.items``.
    """

    item: str
    holds: tuple[str, ...]
    source: tuple[int, int]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ItemConditions).decode


def encode_item_conditions(record: ItemConditions) -> bytes:
    """The record's value; its key is the item."""
    return _encode(record)


def decode_item_conditions(value: bytes) -> ItemConditions:
    """Raises:
    RecordError: ``malformed_json``, the value is none.
    """
    try:
        return _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError("malformed_json", "", f"no item conditions: {error}") from error
