"""Rows of ``user_ids``: the id behind a user's EntityId, in the user's partition.

Key: ``[user EntityId][0x00][USER_TAG]``. Value: the id in UTF-8.
"""

from __future__ import annotations

from typing import Final

from schemas.keys import row_key

TABLE: Final = "user_ids"
USER_TAG: Final = 9


def user_id_key(user: int) -> bytes:
    """Key of one user by EntityId."""
    return row_key(user, USER_TAG)


def decode_user_id(value: bytes) -> str:
    return value.decode()
