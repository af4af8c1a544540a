"""Co-engagement: who shares an item, for the states that the schema lists.

A row is the sample of the users who ever had the item in the state: those with the smallest EntityIds. Who
loses the state stays in the sample, so a row is a set that only grows and is cut, the same whatever the order
of events and the boundaries of batches; readers look up what they find in the user's own states.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from materializers.batches import UserBatch
from materializers.grouping import distinct
from materializers.materializer import (
    Forgotten,
    PartitionContext,
    RowReader,
    RowWriter,
    Scope,
    TableSpec,
    View,
)
from materializers.rows.co_engagement import (
    TABLE,
    USERS_MAX,
    co_engagement_keys,
    decode_users,
    encode_users,
)
from materializers.views.signal_columns import states_set

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

_STATE_BITS = 15  # as in the rows of user states: with 32 bits of item 47


class CoEngagement:
    """The fold of one user partition. Between flushes it holds what came since the last: (cell, user) pairs,
    a cell being an item and a state, 16 bytes each."""

    def __init__(self, context: PartitionContext, users_max: int = USERS_MAX) -> None:
        schema = context.schema
        self._sets = states_set(schema, schema.co_engagement)
        self._codes = np.array([state.code for state in schema.states.values()], dtype=np.uint32)
        self._items = context.items
        self._users = context.users
        self._rows = context.rows
        self._users_max = users_max
        self._pending: list[tuple[I64, U64]] = []

    def on_batch(self, batch: UserBatch) -> None:
        """Keep who set which state of which item."""
        known = np.flatnonzero((batch.user != 0) & (self._sets.counts[batch.signal] > 0))
        if not len(known):
            return
        rows, operations = self._sets.of(batch.signal[known])
        events = known[rows]
        cells = (batch.item[events].astype(np.int64) << _STATE_BITS) | self._sets.state[operations]
        self._pending.append((cells, self._users.entity_ids[batch.user[events]]))

    def checkpoint(self, writer: RowWriter) -> None:
        """Rows that have changed."""
        for key, value in self._changed().items():
            writer.put(TABLE, key, value)

    def restore(self, reader: RowReader) -> None:
        """Nothing is kept in memory between flushes."""
        self._rows = reader
        self._pending.clear()

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        """Take the users out of every sample of the partition.

        What is pending is cut into the rows first: a full sample then loses the same users, wherever flushes
        fell. Rows are found by reading all of them, once for all users that are forgotten at this place.
        """
        changed = self._changed()
        erased = 0
        for key, row in (dict(self._rows.scan(TABLE)) | changed).items():
            held = decode_users(row)
            kept = held[~np.isin(held, users.entity_ids)]
            erased += len(kept) < len(held)
            if not len(kept):
                writer.delete(TABLE, key)
            elif len(kept) < len(held) or key in changed:
                writer.put(TABLE, key, encode_users(kept))
        return {TABLE: erased} if erased else {}

    def _changed(self) -> dict[bytes, bytes]:
        """The rows that what is pending changes; nothing is pending after it."""
        if not self._pending:
            return {}
        cells = np.concatenate([cells for cells, _ in self._pending])
        users = np.concatenate([users for _, users in self._pending])
        self._pending.clear()
        named = distinct(cells)
        cell = np.searchsorted(named, cells)
        keys = self._keys_of(named)
        stored = self._rows.get_many(TABLE, keys)
        before = [_NOBODY if row is None else decode_users(row) for row in stored]
        full = np.array([len(each) >= self._users_max for each in before])
        largest = np.array([each[-1] if len(each) else 0 for each in before], dtype=np.uint64)
        # Most of what comes to a popular item lies beyond its full sample.
        entering = ~full[cell] | (users < largest[cell])
        cell, users = cell[entering], users[entering]
        touched = distinct(cell)
        owner = np.repeat(touched, [len(before[place]) for place in touched.tolist()])
        held = [before[place] for place in touched.tolist()]
        cell, users = _sampled(np.concatenate([owner, cell]), np.concatenate([*held, users]), self._users_max)
        starts = np.searchsorted(cell, touched).tolist()
        ends = np.searchsorted(cell, touched, side="right").tolist()
        values = {
            keys[place]: encode_users(users[start:end])
            for place, start, end in zip(touched.tolist(), starts, ends, strict=True)
        }
        known = {keys[place]: stored[place] for place in touched.tolist()}
        return {key: value for key, value in values.items() if value != known[key]}

    def _keys_of(self, cells: I64) -> list[bytes]:
        state = cells & ((1 << _STATE_BITS) - 1)
        return co_engagement_keys(self._items.entity_ids[cells >> _STATE_BITS], self._codes[state])


_NOBODY: U64 = np.zeros(0, dtype=np.uint64)


def _sampled(cell: I64, users: U64, users_max: int) -> tuple[I64, U64]:
    """Of each cell the smallest users, each once and at most ``users_max``, sorted by cell and user."""
    order = np.lexsort((users, cell))
    cell, users = cell[order], users[order]
    fresh: Flags = np.ones(len(cell), dtype=bool)
    fresh[1:] = (cell[1:] != cell[:-1]) | (users[1:] != users[:-1])
    cell, users = cell[fresh], users[fresh]
    starts = np.searchsorted(cell, cell)
    kept = np.arange(len(cell)) - starts < users_max
    return cell[kept], users[kept]


VIEW = View(
    name="co_engagement",
    scope=Scope.USER,
    tables=(TableSpec(TABLE, "item, state code"),),
    build=CoEngagement,
)
