"""queryd's columns and executor over tables that have nothing: what a page costs without records and I/O."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from materializers.materializer import Scope
from materializers.tables.feed import Change
from queryd.execute.context import Context, TextSearch, TitleReads, VectorSearch
from queryd.execute.pipeline import Page, execute
from queryd.execute.report import Report
from queryd.hot.cold import ColdTier
from queryd.hot.columns import HotColumns, OrdinalMap
from queryd.hot.feeder import HOT_HOURS
from queryd.hot.loading import Loader
from queryd.hot.reads import SignalReads
from queryd.hot.tables import Tables
from queryd.hot.users import UserReader
from queryd.language.parse import parse_query
from queryd.plan.plan import Plan
from queryd.plan.planner import make_plan
from schemas.loading import load_schema


class _NoTables:
    def catch_up(self) -> None:
        """Nothing comes."""

    def partitions(self, scope: Scope) -> Sequence[int]:
        return [0]

    def get_many(self, table: str, keys: Sequence[tuple[int, bytes]]) -> list[bytes | None]:
        return [None] * len(keys)

    def scan(
        self, table: str, partition: int, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        return iter(())

    def changes(self) -> Sequence[Change]:
        return []

    def applied(self, scope: Scope, partition: int) -> Mapping[str, int]:
        return {}

    def forwarded(self, partition: int) -> Mapping[int, int]:
        return {}

    def status(self) -> Mapping[str, Any]:
        return {}


class StillSite:
    """One partition whose items and profiles have queryd's own ordinals.

    Args:
        dimensions: names of keyword attributes of users that are dimensions. segments: flags of profiles.
    """

    def __init__(self, dimensions: Sequence[str], segments: Sequence[str] = ()) -> None:
        self.schema = load_schema(
            {
                "name": "benchmark",
                "entities": {
                    "user": {
                        "fields": dict.fromkeys(dimensions, "keyword"),
                        "dimensions": {name: {"field": name} for name in dimensions},
                    }
                },
                "segments": dict.fromkeys(segments, "count(view, 7d) >= 5"),
            }
        )
        self.hot = HotColumns(self.schema)
        self.view = self.schema.signal_index["view"]
        self.view_code = self.schema.signal_list[self.view].code
        tables = cast(Tables, _NoTables())
        self._cold = ColdTier(tables, self.hot)
        self._loader = Loader(tables, self.hot, self._cold, lambda writes: None)

    def add_items(self, count: int) -> None:
        """Items ``item_0`` and so on, under ordinals from 0."""
        for start in range(0, count, 100_000):
            names = [f"item_{number}" for number in range(start, min(start + 100_000, count))]
            self.hot.items.ordinals.deal(names)
        items = self.hot.item_maps[0] = OrdinalMap()
        items.set(0, np.arange(count, dtype=np.uint32))

    def settle(self, now_ms: int) -> None:
        """Merge and seal all that is over, as loading does at its end."""
        profiles = self.hot.profile_maps[0] = OrdinalMap()
        profiles.set(0, np.arange(len(self.hot.profiles), dtype=np.uint32))
        for cube in (self.hot.everybody, self.hot.by_profile):
            cube.expire(now_ms, HOT_HOURS)
            for _ in cube.tidy():
                pass

    def apply(self, change: Change) -> None:
        """Apply a flush from the feed."""
        known = self.hot.profile_maps[0]
        known.set(len(known), np.arange(len(known), len(self.hot.profiles), dtype=np.uint32))
        for _ in self._loader.apply([change]):
            pass

    def plan(self, cohort: str, window: str, limit: int) -> Plan:
        """The plan of a page of a cohort's trend."""
        text = f"RETRIEVE items USING PROFILE trending COHORT {cohort} WINDOW {window} LIMIT {limit}"
        return make_plan(parse_query(text), self.schema)

    def page(self, plan: Plan, now_ms: int) -> Page:
        """Execute a plan."""
        nothing: Any = None
        context = Context(
            plan=plan,
            hot=self.hot,
            reads=SignalReads(self.hot, self._cold, now_ms, now_ms),
            users=cast(UserReader, nothing),
            text=cast(TextSearch, nothing),
            vectors=cast(VectorSearch, nothing),
            titles=cast(TitleReads, nothing),
            report=Report(time.monotonic() + 60),
            at_ms=now_ms,
            seed=0,
            shown=np.zeros(0, dtype=np.uint32),
        )
        return execute(context)
