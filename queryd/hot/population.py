"""Who is in a cohort now: the cohort profile of every user that has a record, kept as columns.

Read from the users' rows when somebody first asks for a size, and followed by the change feed from then on: a
site that asks for none pays nothing. Twelve bytes a user; a size is a sum over the profiles that satisfy the
predicate, whatever the number of users. Behavioural segments are no part of a record: who is in one is asked
of ``Segments``, user by user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Protocol

import msgspec
import numpy as np

from materializers.rows.entities import TABLE_OF_KIND, EntityChange, decode_entity_row
from queryd.hot.arrays import I32, I64, U64, Mask, lengthened
from queryd.hot.profiles import ProfileTable
from queryd.hot.tables import Tables
from schemas.ids import entity_id
from schemas.keys import split_row_key
from schemas.model import Schema
from schemas.predicate import And, Flag, Not, Or, Predicate, leaves

_ROWS_AT_ONCE = 512  # about 1.5 ms
_TAIL_MAX = 16_384
_KNOWN_MAX = 65_536
_GONE = -1


class Segments(Protocol):
    """Who is in a behavioural segment."""

    def members(self, name: str) -> U64:
        """EntityIds of the users who are in it now, each once, in any order."""
        ...


class _NoSegments:
    def members(self, name: str) -> U64:
        return np.zeros(0, dtype=np.uint64)


class Population:
    """The users of all partitions.

    Args:
        partitions: of the user-keyed topics.
        segments: whom flags of predicates are asked of; without it they hold for nobody.
    """

    def __init__(
        self, tables: Tables, schema: Schema, partitions: int, segments: Segments | None = None
    ) -> None:
        self._tables = tables
        self._partitions = partitions
        self._profiles = ProfileTable()
        self._read_profile = _ProfileReader(schema, self._profiles)
        self._users: dict[int, _PartitionUsers] = {}
        self._segments = _NoSegments() if segments is None else segments
        self._loading = asyncio.Lock()
        self.version = 0
        """Changes whenever a record may have changed."""

    @property
    def loaded(self) -> bool:
        """Whether the records were read: before that no change is followed."""
        return len(self._users) == self._partitions

    def values(self, dimension: str) -> list[str]:
        """Values of a dimension that records of users give it, now or earlier; none before ``load``."""
        return self._profiles.values(dimension)

    def knows(self, dimension: str, value: str) -> bool:
        """Whether a record gives or gave it this value."""
        return self._profiles.knows(dimension, value)

    async def load(self) -> None:
        """Read the records once, in slices."""
        async with self._loading:
            for partition in range(self._partitions):
                if partition not in self._users:
                    await self._scan(partition)

    def apply(self, partition: int, changes: Iterable[EntityChange]) -> None:
        """Follow new and deleted records of users."""
        users = self._users.get(partition)
        if users is None:
            return
        self.version += 1
        for change in changes:
            profile = _GONE if change.raw is None else self._read_profile(change.raw)
            users.set(entity_id(change.id), profile)

    def drop(self, partition: int) -> None:
        """Forget a partition whose rows were replaced; the next ``load`` reads it."""
        self._users.pop(partition, None)
        self.version += 1

    def count(self, predicate: Predicate) -> int:
        """Users who satisfy a checked predicate now; those of ``load`` and of what came after."""
        if names_segment(predicate):
            return self._count_each(predicate)
        mask = self._profiles.mask(predicate)
        return sum(int(lengthened(users.counts(), len(mask))[mask].sum()) for users in self._users.values())

    def _count_each(self, predicate: Predicate) -> int:
        """With segments, users are judged one by one; one without a record has no value of any dimension."""
        recorded = np.concatenate([_NO_IDS, *(users.columns()[0] for users in self._users.values())])
        profiles = np.concatenate([_NO_PROFILES, *(users.columns()[1] for users in self._users.values())])
        named = {leaf.name for leaf in leaves(predicate) if isinstance(leaf, Flag)}
        members = {name: self._segments.members(name) for name in named}
        others = np.setdiff1d(np.concatenate([_NO_IDS, *members.values()]), recorded)
        empty = self._profiles.deal(["{}"]).astype(np.int32)
        everybody = np.concatenate([recorded, others])
        profiles = np.concatenate([profiles, np.repeat(empty, len(others))])
        return int(self._holds(predicate, everybody, profiles, members).sum())

    def _holds(self, predicate: Predicate, ids: U64, profiles: I32, members: dict[str, U64]) -> Mask:
        match predicate:
            case Flag(name):
                return np.isin(ids, members[name])
            case And(children) if names_segment(predicate):
                parts = [self._holds(child, ids, profiles, members) for child in children]
                return np.asarray(np.logical_and.reduce(parts))
            case Or(children) if names_segment(predicate):
                parts = [self._holds(child, ids, profiles, members) for child in children]
                return np.asarray(np.logical_or.reduce(parts))
            case Not(child):
                return ~self._holds(child, ids, profiles, members)
            case _:
                return self._profiles.mask(predicate)[profiles]

    async def _scan(self, partition: int) -> None:
        """Page by page: no scan stays open in a pause, where the tables may catch up.

        Changes of the meantime go to the partition's users as well, and they are the newer ones.
        """
        users = self._users[partition] = _PartitionUsers()
        try:
            users.begin(*await self._rows(partition))
        except BaseException:
            self.drop(partition)
            raise

    async def _rows(self, partition: int) -> tuple[list[int], list[int]]:
        """EntityIds and profiles of a partition's records."""
        ids: list[int] = []
        profiles: list[int] = []
        begin: bytes = b""
        while rows := list(islice(self._tables.scan(TABLE_OF_KIND["user"], partition, begin), _ROWS_AT_ONCE)):
            for key, value in rows:
                row = decode_entity_row(value)
                ids.append(split_row_key(key)[0])
                profiles.append(_GONE if row.status == "deleted" else self._read_profile(row.raw))
            begin = rows[-1][0] + b"\x00"
            await asyncio.sleep(0)
        return ids, profiles


class _PartitionUsers:
    """EntityIds, sorted, and their profiles; what changed lately stands apart and is merged now and then."""

    def __init__(self) -> None:
        self._ids: U64 = _NO_IDS
        self._profiles: I32 = _NO_PROFILES
        self._counts: I64 = _NOBODY
        self._tail: dict[int, int] = {}

    def begin(self, ids: Sequence[int], profiles: Sequence[int]) -> None:
        """The rows as they were read."""
        self._keep(np.array(ids, dtype=np.uint64), np.array(profiles, dtype=np.int32))

    def set(self, user: int, profile: int) -> None:
        """The user has this profile from now on; ``_GONE``: no record any more."""
        self._tail[user] = profile
        if len(self._tail) > _TAIL_MAX:
            self._merge()

    def counts(self) -> I64:
        """Users by profile, i64[profiles]."""
        if not self._tail:
            return self._counts
        ids, profiles = self._tail_columns()
        place = np.searchsorted(self._ids, ids)
        place[place == len(self._ids)] = 0
        known = self._ids[place] == ids if len(self._ids) else np.zeros(len(ids), dtype=np.bool_)
        length = max(len(self._counts), int(profiles.max(initial=_GONE)) + 1)
        counts = lengthened(self._counts, length).copy()
        counts -= np.bincount(self._profiles[place[known]], minlength=length)
        counts += np.bincount(profiles[profiles != _GONE], minlength=length)
        return counts

    def columns(self) -> tuple[U64, I32]:
        """EntityIds u64[n] and profiles i32[n]."""
        if self._tail:
            self._merge()
        return self._ids, self._profiles

    def _merge(self) -> None:
        ids, profiles = self._tail_columns()
        stays = ~np.isin(self._ids, ids)
        self._tail = {}
        self._keep(np.concatenate([self._ids[stays], ids]), np.concatenate([self._profiles[stays], profiles]))

    def _keep(self, ids: U64, profiles: I32) -> None:
        present = profiles != _GONE
        order = np.argsort(ids[present])
        self._ids, self._profiles = ids[present][order], profiles[present][order]
        self._counts = np.bincount(self._profiles).astype(np.int64)

    def _tail_columns(self) -> tuple[U64, I32]:
        size = len(self._tail)
        return (
            np.fromiter(self._tail.keys(), dtype=np.uint64, count=size),
            np.fromiter(self._tail.values(), dtype=np.int32, count=size),
        )


class _ProfileReader:
    """From a record's bytes to the number of its profile: only the fields that dimensions need are decoded,
    and users with the same values share the work."""

    def __init__(self, schema: Schema, profiles: ProfileTable) -> None:
        self._schema = schema
        self._profiles = profiles
        self._fields = list(dict.fromkeys(["status", *(each.field for each in schema.dimensions.values())]))
        names = [f"field_{place}" for place in range(len(self._fields))]
        struct = msgspec.defstruct(
            "Attributes",
            [(name, msgspec.Raw, msgspec.Raw(b"null")) for name in names],
            rename=dict(zip(names, self._fields, strict=True)),
        )
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(struct)
        self._known: dict[tuple[bytes, ...], int] = {}

    def __call__(self, raw: bytes) -> int:
        key = tuple(map(bytes, msgspec.structs.astuple(self._decoder.decode(raw))))
        profile = self._known.get(key)
        if profile is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            profile = self._known[key] = self._profile_of(key)
        return profile

    def _profile_of(self, values: Sequence[bytes]) -> int:
        attributes = {
            name: msgspec.json.decode(value) for name, value in zip(self._fields, values, strict=True)
        }
        if attributes["status"] == "deleted":
            return _GONE
        [dealt] = self._profiles.deal([self._schema.profile_string(attributes)]).tolist()
        return int(dealt)


def names_segment(predicate: Predicate) -> bool:
    """Whether it depends on what users did, and so on the time."""
    return any(isinstance(leaf, Flag) for leaf in leaves(predicate))


_NO_IDS: U64 = np.zeros(0, dtype=np.uint64)
_NO_PROFILES: I32 = np.zeros(0, dtype=np.int32)
_NOBODY: I64 = np.zeros(0, dtype=np.int64)
