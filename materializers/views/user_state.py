"""User state: of each user and declared state the set of items, set by some signals and cleared by others.

A signal may set and clear several. The last event of a user on an item decides. Sets are Roaring containers
of 65,536 of the partition's item ordinals, so that one event rewrites one container.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from materializers.batches import UserBatch
from materializers.canonical import dictionary, several, user_states
from materializers.erasing import erase_rows
from materializers.grouping import Groups, composite_key, order_of
from materializers.materializer import (
    Forgotten,
    PartitionContext,
    RowReader,
    RowWriter,
    Scope,
    TableSpec,
    View,
)
from materializers.ordinals import shared_ordinals
from materializers.rows.ordinals import USER_ITEMS
from materializers.rows.user_state import CHUNK_BITS, TABLE, decode_container, encode_container, state_keys
from materializers.views.signal_columns import state_operations

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

CONTAINERS_MAX = 1 << 16  # containers of one partition in memory, about 300 bytes each: 20 MB
_STATE_BITS = 15  # with 32 bits of user and 16 of chunk: 63


class UserStates:
    """The fold of one user partition."""

    def __init__(self, context: PartitionContext, containers_max: int = CONTAINERS_MAX) -> None:
        schema = context.schema
        self._operations = state_operations(schema)
        self._codes = np.array([state.code for state in schema.states.values()], dtype=np.uint32)
        self._users = context.users
        self._rows = context.rows
        self._items = shared_ordinals(USER_ITEMS, context.rows, context.items)
        self._containers_max = containers_max
        self._containers: dict[int, BitMap] = {}
        self._dirty: set[int] = set()
        self._maybe_stored = True  # some row may be on disk and not in memory

    def on_batch(self, batch: UserBatch) -> None:
        """Set and clear, the last event on each (user, state, item) winning."""
        known = np.flatnonzero(batch.user != 0)
        rows, operations = self._operations.of(batch.signal[known])
        if not len(rows):
            return
        events = known[rows]
        states, sets = self._operations.state[operations], self._operations.sets[operations]
        user = batch.user[events].astype(np.int64)
        ordinal = self._items.of(batch.item[events])
        container = (user << (_STATE_BITS + CHUNK_BITS)) | (states << CHUNK_BITS) | (ordinal >> CHUNK_BITS)
        groups = Groups(composite_key([user, states, ordinal]))
        last_is_set = (groups.max((events << 1) | sets) & 1).astype(bool)
        self._apply(groups.representative(container), groups.representative(ordinal), last_is_set)

    def checkpoint(self, writer: RowWriter) -> None:
        """Changed containers; an empty one has no row."""
        self._items.checkpoint(writer)
        if not self._dirty:
            return
        dirty = np.fromiter(self._dirty, np.int64, len(self._dirty))
        self._dirty.clear()
        dirty = dirty[order_of(self._columns_of(dirty))]  # as the rows stand in the table
        keys = self._keys_of(dirty)
        bitmaps = [self._containers[key] for key in dirty.tolist()]
        if not all(bitmaps):
            for key in [key for key, bitmap in zip(keys, bitmaps, strict=True) if not bitmap]:
                writer.delete(TABLE, key)
            filled = [(key, bitmap) for key, bitmap in zip(keys, bitmaps, strict=True) if bitmap]
            keys, bitmaps = [key for key, _ in filled], [bitmap for _, bitmap in filled]
        writer.put_many(TABLE, keys, list(map(encode_container, bitmaps)))

    def restore(self, reader: RowReader) -> None:
        """Ordinals at once; containers are read when an event touches them."""
        self._rows = reader
        self._items.restore(reader)
        self._containers.clear()
        self._dirty.clear()
        self._maybe_stored = next(iter(reader.scan(TABLE)), None) is not None

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        """Containers and rows of the users."""
        wids = set(users.wids.tolist())
        for key in [key for key in self._containers if key >> (_STATE_BITS + CHUNK_BITS) in wids]:
            del self._containers[key]
            self._dirty.discard(key)
        return erase_rows(TABLE, users.entity_ids, self._rows, writer)

    def _apply(self, container: I64, ordinal: U32, is_set: Flags) -> None:
        """Final operations sorted by container and ordinal."""
        starts = [0, *(np.flatnonzero(container[1:] != container[:-1]) + 1).tolist()]
        ends = [*starts[1:], len(container)]
        keys = container[starts].tolist()
        ordinals, flags = ordinal.tolist(), is_set.tolist()
        changed = []
        for key, bitmap, start, end in zip(keys, self._loaded(keys), starts, ends, strict=True):
            for position in range(start, end):
                item = ordinals[position]
                if (item in bitmap) is not flags[position]:
                    (bitmap.add if flags[position] else bitmap.remove)(item)
                    changed.append(key)
        self._dirty.update(changed)

    def _loaded(self, keys: list[int]) -> list[BitMap]:
        """The containers, in memory from now on."""
        containers = self._containers
        missing = [key for key in keys if key not in containers]
        if missing:
            self._evict(len(missing), keys)
            if not self._maybe_stored:
                containers.update((key, BitMap()) for key in missing)
            else:
                stored = self._rows.get_many(TABLE, self._keys_of(np.array(missing, dtype=np.int64)))
                for key, value in zip(missing, stored, strict=True):
                    containers[key] = BitMap() if value is None else decode_container(value)
        return [containers[key] for key in keys]

    def _evict(self, arriving: int, in_use: list[int]) -> None:
        """Drop containers that are as on disk, those first that came first; changed ones stay, and those
        ``in_use``, which this batch needs. What stays goes to the end: it comes last the next time.
        """
        excess = len(self._containers) + arriving - self._containers_max
        if excess <= 0:
            return
        kept = self._dirty.union(in_use)
        for key in list(islice(self._containers, 2 * excess)):
            bitmap = self._containers.pop(key)
            if key in kept or excess == 0:
                self._containers[key] = bitmap
            else:
                self._maybe_stored = True
                excess -= 1

    def _keys_of(self, keys: I64) -> list[bytes]:
        return state_keys(*self._columns_of(keys))

    def _columns_of(self, keys: I64) -> tuple[U64, U32, U16]:
        state = (keys >> CHUNK_BITS) & ((1 << _STATE_BITS) - 1)
        user = self._users.entity_ids[keys >> (_STATE_BITS + CHUNK_BITS)]
        return user, self._codes[state], (keys & ((1 << CHUNK_BITS) - 1)).astype(np.uint16)


VIEW = View(
    name="user_state",
    scope=Scope.USER,
    tables=(TableSpec(USER_ITEMS, "ordinal", bloom=False), TableSpec(TABLE, "user, state code, chunk")),
    build=UserStates,
    canonical=several(dictionary(USER_ITEMS), user_states),
    carded=False,
)
