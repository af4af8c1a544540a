"""``tidal rebuild VIEW``: fold the view beside the running one, catch up, swap partition by partition.

A view that shares a table with others (a dictionary of ordinals) is rebuilt together with them. While the
log is folded the workers go on; each partition stands still only for its own swap, a second or so. Until a
partition's swap its old rows are in force, afterwards the new ones: ending the rebuild at any moment, in any
way, leaves nothing half done, and running it again begins anew.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Final, TypeVar
from uuid import uuid4

import msgspec

from materializers.materializer import Scope, View
from materializers.refold.changelog_keys import ChangelogKeys
from materializers.refold.claims import claimed
from materializers.refold.goal import Goal, goal_of, partition_goal
from materializers.refold.log_reader import LogReader, Place
from materializers.refold.progress import Progress, ProgressFile, Watch, unwatched
from materializers.refold.refold import Refold
from materializers.refold.same_schema import check_schema
from materializers.refold.swap_files import REBUILD_FOLDER, Held, Outcome, Request, SwapFolder
from materializers.registry import MaterializerRegistry
from materializers.tables.reader import WORKERS_FOLDER, TableReader
from schemas.errors import TidalError
from schemas.model import Schema
from streams.topics import changelog_topic

_ROUNDS_MAX: Final = 8
_SHORT_ROUND_S: Final = 1.0
"""A round of catching up that took no longer is followed by the swaps."""
_ANSWER_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.02
_RENEW_EVERY_S: Final = 1.0

_Message = TypeVar("_Message", Held, Outcome)


class RebuildError(TidalError):
    """The rebuild ended before every partition was swapped."""


class SwappedPartition(msgspec.Struct, frozen=True):
    """``rows`` are in force, ``vanished`` old ones are gone; the partition stood still for ``held_s``."""

    partition: int
    worker: str
    rows: int
    vanished: int
    held_s: float


class Rebuilt(msgspec.Struct, frozen=True):
    """The outcome. ``views``: the one that was asked for, and those that share tables with it."""

    views: list[str]
    events: int
    seconds: float
    partitions: list[SwappedPartition]


def views_together(registry: MaterializerRegistry, name: str) -> list[View]:
    """The view ``name`` and all views that share tables with it, directly or by way of others."""
    views = [view for scope in Scope for view in registry.of(scope)]
    chosen = [view for view in views if view.name == name]
    tables = {spec.name for view in chosen for spec in view.tables}
    while True:
        chosen = [view for view in views if tables & {spec.name for spec in view.tables}]
        grown = {spec.name for view in chosen for spec in view.tables}
        if grown == tables:
            return chosen
        tables = grown


def rebuild(
    data: Path,
    brokers: str,
    schema: Schema,
    registry: MaterializerRegistry,
    partitions: int,
    name: str,
    *,
    application: str = "tidal",
    watch: Watch = unwatched,
    swapped: Callable[[SwappedPartition], None] = lambda partition: None,
) -> Rebuilt:
    """Rebuild the view ``name`` on running workers.

    Args:
        application: prefix of the changelog topics.
        swapped: told of each partition once its new rows are in force.

    Raises:
        RebuildError: another rebuild runs, a worker does not answer, or a partition moved meanwhile.
        LogUnreadableError: the log does not answer, or does not reach back to its beginning.
    """
    views = views_together(registry, name)
    with _only_one(data) as folder, ProgressFile(folder, name) as report:

        def look(progress: Progress) -> None:
            report(progress)
            watch(progress)

        reader, log = TableReader(data, f"{REBUILD_FOLDER}/fold"), LogReader(brokers)
        try:
            work = _Rebuild(data, folder, reader, log, schema, views, partitions, application, look)
            return work.run(swapped)
        finally:
            reader.close()
            log.close()


class _Rebuild:
    def __init__(
        self,
        data: Path,
        folder: Path,
        reader: TableReader,
        log: LogReader,
        schema: Schema,
        views: Sequence[View],
        partitions: int,
        application: str,
        watch: Watch,
    ) -> None:
        self._data = data
        self._reader = reader
        self._log = log
        self._changelog = changelog_topic(application, views[0].scope.value)
        self._schema = schema
        self._views = views
        self._partitions = partitions
        self._tables = list(dict.fromkeys(spec.name for view in views for spec in view.tables))
        self._refold = Refold(folder / "fold", log, schema, views, partitions, watch=watch)
        self._started_s = time.monotonic()

    def run(self, swapped: Callable[[SwappedPartition], None]) -> Rebuilt:
        try:
            self._catch_up()
            done: list[SwappedPartition] = []
            for partition in range(self._partitions):
                done.append(self._swap(partition, [each.partition for each in done]))
                swapped(done[-1])
        finally:
            self._refold.close()
        return Rebuilt(
            views=[view.name for view in self._views],
            events=self._refold.events,
            seconds=time.monotonic() - self._started_s,
            partitions=done,
        )

    def _catch_up(self) -> None:
        """Fold the log, then what was written meanwhile, until there is little left."""
        for _ in range(_ROUNDS_MAX):
            started_s = time.monotonic()
            self._refold.advance(self._goal())
            if time.monotonic() - started_s < _SHORT_ROUND_S:
                return

    def _goal(self) -> Goal:
        self._reader.catch_up()
        check_schema(self._reader, self._schema)
        goal = goal_of(self._reader, self._refold.next_card_rows())
        if len(goal) < self._partitions:
            raise RebuildError(
                f"{self._data}: workers on this machine hold {len(goal)} of {self._partitions} partitions; "
                "start them all here and run the rebuild again"
            )
        return goal

    def _swap(self, partition: int, done: Sequence[int]) -> SwappedPartition:
        self._reader.catch_up()
        worker, generation = self._reader.owner(partition), self._reader.generation(partition)
        if worker is None:
            raise RebuildError(_interrupted(partition, "no worker owns it", done))
        stale = ChangelogKeys(self._log, Place(self._changelog, partition), self._tables)
        stale.read_on()
        folder = SwapFolder(self._data / WORKERS_FOLDER / worker, partition)
        request = Request(uuid4().hex, [view.name for view in self._views], generation)
        folder.remove()
        folder.put(request)
        started_s = time.monotonic()
        try:
            with _renewing(folder):
                outcome = self._exchange(folder, request, stale, done)
        finally:
            folder.remove()
        return SwappedPartition(
            partition, worker, outcome.rows, outcome.vanished, round(time.monotonic() - started_s, 3)
        )

    def _exchange(
        self, folder: SwapFolder, request: Request, stale: ChangelogKeys, done: Sequence[int]
    ) -> Outcome:
        partition = folder.partition
        self._answer(folder, request, Held, done)
        self._reader.catch_up()
        if self._reader.generation(partition) != request.generation:
            raise RebuildError(_interrupted(partition, "a rebalance gave it to another owner", done))
        first = self._refold.next_card_rows().get(partition, 0)
        self._refold.advance({partition: partition_goal(self._reader, partition, first)})
        stale.read_on()
        folder.put(folder.write_rows(request.id, self._refold.rows(partition), stale.keys))
        return self._answer(folder, request, Outcome, done)

    def _answer(
        self, folder: SwapFolder, request: Request, kind: type[_Message], done: Sequence[int]
    ) -> _Message:
        """Wait for the worker's message; a failure of it ends the rebuild."""
        deadline_s = time.monotonic() + _ANSWER_S
        while time.monotonic() < deadline_s:
            outcome = folder.get(Outcome)
            if outcome is not None and outcome.failure is not None:
                raise RebuildError(_interrupted(folder.partition, outcome.failure, done))
            message = folder.get(kind)
            if message is not None and message.id == request.id:
                return message
            self._reader.catch_up()
            if self._reader.generation(folder.partition) != request.generation:
                raise RebuildError(
                    _interrupted(folder.partition, "a rebalance or a restart came between", done)
                )
            time.sleep(_LOOK_EVERY_S)
        raise RebuildError(
            _interrupted(folder.partition, f"its worker did not answer for {_ANSWER_S:.0f} s", done)
        )


def _interrupted(partition: int, why: str, done: Sequence[int]) -> str:
    state = f"partitions {', '.join(map(str, done))} have new rows, the others" if done else "all partitions"
    return f"partition {partition}: {why}; {state} keep their old ones; run the rebuild again"


@contextmanager
def _only_one(data: Path) -> Iterator[Path]:
    """The folder of the rebuild, empty; the kernel gives it back when this process ends, however it ends.

    Raises:
        RebuildError: another rebuild runs on these tables.
    """
    folder = data / REBUILD_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with claimed(folder) as is_ours:
        if not is_ours:
            raise RebuildError(f"{folder}: another rebuild runs on these tables; wait for it")
        shutil.rmtree(folder / "fold", ignore_errors=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder / "fold", ignore_errors=True)


@contextmanager
def _renewing(folder: SwapFolder) -> Iterator[None]:
    """Keep the request alive while the body folds."""
    ended = Event()

    def renew() -> None:
        while not ended.wait(_RENEW_EVERY_S):
            folder.renew()

    thread = Thread(target=renew, name="rebuild-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
