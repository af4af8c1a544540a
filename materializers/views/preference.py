"""Preference vectors: where in embedding space a user's signals point, over the long and the short term.

On a signal with preference weight p for an item with the unit embedding e:

    η    = p · weight · max(η_min, η₀ / (1 + n/τ))        n = the user's updates so far in that slot
    pref = normalize(pref + η · e)                        a negative η pushes away

Before the first update ``pref`` is 0, and the user has no row. An event with η = 0 is no update. Where
``pref`` and ``η · e`` all but cancel (the sum is shorter than a thousandth of its parts) the direction
left is rounding noise: the vector stays what it was, and the event counts as an update.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from materializers.batches import CardedEvents, UserBatch
from materializers.canonical import preferences
from materializers.cards import Cards
from materializers.column_table import ColumnTable
from materializers.erasing import erase_rows
from materializers.materializer import (
    Forgotten,
    PartitionContext,
    RowReader,
    RowWriter,
    Scope,
    TableSpec,
    View,
)
from materializers.rounds import Rounds, rounds_of
from materializers.rows.preference import TABLE, preference_keys, preference_row
from materializers.views.signal_columns import preference_weights
from schemas.model import EmbeddingSlot
from schemas.weights import WEIGHT_SCALE

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

CANCELLED_SHARE = 1e-3
MEMORY_BYTES_MAX = 32 << 20  # vectors of one partition and slot kept in memory; others are read when needed
_ROUND_BYTES_MAX = 4 << 20  # users of one pass: their vectors stay near the processor
_SLOTS_MIN = 256
_EMBEDDINGS_MIN = 256  # of several rounds are read at once, however few users take part


class LearningRate(NamedTuple):
    """How fast a vector turns: ``eta_0`` at first, falling over ``tau`` updates, never below ``eta_min``."""

    eta_0: float
    eta_min: float
    tau: float

    def after(self, updates: I64) -> F64:
        """The rate of the update that follows ``updates`` earlier ones."""
        return np.maximum(self.eta_min, self.eta_0 / (1.0 + updates / self.tau))


LONG_TERM = LearningRate(eta_0=1.0, eta_min=0.05, tau=20.0)
SHORT_TERM = LearningRate(eta_0=1.0, eta_min=0.5, tau=5.0)


class Preferences:
    """The fold of one user partition: one ``_Slot`` for each embedding slot of items."""

    def __init__(self, context: PartitionContext) -> None:
        assert context.cards is not None, "user shards have item cards"
        self._cards = context.cards
        self._rows = context.rows
        self._weights = preference_weights(context.schema)
        slots = context.schema.entities["item"].embeddings.values()
        self._slots = [_Slot(slot, context) for slot in slots]

    def on_batch(self, batch: UserBatch) -> None:
        """Apply the events whose item is known, each user's in order."""
        carded = batch.carded
        strength = self._weights[carded.signal] * (carded.weight / WEIGHT_SCALE)
        moving = np.flatnonzero((strength != 0.0) & (carded.user != 0))
        if len(moving):
            for slot in self._slots:
                slot.apply(carded, moving, strength, self._cards)

    def checkpoint(self, writer: RowWriter) -> None:
        """Changed vectors."""
        for slot in self._slots:
            slot.table.flush(writer)

    def restore(self, reader: RowReader) -> None:
        """Vectors are read when an event touches them."""
        self._rows = reader
        for slot in self._slots:
            slot.table.restore(reader)

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        """Vectors of the users in every slot."""
        for slot in self._slots:
            slot.table.drop(lambda keys: np.isin(keys, users.wids))
        return erase_rows(TABLE, users.entity_ids, self._rows, writer)


class _Slot:
    """Vectors of one embedding slot."""

    def __init__(self, slot: EmbeddingSlot, context: PartitionContext) -> None:
        self._name = slot.name
        row = preference_row(slot.dim)
        users = context.users
        self.table = ColumnTable(
            TABLE,
            row,
            context.rows,
            lambda keys: preference_keys(users.entity_ids[keys], slot.name),
            order_of=lambda keys: (users.entity_ids[keys],),
            defaults={"dim": slot.dim},
            slots_max=max(_SLOTS_MIN, MEMORY_BYTES_MAX // row.width),
        )
        self._users_of_pass = max(1, _ROUND_BYTES_MAX // row.width)

    def apply(self, events: CardedEvents, moving: I64, strength: F64, cards: Cards) -> None:
        """Apply the events at ``moving`` whose item has an embedding in this slot."""
        moving = moving[cards.has_vector(self._name, events.card[moving])]
        if not len(moving):
            return
        rounds = rounds_of(events.user[moving].astype(np.int64))
        slots = self.table.slots(rounds.keys)
        steps = self._steps(rounds, slots, strength[moving[rounds.events]])
        card = events.card[moving[rounds.events]]
        for start in range(0, len(slots), self._users_of_pass):
            self._pass(rounds, start, slots, steps, card, cards)
        self.table["updates"][slots] += rounds.counts.astype(np.uint32)
        self.table.touch(slots)

    def _steps(self, rounds: Rounds, slots: I64, strength: F64) -> _Steps:
        """Of each event, in the order of ``rounds.events``."""
        before = self.table["updates"][slots].astype(np.int64)
        position = np.concatenate([np.arange(size) for size in rounds.sizes.tolist()])
        updates = before[position] + rounds.rank
        eta = np.stack([strength * LONG_TERM.after(updates), strength * SHORT_TERM.after(updates)])
        cancelled = CANCELLED_SHARE * ((updates > 0) + np.abs(eta))
        return _Steps(eta.astype(np.float32)[:, :, None], np.square(cancelled).astype(np.float32))

    def _pass(self, rounds: Rounds, start: int, slots: I64, steps: _Steps, card: U32, cards: Cards) -> None:
        """All rounds of the users from ``start`` on that fit one pass."""
        mine = slots[start : start + self._users_of_pass]
        vectors = np.stack([self.table["long"][mine], self.table["short"][mine]])
        parts = [
            slice(part.start + start, part.start + min(size, start + len(mine)))
            for size, part in rounds
            if size > start
        ]
        for together in _bounded(parts, max(len(mine), _EMBEDDINGS_MIN)):
            # One look for many rounds: the last ones have a few users each.
            embeddings = cards.vectors(self._name, np.concatenate([card[part] for part in together]))
            first = 0
            for part in together:
                end = first + part.stop - part.start
                moved = steps.eta[:, part] * embeddings[first:end]
                _update(vectors[:, : end - first], moved, steps.cancelled[:, part])
                first = end
        self.table["long"][mine], self.table["short"][mine] = vectors


class _Steps(NamedTuple):
    """Of n updates, for both vectors: η f32[2, n, 1], and the square of the length below which what is left
    is noise, f32[2, n].
    """

    eta: F32
    cancelled: F32


def _bounded(parts: Sequence[slice], rows_max: int) -> Iterator[list[slice]]:
    """Consecutive parts, one at least and together at most ``rows_max`` rows."""
    gathered: list[slice] = []
    rows = 0
    for part in parts:
        size = part.stop - part.start
        if gathered and rows + size > rows_max:
            yield gathered
            gathered, rows = [], 0
        gathered.append(part)
        rows += size
    if gathered:
        yield gathered


def _update(vectors: F32, moved: F32, cancelled: F32) -> None:
    """One round in place: ``vectors`` f32[2, m, dim] become ``vectors + moved`` at unit length, unless the
    square of their length is below ``cancelled`` f32[2, m].

    Most rounds have a few users: what costs is a call, however little it does.
    """
    np.add(moved, vectors, out=moved)
    square = np.vecdot(moved, moved)
    noise = square < cancelled
    if np.count_nonzero(noise):
        moved[noise] = vectors[noise]
        square[noise] = 1.0
    np.divide(moved, np.sqrt(square)[:, :, None], out=vectors)


VIEW = View(
    name="preference",
    scope=Scope.USER,
    tables=(TableSpec(TABLE, "user, slot code"),),
    build=Preferences,
    canonical=preferences,
)
