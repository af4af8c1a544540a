"""One worker process: the Faust application, its shards and tables, from start to the last checkpoint.

``python -m materializers.worker --brokers … --data … --name …`` runs one alone.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from aiokafka.errors import KafkaConnectionError

from materializers.allocator import bound_arenas, give_back
from materializers.collector import keep_what_there_is
from materializers.exit_guard import ExitGuard
from materializers.interner import Interner
from materializers.materializer import Scope, TableSpec
from materializers.memory import memory_by_part
from materializers.refold.progress import read_progress
from materializers.refold.swap_files import REBUILD_FOLDER
from materializers.refold.swapper import Swapper
from materializers.registry import MaterializerRegistry, default_registry
from materializers.shards.card_feed import CardFeed, open_cards
from materializers.shards.context import WorkerContext
from materializers.shards.entity_shard import ENTITY_SHARD_TABLES, EntityShard
from materializers.shards.forwarding import Forwarder, forward_producer
from materializers.shards.homes import Homes
from materializers.shards.item_shard import ItemShard
from materializers.shards.rejects import Rejects
from materializers.shards.user_shard import USER_SHARD_TABLES, UserShard
from materializers.shards.user_step import fold_users
from materializers.stage_clock import StageClock, cpu_by_thread
from materializers.steps import Portion, Steps, StepsOfWorker
from materializers.tables.cadence import FLUSH_PACE, STEADY_CHECKPOINTS, Pace
from materializers.tables.changelog import ChangelogTopics
from materializers.tables.database import Database, DatabaseSettings
from materializers.tables.owner import OwnerSettings, TableOwner
from materializers.tables.partition import Shard
from materializers.tables.sizes import TableSize, table_sizes
from materializers.tables.wiping import Wiper, WipeSettings
from schemas.default import default_schema
from schemas.errors import TidalError
from schemas.fingerprint import schema_fingerprint
from schemas.loading import load_schema
from schemas.model import Schema
from schemas.settings import Settings, load_settings
from streams.admin import check_topics
from streams.errors import BrokerUnavailableError, TopicError
from streams.faust.app import AppSettings, ShardApp, build_app
from streams.topics import (
    BY_ITEM,
    DEAD_LETTER,
    ENTITY_TOPICS,
    RELATIONSHIPS,
    SIGNALS,
    all_topics,
    changelog_topic,
)

logger = logging.getLogger(__name__)

SOURCES: Final[Mapping[Scope, Sequence[str]]] = {
    Scope.USER: (SIGNALS,),
    Scope.ITEM: (BY_ITEM,),
    Scope.ENTITY: (*ENTITY_TOPICS.values(), RELATIONSHIPS),
}
STATUS_FILE: Final = "status.json"

_STATUS_EVERY_S: Final = 1.0
# The thread that fetches needs the interpreter several times for each answer of the log; while a fold or a
# flush computes, it would wait for Python's 5 ms each time.
_SWITCH_S: Final = 0.001
_SIZES_EVERY_S: Final = 60.0
_MEMORY_EVERY_S: Final = 20.0
_LAST_CHECKPOINT_S: Final = 3.0
_LEAVE_S: Final = 2.0
_EXIT_S: Final = 8.0
"""SIGTERM to exit takes about 5 s at most, and never longer than this: what the last checkpoint lacks is
replayed.
"""
_EXIT_CODES: Final[Mapping[int, int]] = {signal.SIGTERM: 0, signal.SIGINT: 130}


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One worker.

    Attributes:
        brokers: ``host:port,…``. data: folder of all workers of this machine.
        application: consumer group and prefix of the changelog topics.
        partitions: of every topic; checked against the log by ``tidal topics``.
        session_timeout_s: how long the partitions of a killed worker stand still.
    """

    brokers: str
    data: str
    application: str = "tidal"
    partitions: int = 8
    session_timeout_s: float = 10.0
    heartbeat_s: float = 1.0
    static_membership: bool = False
    fetch_bytes_max: int = 1 << 20
    owner: OwnerSettings = OwnerSettings()
    database: DatabaseSettings = DatabaseSettings()
    wipe: WipeSettings = WipeSettings()


def worker_folder(data: Path, name: str) -> Path:
    """Where a worker keeps its database, its cards and its status."""
    return data / "workers" / name


def tables_of(registry: MaterializerRegistry) -> dict[Scope, tuple[TableSpec, ...]]:
    """Every table of each scope: the views' and the shards' own."""
    own = {Scope.USER: USER_SHARD_TABLES, Scope.ITEM: (), Scope.ENTITY: ENTITY_SHARD_TABLES}
    return {scope: (*registry.tables(scope), *own[scope]) for scope in Scope}


class Worker:
    """Everything one process runs. ``run`` returns when it was asked to stop and raises when it had to."""

    def __init__(
        self,
        settings: WorkerConfig,
        schema: Schema,
        name: str,
        registry: MaterializerRegistry | None = None,
    ) -> None:
        self._settings = settings
        self._name = name
        self._schema_fingerprint = schema_fingerprint(schema)
        self._registry = registry or default_registry()
        self._folder = worker_folder(Path(settings.data), name)
        self._stop = asyncio.Event()
        self._table_sizes: dict[str, TableSize] = {}
        self._memory: dict[str, Any] = {}
        self._clock = StageClock()
        self._steps: dict[Scope, Steps] = {}
        self._started_s = time.monotonic()
        tables = tables_of(self._registry)
        self._database = Database(
            self._folder / "db", [spec for specs in tables.values() for spec in specs], settings.database
        )
        items, users, profiles, creators = Interner(), Interner(), Interner(), Interner()
        self._forwarder = Forwarder(
            forward_producer(settings.brokers),
            settings.partitions,
            schema,
            items,
            users,
            profiles,
            self._fail,
        )
        cards, reader = open_cards(self._folder / "cards", settings.brokers, schema, items, creators)
        self._card_feed = CardFeed(cards, reader, schema, settings.partitions, self._wake_shards)
        self._context = WorkerContext(
            schema=schema,
            partitions=settings.partitions,
            registry=self._registry,
            items=items,
            users=users,
            profiles=profiles,
            creators=creators,
            cards=cards,
            forwarder=self._forwarder,
            user_homes=Homes(users, settings.partitions),
            item_homes=Homes(items, settings.partitions),
            clock=self._clock,
        )
        topics = ChangelogTopics(
            brokers=settings.brokers,
            application=settings.application,
            by_scope={scope: changelog_topic(settings.application, scope.value) for scope in Scope},
            tables={spec.name: scope for scope, specs in tables.items() for spec in specs},
            dead_letters=DEAD_LETTER,
        )
        self._owner = TableOwner(
            self._database,
            topics,
            SOURCES,
            self._shards_of,
            self._forwarder,
            settings.owner,
            clock=self._clock,
        )
        self._swapper = Swapper(self._folder, self._owner)
        self._wiper = Wiper(self._database, self._owner, settings.wipe)

    async def run(
        self, on_ready: Callable[[], None] | None = None, on_end: Callable[[], None] | None = None
    ) -> None:
        """Run until ``stop``; ``on_end`` is called when it begins to end, for whatever reason.

        Raises:
            TidalError, and whatever a fold raised: the worker must be started again.
        """
        await asyncio.get_running_loop().run_in_executor(
            None, self._card_feed.catch_up, lambda: not self._stop.is_set()
        )
        keep_what_there_is()
        self._forwarder.start()
        self._steps = {scope: self._steps_of(scope) for scope in SOURCES}
        app = self._build_app()
        self._owner.start(app, StepsOfWorker(self._steps[Scope.USER], self._steps[Scope.ITEM]))
        cards = asyncio.create_task(self._card_feed.run())
        status = asyncio.create_task(self._write_status())
        sizes = (asyncio.create_task(self._weigh()), asyncio.create_task(self._count_rows()))
        stop = asyncio.create_task(self._stop.wait())
        failed = asyncio.create_task(self._owner.failed())
        steps = [asyncio.create_task(each.run()) for each in self._steps.values()]
        steps.append(asyncio.create_task(self._swapper.run()))
        steps.append(asyncio.create_task(self._wiper.run()))
        starting = asyncio.create_task(app.start())  # it waits for a log that is gone, and nobody else must
        ending = (stop, failed, cards, status, *sizes, *steps)
        try:
            done, _ = await asyncio.wait((starting, *ending), return_when=asyncio.FIRST_COMPLETED)
            if starting in done:
                starting.result()
                if on_ready is not None:
                    on_ready()
                await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
            for task in ending:
                if task.done():
                    task.result()
        finally:
            if on_end is not None:
                on_end()
            await self._end(app, (starting, *ending))

    def stop(self) -> None:
        """Ask ``run`` to end; safe in a signal handler of the loop."""
        self._stop.set()

    # -- records ------------------------------------------------------------------------------------

    def _build_app(self) -> ShardApp:
        settings = self._settings
        app_settings = AppSettings(
            name=settings.application,
            worker=self._name,
            brokers=settings.brokers.split(","),
            datadir=str(self._folder / "faust"),
            session_timeout_s=settings.session_timeout_s,
            heartbeat_s=settings.heartbeat_s,
            static_membership=settings.static_membership,
            fetch_bytes_max=settings.fetch_bytes_max,
        )
        agents = {scope.value: (topics, self._steps[scope].inbox.put) for scope, topics in SOURCES.items()}
        return build_app(app_settings, self._owner, agents, settings.partitions)

    def _steps_of(self, scope: Scope) -> Steps:
        # What sends to other partitions must not run while a flush waits for what was sent.
        gate = nullcontext if scope is Scope.ITEM else lambda: self._owner.forward_gate
        needed = self._owner.until_flush_s if scope is Scope.USER else None
        return Steps(self._owner, partial(self._fold, scope), self._room, gate, until_needed_s=needed)

    async def _room(self) -> None:
        await self._owner.room()
        await self._forwarder.room()

    def _fold(self, scope: Scope, portions: Sequence[Portion]) -> Sequence[int]:
        self._clock.begin()
        events = _FOLDS[scope](self._context, portions)
        self._clock.lap(f"{scope}: rest")
        self._forwarder.send()
        self._clock.lap("forward")
        return events

    def _shards_of(self, partition: int) -> Mapping[Scope, Shard]:
        rows = self._database.rows(partition)
        rejects = Rejects()
        return {
            Scope.USER: UserShard(self._context, partition, rows, rejects),
            Scope.ITEM: ItemShard(self._context, partition, rows, rejects),
            Scope.ENTITY: EntityShard(self._context, partition, rows, rejects),
        }

    def _wake_shards(self) -> None:
        """Let those go on that wait for something else than records of their own."""
        for state in self._owner.states():
            shard = state.shards[Scope.USER]
            assert isinstance(shard, UserShard)
            if moved := shard.wake():
                self._owner.folded(state, moved)
            entities = state.shards[Scope.ENTITY]
            assert isinstance(entities, EntityShard)
            if entities.has_more_to_tell:
                self._owner.folded(state, 0)

    # -- end and status -----------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        self._owner.fail(error)

    async def _end(self, app: ShardApp, tasks: Sequence[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_LEAVE_S)
        await self._owner.stop(_LAST_CHECKPOINT_S)
        leaving = asyncio.create_task(app.stop())
        # Not wait_for: it would wait for a task that does not heed its cancellation.
        if not (await asyncio.wait((leaving,), timeout=_LEAVE_S))[0]:
            leaving.cancel()
            logger.warning("left without telling the group: the log did not answer in %.0f s", _LEAVE_S)
        self._forwarder.close()
        self._card_feed.close()
        self._database.close()

    async def _write_status(self) -> None:
        while True:
            draft = self._folder / (STATUS_FILE + ".new")
            draft.write_bytes(msgspec.json.encode(self.status()))
            draft.replace(self._folder / STATUS_FILE)
            await asyncio.sleep(_STATUS_EVERY_S)

    async def _weigh(self) -> None:
        while True:
            await asyncio.to_thread(give_back)
            self._memory = memory_by_part(self._context, self._owner.states(), self._database)
            await asyncio.sleep(_MEMORY_EVERY_S)

    async def _count_rows(self) -> None:
        """A task of its own: under load, counting waits its turn many times."""
        while True:
            partitions = [state.partition for state in self._owner.states()]
            if partitions:
                self._table_sizes = await table_sizes(self._database, partitions)
            await asyncio.sleep(_SIZES_EVERY_S if partitions else _STATUS_EVERY_S)

    def status(self) -> dict[str, Any]:
        """What ``status.json`` holds; times in ms, sizes in bytes."""
        context = self._context
        return {
            "name": self._name,
            "pid": os.getpid(),
            "written_ms": int(time.time() * 1000),
            "uptime_s": round(time.monotonic() - self._started_s, 1),
            "memory_bytes_max": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "memory": self._memory,
            "interned": {
                "items": len(context.items),
                "users": len(context.users),
                "profiles": len(context.profiles),
            },
            "cards": self._card_feed.cards,
            "schema": self._schema_fingerprint,
            "rebuild": read_progress(Path(self._settings.data) / REBUILD_FOLDER),
            "rebuilding": {str(partition): views for partition, views in self._swapper.held.items()},
            "cpu_s_by_stage": {stage: round(spent, 3) for stage, spent in self._clock.seconds.items()},
            "cpu_s_by_thread": cpu_by_thread(),
            "process_cpu_s": round(time.process_time(), 2),
            "forwarded": {"entries": self._forwarder.entries, "rerouted": self._forwarder.rerouted},
            "erasures": self._wiper.status(),
            **self._owner.status(),
            "views": {scope.value: [view.name for view in self._registry.of(scope)] for scope in Scope},
            "tables": msgspec.to_builtins(self._table_sizes),
            "shards": {str(state.partition): _shards_status(state.shards) for state in self._owner.states()},
        }


def _shards_status(shards: Mapping[Scope, Shard]) -> dict[str, Any]:
    shard, entities = shards[Scope.USER], shards[Scope.ENTITY]
    assert isinstance(shard, UserShard)
    assert isinstance(entities, EntityShard)
    return {
        "events": shard.counters.events,
        "duplicates": shard.counters.duplicates,
        "late": shard.counters.late,
        "rerouted": shard.counters.rerouted,
        "entity_records_copied": entities.copied,
        "parked": shard.parked,
        "rejected": shard.reject_counts,
    }


def _fold_users(context: WorkerContext, portions: Sequence[Portion]) -> Sequence[int]:
    given = []
    for portion in portions:
        shard = portion.state.shards[Scope.USER]
        assert isinstance(shard, UserShard)
        given.append((shard, portion.records()))
    return fold_users(context, given)


def _fold_each(scope: Scope, context: WorkerContext, portions: Sequence[Portion]) -> Sequence[int]:
    return [portion.state.shards[scope].fold(portion.topic, portion.records()) for portion in portions]


_FOLDS: Final[Mapping[Scope, Callable[[WorkerContext, Sequence[Portion]], Sequence[int]]]] = {
    Scope.USER: _fold_users,
    Scope.ITEM: partial(_fold_each, Scope.ITEM),
    Scope.ENTITY: partial(_fold_each, Scope.ENTITY),
}


def config_of(settings: Settings) -> WorkerConfig:
    """One worker's part of an installation's settings. Without a cluster it uses the embedded log."""
    worker = settings.worker
    return WorkerConfig(
        brokers=settings.site.brokers or settings.log.listen,
        data=settings.site.data_dir,
        application=settings.topics.app,
        partitions=settings.topics.partitions,
        session_timeout_s=worker.session_timeout_s,
        heartbeat_s=worker.heartbeat_s,
        static_membership=worker.static_membership,
        fetch_bytes_max=worker.fetch_bytes_max,
        owner=OwnerSettings(
            flush_pace=msgspec.structs.replace(
                FLUSH_PACE,
                interval_min_s=worker.flush_interval_ms / 1000,
                interval_max_s=worker.flush_interval_ms_max / 1000,
            ),
            checkpoint_pace=Pace(
                interval_min_s=worker.checkpoint_interval_ms / 1000,
                interval_steady_s=worker.checkpoint_interval_ms / 1000 * STEADY_CHECKPOINTS,
            ),
            feed_keep_s=worker.feed_keep_s,
        ),
        wipe=WipeSettings(
            interval_s=worker.wipe_interval_s,
            feed_keep_s=worker.feed_keep_s,
            compaction_lag_s=settings.topics.compaction_lag_ms_max / 1000,
        ),
    )


def run_worker(
    settings: Settings, schema: Schema, name: str, on_ready: Callable[[], None] | None = None
) -> signal.Signals:
    """Run one worker in this process until SIGTERM or SIGINT; which of them it was.

    Raises:
        TopicError: a topic is missing or has another count of partitions.
        BrokerUnavailableError: the log does not answer.
        TidalError: it cannot go on; start it again and it continues from its last checkpoint.
    """
    config = config_of(settings)
    faults = [
        each for each in check_topics(config.brokers, all_topics(settings.topics)) if each.severity == "error"
    ]
    if faults:
        raise TopicError("; ".join(map(str, faults)))
    bound_arenas()
    sys.setswitchinterval(_SWITCH_S)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    try:
        return asyncio.run(_run(config, schema, name, on_ready))
    except KafkaConnectionError as error:
        raise BrokerUnavailableError(f"the log went away while the worker started: {error}") from error


async def _run(
    config: WorkerConfig, schema: Schema, name: str, on_ready: Callable[[], None] | None
) -> signal.Signals:
    worker = Worker(config, schema, name)
    loop = asyncio.get_running_loop()
    received: list[signal.Signals] = []
    guard = ExitGuard(_EXIT_S)

    def stop(number: signal.Signals) -> None:
        received.append(number)
        guard.start(_EXIT_CODES[number])
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    await worker.run(on_ready, on_end=partial(guard.start, 1))
    return received[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry of ``python -m materializers.worker``; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m materializers.worker", description=__doc__)
    parser.add_argument("--brokers", help="host:port,…; default: the embedded log's address")
    parser.add_argument("--data", help="folder of this machine's workers")
    parser.add_argument("--name", help="unique among the workers of the group")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for library in (
        "aiokafka",
        "faust",
        "mode",
        "streams.faust",
    ):  # tables of every partition at each rebalance
        logging.getLogger(library).setLevel(logging.WARNING)
    site = {"brokers": options.brokers, "data_dir": options.data}
    try:
        settings, _ = load_settings({"site": site, "worker": {"name": options.name}})
        schema = load_schema(Path(settings.site.schema)) if settings.site.schema else default_schema()
        run_worker(settings, schema, settings.worker.name, on_ready=lambda: print("ready", flush=True))
    except TidalError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
