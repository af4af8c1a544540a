"""What the shards of a worker share: dictionaries of strings, item cards, the way to other partitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from materializers.cards import Cards
from materializers.interner import Interner
from materializers.materializer import Materializer, PartitionContext, RowReader, Scope, Stamper, View
from materializers.registry import MaterializerRegistry
from materializers.shards.forwarding import Forwarder
from materializers.shards.homes import Homes
from materializers.stage_clock import StageClock, TimedView
from schemas.model import Schema


class SignalColumns(NamedTuple):
    """By dense signal index: the code that it is stored under, and whether repeated events are dropped."""

    code: npt.NDArray[np.uint64]
    deduplicated: npt.NDArray[np.bool_]

    @staticmethod
    def of(schema: Schema) -> SignalColumns:
        signals = schema.signal_list
        return SignalColumns(
            np.array([signal.code for signal in signals], dtype=np.uint64),
            np.array([signal.dedup == "default" for signal in signals], dtype=bool),
        )


@dataclass(slots=True)
class WorkerContext:
    """One for each worker; wids mean the same in all of its partitions."""

    schema: Schema
    partitions: int
    registry: MaterializerRegistry
    items: Interner
    users: Interner
    profiles: Interner
    creators: Interner
    cards: Cards
    forwarder: Forwarder
    user_homes: Homes
    item_homes: Homes
    clock: StageClock = field(default_factory=StageClock)
    signals: SignalColumns = field(init=False)

    def __post_init__(self) -> None:
        self.signals = SignalColumns.of(self.schema)

    def build_views(self, scope: Scope, partition: int, rows: RowReader) -> list[Materializer]:
        """The scope's views of one partition that do not stamp; those that share a table share ``rows``."""
        views = [view for view in self.registry.of(scope) if not view.stamps]
        return [TimedView(each, view.name, self.clock) for view, each in self._built(views, partition, rows)]

    def build_stampers(self, partition: int, rows: RowReader) -> list[Stamper]:
        """The views of one user partition that stamp."""
        views = [view for view in self.registry.of(Scope.USER) if view.stamps]
        return [cast(Stamper, each) for _, each in self._built(views, partition, rows)]

    def _built(
        self, views: Sequence[View], partition: int, rows: RowReader
    ) -> Iterator[tuple[View, Materializer]]:
        context = PartitionContext(
            partition=partition,
            partitions=self.partitions,
            schema=self.schema,
            items=self.items,
            users=self.users,
            profiles=self.profiles,
            creators=self.creators,
            rows=rows,
            cards=self.cards,
        )
        return ((view, view.build(context)) for view in views)
