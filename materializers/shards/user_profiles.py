"""The cohort profile of each user of a partition, moved by profile records alone, in log order.

Two topics have no common order, so ``tidal.users`` cannot say which events a change of region precedes; a
record in the user's own partition of ``tidal.signals`` can. A replay stamps every event as the first run did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from materializers.erasing import erase_rows
from materializers.interner import IdCollisionError, Interner
from materializers.materializer import Forgotten, RowReader, RowWriter, TableSpec
from materializers.rows.user_ids import TABLE as USER_IDS
from materializers.rows.user_ids import USER_TAG
from schemas.cohort_profile import EMPTY_PROFILE
from schemas.keys import row_key, row_keys

U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]

USER_PROFILES_TABLE: Final = TableSpec("user_profiles", "[user][tag] -> cohort profile and its source")
USER_IDS_TABLE: Final = TableSpec(USER_IDS, "[user][tag] -> user id")

_UNKNOWN: Final = np.uint32(0xFFFFFFFF)
_GROWTH_MIN: Final = 1024
_OFFSET_BITS: Final = 47
"""A source is one number, ``partition << 47 | offset``: 16 bits of partition leave the sign free."""
_NO_SOURCE: Final = -1


class UserProfileRow(msgspec.Struct, frozen=True, array_like=True):
    """``source``: partition and offset of the record of ``tidal.users`` that the profile comes from."""

    profile: str
    source_partition: int
    source_offset: int


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(UserProfileRow)


@dataclass(frozen=True, slots=True)
class ProfileMove:
    """A profile record: from ``offset`` on the user's events carry ``profile``."""

    offset: int
    user: str
    profile: str
    source_partition: int
    source_offset: int


class UserProfiles:
    """The users of one partition: 12 bytes for each, and 4 for each user of the worker, wherever at home."""

    def __init__(self, users: Interner, profiles: Interner) -> None:
        self._users = users
        self._profiles = profiles
        self._empty = int(profiles.ids([EMPTY_PROFILE])[0])
        self._place_of: U32 = np.full(_GROWTH_MIN, _UNKNOWN, dtype=np.uint32)
        self._profile = np.zeros(_GROWTH_MIN, dtype=np.uint32)
        self._source: I64 = np.full(_GROWTH_MIN, _NO_SOURCE, dtype=np.int64)
        self._place_of[Interner.NONE] = 0
        self._profile[0] = self._empty
        self._size = 1
        self._changed: set[int] = set()
        self._new: list[int] = []

    @property
    def nbytes(self) -> int:
        """Bytes of memory held, what waits for a flush left out."""
        return int(self._place_of.nbytes + self._profile.nbytes + self._source.nbytes)

    def load(self, wids: U32, reader: RowReader) -> list[IdCollisionError]:
        """Know the users ``wids``; read those that are new to this process.

        Returns the users whose EntityId another id already holds in this partition's tables.
        """
        self._reserve()
        missing = np.unique(wids[self._place_of[wids] == _UNKNOWN])
        if not len(missing):
            return []
        keys = row_keys(self._users.entity_ids[missing], USER_TAG)
        ids = reader.get_many(USER_IDS_TABLE.name, keys)
        rows = reader.get_many(USER_PROFILES_TABLE.name, keys)
        collisions = []
        stored: dict[int, UserProfileRow] = {}
        self._place(missing)
        for wid, known, row in zip(missing.tolist(), ids, rows, strict=True):
            name = self._users.string(wid)
            if known is not None and known != name.encode():
                collisions.append(IdCollisionError(known.decode(), name))
                self._place_of[wid] = _UNKNOWN
                continue
            if known is None:
                self._new.append(wid)
            if row is not None:
                stored[wid] = _decoder.decode(row)
        self._take_rows(stored)
        return collisions

    def stamp(self, users: U32, offsets: I64, moves: Sequence[ProfileMove]) -> U32:
        """Profile wids of events u32[n] in log order, and the moves applied.

        Args:
            users: wids that ``load`` knows.
            offsets: i64[n]; a move counts for the events after it.
            moves: in log order, between or after these events.
        """
        stamped: U32 = self._profile[self._place_of[users]]
        applied = [move for move in moves if self._is_newer(move)]
        if not applied:
            return stamped
        for move in applied:
            self._move(move)
        if len(users):
            self._restamp(stamped, users, offsets, applied)
        return stamped

    def forget(self, users: Forgotten, reader: RowReader, writer: RowWriter) -> dict[str, int]:
        """Drop the users' ids and profiles; rows deleted by table."""
        self._reserve()
        gone = set(users.wids.tolist())
        self._place_of[users.wids] = _UNKNOWN  # their places stay empty: erasures are few
        self._changed -= gone
        self._new = [wid for wid in self._new if wid not in gone]
        return erase_rows(USER_IDS_TABLE.name, users.entity_ids, reader, writer) | erase_rows(
            USER_PROFILES_TABLE.name, users.entity_ids, reader, writer
        )

    def flush(self, writer: RowWriter) -> None:
        eids = self._users.entity_ids
        for wid in self._new:
            writer.put(
                USER_IDS_TABLE.name, row_key(int(eids[wid]), USER_TAG), self._users.string(wid).encode()
            )
        for wid in sorted(self._changed):
            place = self._place_of[wid]
            partition, offset = _split_source(int(self._source[place]))
            profile = self._profiles.string(int(self._profile[place]))
            writer.put(
                USER_PROFILES_TABLE.name,
                row_key(int(eids[wid]), USER_TAG),
                _encode(UserProfileRow(profile, partition, offset)),
            )
        self._new.clear()
        self._changed.clear()

    def _take_rows(self, stored: dict[int, UserProfileRow]) -> None:
        places = self._place_of[list(stored)]
        self._profile[places] = self._profiles.ids([row.profile for row in stored.values()])
        self._source[places] = [
            _source_of(row.source_partition, row.source_offset) for row in stored.values()
        ]

    def _is_newer(self, move: ProfileMove) -> bool:
        """Also marks the source as seen, so that a copy further on in the same batch is not newer."""
        place = self._place_of[self._users.ids([move.user])[0]]
        seen = int(self._source[place])
        source = _source_of(move.source_partition, move.source_offset)
        if seen != _NO_SOURCE and seen >> _OFFSET_BITS == move.source_partition and seen >= source:
            return False
        self._source[place] = source
        return True

    def _move(self, move: ProfileMove) -> None:
        wid = int(self._users.ids([move.user])[0])
        self._profile[self._place_of[wid]] = self._profiles.ids([move.profile])[0]
        self._changed.add(wid)

    def _restamp(self, stamped: U32, users: U32, offsets: I64, moves: Sequence[ProfileMove]) -> None:
        """Of events of moved users: the profile of the last move before each, found by one sorted search."""
        moved = self._users.ids([move.user for move in moves]).astype(np.int64)
        at = np.array([move.offset for move in moves], dtype=np.int64)
        profiles = self._profiles.ids([move.profile for move in moves])
        order = np.lexsort((at, moved))
        low = int(min(at.min(), offsets.min()))
        span = np.int64(int(max(at.max(), offsets.max())) - low + 1)
        keys = moved[order] * span + (at[order] - low)
        place = np.searchsorted(keys, users.astype(np.int64) * span + (offsets - low), side="right") - 1
        found = (place >= 0) & (moved[order][place] == users)
        stamped[found] = profiles[order][place[found]]

    def _place(self, wids: U32) -> None:
        """A place of its own for each, with the empty profile."""
        end = self._size + len(wids)
        if end > len(self._profile):
            more = max(len(self._profile) // 2, end - len(self._profile))
            self._profile = np.concatenate([self._profile, np.zeros(more, dtype=np.uint32)])
            self._source = np.concatenate([self._source, np.full(more, _NO_SOURCE, dtype=np.int64)])
        self._place_of[wids] = np.arange(self._size, end, dtype=np.uint32)
        self._profile[self._size : end] = self._empty
        self._size = end

    def _reserve(self) -> None:
        known = len(self._place_of)
        if len(self._users) > known:
            longer = np.full(1 << (len(self._users) - 1).bit_length(), _UNKNOWN, dtype=np.uint32)
            longer[:known] = self._place_of
            self._place_of = longer


def _source_of(partition: int, offset: int) -> int:
    return partition << _OFFSET_BITS | offset


def _split_source(source: int) -> tuple[int, int]:
    return source >> _OFFSET_BITS, source & ((1 << _OFFSET_BITS) - 1)
