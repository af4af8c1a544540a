"""The one interface every view implements, and what it is given.

A view is a fold of the log. It is written once for a batch and knows nothing of Faust, Kafka,
checkpoint timing or partitions' movements: the runtime calls its three methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from materializers.facts import Canonical, Fact, raw_facts

if TYPE_CHECKING:
    from materializers.batches import StampBatch
    from materializers.cards import Cards
    from materializers.interner import Interner
    from schemas.model import Schema


class Scope(StrEnum):
    """Whose key partitions a view: it decides the shard that feeds it."""

    USER = "user"
    ITEM = "item"
    ENTITY = "entity"


class TableSpec(msgspec.Struct, frozen=True):
    """A RocksDB column family: its name, what its key is, whether point reads of absent keys are common."""

    name: str
    key: str
    bloom: bool = True


class RowReader(Protocol):
    """The rows of one partition. Keys come and go without the partition prefix."""

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of ``keys``; None where there is no row."""
        ...

    def scan(self, table: str, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Rows with ``start <= key < end`` in key order."""
        ...


class RowWriter(Protocol):
    """Collects one flush of one partition: rows for RocksDB and changelog, sections for the change feed."""

    def put(self, table: str, key: bytes, value: bytes) -> None: ...

    def put_many(self, table: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None: ...

    def delete(self, table: str, key: bytes) -> None: ...

    def feed(self, section: str, payload: bytes) -> None:
        """Add what changed for readers in memory; the writer adds the partition."""
        ...


@dataclass(frozen=True, slots=True)
class PartitionContext:
    """What a view may use: its partition, the schema, the worker's dictionaries, its own rows."""

    partition: int
    partitions: int
    schema: Schema
    items: Interner
    users: Interner
    profiles: Interner
    creators: Interner
    rows: RowReader
    cards: Cards | None = None


@dataclass(frozen=True, slots=True)
class Forgotten:
    """n users who are erased.

    ``entity_ids`` u64[n]: what rows hold. ``wids`` u32[n]: what a user view's memory holds (``users`` of the
    context); 0 where this process has not met the user, and always in item scope.
    """

    entity_ids: npt.NDArray[np.uint64]
    wids: npt.NDArray[np.uint32]


class Materializer(Protocol):
    """A view of one partition.

    The fold must depend on the batches' records alone (never on a clock or on batch boundaries), so
    that a replay after a crash gives the same tables.
    """

    def on_batch(self, batch: Any) -> None:
        """Fold a ``UserBatch``, ``ItemBatch`` or ``EntityBatch``, after the view's scope, in memory."""
        ...

    def checkpoint(self, writer: RowWriter) -> None:
        """Hand over each row changed since the last call; the runtime adds the applied offset."""
        ...

    def restore(self, reader: RowReader) -> None:
        """Load what must be in memory, once, before the first batch."""
        ...

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        """Drop all that the view holds of these users: in memory, changed or not, and in its rows.

        Called between two batches, at the same place of the log in every replay. ``writer`` takes deletes
        and replaced rows at once: the context's rows show them before the next batch, and they are written
        with the next flush, before ``checkpoint``. A view that holds nothing of single users returns ``{}``.

        Returns rows erased by table.
        """
        ...


class Stamper(Materializer, Protocol):
    """A materializer of scope user that adds to the cohort profile of events: it folds them where they are
    stamped, before any view sees them, and ``on_batch`` is not called.
    """

    def stamp(self, batch: StampBatch) -> npt.NDArray[np.uint32]:
        """Fold the events, and the profile wid of each, u32[n]: what held before the event was counted."""
        ...


class View(msgspec.Struct, frozen=True):
    """A registration: name, scope, tables, and how to build the materializer of one partition.

    Attributes:
        canonical: reads what the rows say where two folds of one log may have different rows (see
            ``materializers.facts``); None: every fold has the same bytes.
        carded: user scope: whether it folds ``UserBatch.carded``.
        stamps: user scope: it builds a ``Stamper``.
    """

    name: str
    scope: Scope
    tables: tuple[TableSpec, ...]
    build: Callable[[PartitionContext], Materializer]
    canonical: Canonical | None = None
    carded: bool = True
    stamps: bool = False

    def facts(self, rows: RowReader, schema: Schema) -> Iterator[Fact]:
        """What the view says in one partition."""
        read = self.canonical or raw_facts(*(spec.name for spec in self.tables))
        return read(rows, schema)
