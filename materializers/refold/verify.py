"""``tidal verify``: the tables as they are now against a clean fold of the log exactly to there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from materializers.facts import Canonical
from materializers.materializer import RowReader, Scope, View
from materializers.refold.claims import own_folder
from materializers.refold.compare import Difference, differences
from materializers.refold.goal import Goal, goal_of
from materializers.refold.log_reader import LogReader, Place
from materializers.refold.own_tables import own_tables
from materializers.refold.progress import Watch, unwatched
from materializers.refold.refold import Refold
from materializers.refold.same_schema import check_schema
from materializers.registry import MaterializerRegistry
from materializers.tables.reader import TableReader
from schemas.errors import TidalError
from schemas.model import Schema
from streams.topics import ITEMS, SIGNALS

DIFFERENCES_MAX: Final = 10_000
"""Kept of one view; all are counted."""


class NothingToVerifyError(TidalError):
    """No worker holds a partition."""


class ViewResult(msgspec.Struct, kw_only=True):
    """How one view compares.

    Attributes:
        facts: read from the tables. differing: how many facts differ.
        differences: the first of them. not_compared: why it was left out, None if it was compared.
    """

    view: str
    facts: int = 0
    differing: int = 0
    differences: list[Difference] = []
    not_compared: str | None = None


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome. ``notes``: what limits what it says."""

    views: list[ViewResult]
    notes: list[str]
    events: int

    @property
    def is_equal(self) -> bool:
        """Nothing that was compared differs."""
        return not any(result.differing for result in self.views)

    @property
    def is_complete(self) -> bool:
        """Everything asked for was compared."""
        return not any(result.not_compared for result in self.views)


class _Comparison(NamedTuple):
    name: str
    scope: Scope
    facts: Canonical


class LiveRows:
    """``RowReader`` of one partition of the running tables."""

    def __init__(self, reader: TableReader, partition: int) -> None:
        self._reader = reader
        self._partition = partition

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._reader.get_many(table, [(self._partition, key) for key in keys])

    def scan(self, table: str, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        return self._reader.scan(table, self._partition, start, end)


def verify(
    data: Path,
    brokers: str,
    schema: Schema,
    registry: MaterializerRegistry,
    partitions: int,
    *,
    only: Sequence[str] = (),
    watch: Watch = unwatched,
) -> Verification:
    """Compare; workers may run meanwhile.

    A secondary reader sees one moment of each worker's database until it catches up again, which it does not:
    each partition and scope is compared at its own applied positions.

    Args:
        only: names of views; none = all, and the shards' own tables.

    Raises:
        NothingToVerifyError, LogUnreadableError.
    """
    with own_folder(data, "verify") as folder:
        reader, log = TableReader(data, folder.name), LogReader(brokers)
        try:
            reader.catch_up()
            check_schema(reader, schema)
            goal = goal_of(reader)
            if len(goal) < partitions:
                raise NothingToVerifyError(
                    f"{data}: tables of {len(goal)} of {partitions} partitions are on this machine; start "
                    "the workers, or name the folder with --data"
                )
            views = [view for scope in Scope for view in registry.of(scope)]
            chosen = [view for view in views if not only or view.name in only]
            return _Verifier(folder, reader, log, schema, goal, watch).run(chosen, with_own=not only)
        finally:
            reader.close()
            log.close()


class _Verifier:
    """One comparison."""

    def __init__(
        self, folder: Path, reader: TableReader, log: LogReader, schema: Schema, goal: Goal, watch: Watch
    ) -> None:
        self._folder = folder
        self._reader = reader
        self._log = log
        self._schema = schema
        self._goal = goal
        self._watch = watch

    def run(self, views: Sequence[View], *, with_own: bool) -> Verification:
        lost = self._lost_signals()
        kept = [view for view in views if not lost or view.scope is Scope.ENTITY]
        left_out = [ViewResult(view=view.name, not_compared=lost) for view in views if view not in kept]
        own = [each for each in own_tables() if with_own and not lost]
        refold = Refold(
            self._folder / "fold",
            self._log,
            self._schema,
            kept,
            len(self._goal),
            own_tables=bool(own),
            watch=self._watch,
        )
        try:
            refold.advance(self._goal)
            comparisons = [_Comparison(view.name, view.scope, view.facts) for view in kept]
            comparisons += [_Comparison(each.name, each.scope, each.facts) for each in own]
            results = [self._compare(comparison, refold) for comparison in comparisons]
        finally:
            refold.close()
        return Verification(
            views=[*results, *left_out], notes=self._notes(kept, refold), events=refold.events
        )

    def _compare(self, comparison: _Comparison, refold: Refold) -> ViewResult:
        result = ViewResult(view=comparison.name)
        for partition in sorted(self._goal):
            live: RowReader = LiveRows(self._reader, partition)
            stored = _counted(comparison.facts(live, self._schema), result)
            expected = comparison.facts(refold.rows(partition), self._schema)
            for found in differences(comparison.name, partition, stored, expected, refold.name_of):
                result.differing += 1
                if len(result.differences) < DIFFERENCES_MAX:
                    result.differences.append(found)
        return result

    def _lost_signals(self) -> str | None:
        """Why signals cannot be folded again from the beginning, None if they can."""
        for partition in sorted(self._goal):
            low = self._log.bounds(Place(SIGNALS, partition)).start
            if low > 0:
                return (
                    f"{SIGNALS} partition {partition} begins at offset {low}: retention has removed what the "
                    "tables were folded from"
                )
        return None

    def _notes(self, views: Sequence[View], refold: Refold) -> list[str]:
        notes = []
        if any(view.scope is Scope.USER and view.carded for view in views):
            shortened = [partition for partition, wanted in self._goal.items() if wanted.first_card_row > 0]
            if shortened:
                notes.append(
                    f"user partitions {shortened} have dropped their oldest card positions: early events may "
                    "have seen other item records than the fold did"
                )
            if refold.item_records_missing:
                notes.append(
                    f"{refold.item_records_missing} offsets of {ITEMS} hold no record any more (compaction): "
                    "where an event saw an older version of its item, preferences and ties to creators differ"
                )
        return notes


def _counted(facts: Iterator, result: ViewResult) -> Iterator:  # type: ignore[type-arg]
    for fact in facts:
        result.facts += 1
        yield fact
