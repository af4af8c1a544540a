"""The last cohort profile that was sent for each user of a partition, so that only a change sends one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from materializers.materializer import RowReader, RowWriter, TableSpec
from schemas.cohort_profile import EMPTY_PROFILE, parse_profile
from schemas.ids import entity_id
from schemas.keys import row_key
from schemas.model import Schema
from schemas.records.entities import EntityRecord

STAMPED_PROFILES_TABLE: Final = TableSpec("stamped_profiles", "[user][tag] -> last profile sent")
STAMPED_TAG: Final = 10


class StampedProfiles:
    """Rows of ``stamped_profiles``; those changed since the last flush are in memory."""

    def __init__(self, schema: Schema, rows: RowReader) -> None:
        self._schema = schema
        self._rows = rows
        self._changed: dict[bytes, str | None] = {}
        self._stored: dict[bytes, str | None] = {}

    def load(self, users: Sequence[str]) -> None:
        """Read the rows of users about to be asked for, all at once."""
        keys = [key for key in dict.fromkeys(map(_key, users)) if key not in self._stored]
        rows = self._rows.get_many(STAMPED_PROFILES_TABLE.name, keys)
        self._stored.update(
            (key, None if row is None else row.decode()) for key, row in zip(keys, rows, strict=True)
        )

    def changed(self, user: str, record: EntityRecord) -> dict[str, str] | None:
        """The profile of this record if it is another than the last one sent, and counts as sent now.

        The user was loaded.
        """
        key = _key(user)
        deleted = record.status == "deleted"
        profile = EMPTY_PROFILE if deleted else self._schema.profile_string(record.fields)
        if profile == (self._last(key) or EMPTY_PROFILE):
            return None
        self._changed[key] = profile
        return parse_profile(profile)

    def forget(self, user: str) -> dict[str, int]:
        """Rows erased by table."""
        key = _key(user)
        known = self._last(key) is not None
        self._changed[key] = None
        return {STAMPED_PROFILES_TABLE.name: 1} if known else {}

    def flush(self, writer: RowWriter) -> None:
        for key in sorted(self._changed):
            profile = self._changed[key]
            if profile is None:
                writer.delete(STAMPED_PROFILES_TABLE.name, key)
            else:
                writer.put(STAMPED_PROFILES_TABLE.name, key, profile.encode())
        self._changed.clear()
        self._stored.clear()

    def _last(self, key: bytes) -> str | None:
        if key in self._changed:
            return self._changed[key]
        return self._stored[key]


def _key(user: str) -> bytes:
    return row_key(entity_id(user), STAMPED_TAG)
