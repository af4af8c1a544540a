"""Owns a worker's partitions: acquires and restores them, flushes and checkpoints them, lets go of them.

Everything here runs on one event loop, except blocking calls to the log, which run in threads and touch no
state. A flush is synchronous, so it is atomic with respect to folds; a checkpoint takes a flush's rows out
of the state, sends them in a thread, and comes back to acknowledge.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event as ThreadEvent
from typing import Any, Final, Protocol, TypeVar

import msgspec
from confluent_kafka import KafkaException

from materializers.materializer import Scope
from materializers.stage_clock import StageClock
from materializers.tables.cadence import CHECKPOINT_PACE, FLUSH_PACE, Cadence, Pace
from materializers.tables.changelog import ChangelogTopics, ChangelogWriter, Checkpoint
from materializers.tables.database import Database, PartitionWriter
from materializers.tables.errors import (
    AcquisitionStoppedError,
    CheckpointAbortedError,
    FlushBrokenError,
    PartitionLostError,
)
from materializers.tables.feed import (
    CHANGES_TABLE,
    OWNERSHIP_SECTION,
    REPLACED_SECTION,
    Change,
    OwnershipChange,
    Section,
    change_key,
    encode_change,
    encode_ownership_change,
)
from materializers.tables.layout import WORKER
from materializers.tables.lineage import Decision, decide
from materializers.tables.meta import (
    META_TABLE,
    OWNERSHIP_KEY,
    Ownership,
    decode_ownership,
    decode_shard,
    encode,
)
from materializers.tables.partition import PartitionState, Shard
from materializers.tables.pending import clear_pending, put_pending, read_pending
from materializers.tables.restore import RestoreProgress, read_ownership, restore_partition

logger = logging.getLogger(__name__)

_REVOKE_WAIT_S: Final = 1.0
"""The group waits for us: what no checkpoint holds then, the next owner folds again from the log."""
_LOST_LEAVE_S: Final = 8.0
"""A rebalance that takes a fenced partition away comes within a session; after this long none is coming."""
_RETRY_S: Final = 0.5
_TICK_S: Final = 0.02
_ACQUIRE_THREADS: Final = 16
_CHECKPOINT_THREADS: Final = 8
_FEED_TRIM_EVERY: Final = 64
_RESTS_BEHIND: Final = 2.0
"""While a whole step is waiting nothing is fresh, and fewer, larger flushes cost less: they rest longer."""
_RETURN_WAIT_S: Final = 0.05
"""What is forwarded is back after 5 to 15 ms, on a busy machine 30; a flush before would show half of it."""


class OwnerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of what a worker holds that a crash would have to replay or send again.

    Attributes:
        events_unflushed_max: folded into memory, not on disk.
        bytes_uncheckpointed_max: memory of rows that are on disk and in no checkpoint, those of one under way
            included. Beyond either, no further batch is taken.
        feed_keep_s: how long a reader of the change feed may sleep before it has to read the tables anew.
    """

    flush_pace: Pace = FLUSH_PACE
    checkpoint_pace: Pace = CHECKPOINT_PACE
    events_unflushed_max: int = 1_000_000
    bytes_uncheckpointed_max: int = 768 << 20
    feed_keep_s: float = 60.0


class Flow(Protocol):
    """What the owner asks of the stream of records."""

    async def resume(self, partition: int, positions: Mapping[str, int]) -> None:
        """Deliver the partition's records from ``positions`` (topic -> offset) on."""
        ...

    def acknowledge(self, batch: Any) -> None:
        """The batch's records never have to come again."""
        ...


class Forwards(Protocol):
    """What folds have sent to other partitions."""

    def in_flight(self) -> bool: ...

    async def delivered(self) -> None:
        """Return when everything sent before the call is acknowledged by the log."""
        ...

    def ends(self) -> Mapping[tuple[str, int], int]:
        """Last offset acknowledged so far, by topic and partition, where that comes back as records."""
        ...


class Delivered(Protocol):
    """Records that have been delivered and wait to be folded."""

    async def fold_now(self) -> None:
        """Fold what a flush that is due should still contain."""
        ...

    def is_plenty(self) -> bool:
        """Whether so much waits that the next flush has enough to do."""
        ...


class NothingDelivered:
    """``Delivered`` where nothing ever waits."""

    async def fold_now(self) -> None:
        return

    def is_plenty(self) -> bool:
        return False


ShardsOf = Callable[[int], Mapping[Scope, Shard]]

_T = TypeVar("_T")


class OwnerCounts(msgspec.Struct):
    """Counted since the worker started."""

    events: int = 0
    rows: int = 0
    flushes: int = 0
    checkpoints: int = 0
    checkpoint_rows: int = 0
    flush_cpu_s: float = 0.0


class TableOwner:
    """``PartitionOwner`` of the Faust application, and the runner of flushes and checkpoints."""

    def __init__(
        self,
        database: Database,
        topics: ChangelogTopics,
        sources: Mapping[Scope, Sequence[str]],
        shards_of: ShardsOf,
        forwards: Forwards,
        settings: OwnerSettings | None = None,
        *,
        clock: StageClock | None = None,
    ) -> None:
        """``shards_of`` builds the three shards of a partition, empty; ``sources`` names each shard's
        topics.
        """
        self._database = database
        self._topics = topics
        self._sources = sources
        self._shards_of = shards_of
        self._forwards = forwards
        self._settings = settings or OwnerSettings()
        self._clock = clock or StageClock()
        self._flush_cadence = Cadence(self._settings.flush_pace)
        self._checkpoint_cadence = Cadence(self._settings.checkpoint_pace)
        self._scope_of = {topic: scope for scope, names in sources.items() for topic in names}
        self._partitions: dict[int, PartitionState] = {}
        self._assigned: frozenset[int] = frozenset()
        self._generation = 0
        self._epoch = 0
        self._flow: Flow | None = None
        self._delivered: Delivered = NothingDelivered()
        self._failed: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        self._acquisitions: dict[int, asyncio.Future[None]] = {}
        self._stopping = ThreadEvent()
        self._threads = ThreadPoolExecutor(_ACQUIRE_THREADS + _CHECKPOINT_THREADS, "tables")
        self._folded = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._no_room = asyncio.Event()
        self._flush_lock = asyncio.Lock()
        self._broken_off = False
        self._checkpoint_lock = asyncio.Lock()
        self.forward_gate = asyncio.Lock()
        """Held while a slice is folded that sends to other partitions, and while a flush waits for those
        sends.
        """
        self._feed_times: list[tuple[float, int]] = []
        self._feed_trimmed = 0
        self.restores: dict[int, RestoreProgress] = {}
        self.counts = OwnerCounts()

    # -- life ---------------------------------------------------------------------------------------

    def start(self, flow: Flow, delivered: Delivered | None = None) -> None:
        """Begin to flush and checkpoint; call it on the event loop before the Faust application starts."""
        self._flow = flow
        self._delivered = delivered or NothingDelivered()
        self._failed = asyncio.get_running_loop().create_future()
        for work in (self._run_flushes, self._run_checkpoints, self._watch_lost):
            self._spawn(work())

    async def failed(self) -> None:
        """Wait until the worker must stop; raises the reason."""
        assert self._failed is not None
        await self._failed

    async def stop(self, within_s: float) -> None:
        """Flush and checkpoint what there is, within a bound, and end all background work."""
        if not await self._checkpoint_within(within_s):
            logger.warning("stopped without a last checkpoint: the log did not answer in %.1f s", within_s)
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for partition in list(self._partitions):
            self._let_go(partition)
        self._threads.shutdown(wait=True, cancel_futures=True)

    def fail(self, error: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    def status(self) -> dict[str, Any]:
        """Counts, durations and positions for people and metrics; times in ms."""
        return {
            "generation": self._generation,
            "partitions": {
                str(state.partition): self._partition_status(state) for state in self._partitions.values()
            },
            "restoring": {
                str(partition): {
                    "rows": progress.rows,
                    "offsets_total": progress.offsets_total,
                    "rows_per_s": round(progress.rows_per_s()),
                    "remaining_s": progress.remaining_s(),
                }
                for partition, progress in self.restores.items()
            },
            "acquiring": sorted(self._assigned - self._partitions.keys()),
            "flush_ms": round(self._flush_cadence.last_run_s * 1000, 2),
            "checkpoint_ms": round(self._checkpoint_cadence.last_run_s * 1000, 2),
            "counts": msgspec.to_builtins(self.counts),
        }

    def _partition_status(self, state: PartitionState) -> dict[str, Any]:
        return {
            "ready": state.ready,
            "lost": state.lost_s is not None,
            "held": state.held,
            "generation": state.ownership.generation,
            "bytes_uncheckpointed": state.bytes_uncheckpointed,
            "events_unflushed": state.events_unflushed,
            "applied": {topic: state.shards[scope].applied(topic) for topic, scope in self._scope_of.items()},
        }

    # -- the group ----------------------------------------------------------------------------------

    async def on_revoked(self) -> None:
        self._epoch += 1
        if not await self._checkpoint_within(_REVOKE_WAIT_S):
            logger.info("rebalance: the checkpoint before it takes longer than %.1f s", _REVOKE_WAIT_S)

    async def on_assigned(self, partitions: frozenset[int], generation: int) -> None:
        self._epoch += 1
        # A generation that we slept through may have given our partitions to others.
        jumped = generation != self._generation + 1
        self._generation, self._assigned = generation, partitions
        for partition, state in list(self._partitions.items()):
            if partition not in partitions or jumped or state.lost_s is not None:
                self._let_go(partition)

    async def on_recovered(self) -> None:
        epoch = self._epoch
        for partition in sorted(self._assigned - self._partitions.keys()):
            before = self._acquisitions.get(partition)
            self._acquisitions[partition] = self._spawn(self._acquire_until(partition, epoch, before))

    @property
    def assigned(self) -> frozenset[int] | None:
        """Partitions that are ours or about to be; None while no group has told us."""
        return self._assigned if self._generation else None

    def is_ready(self, partition: int) -> bool:
        state = self._partitions.get(partition)
        return state is not None and state.ready

    def position(self, topic: str, partition: int) -> int | None:
        state = self._partitions.get(partition)
        if state is None or not state.ready:
            return None
        return state.shards[self._scope_of[topic]].applied(topic) + 1

    # -- records ------------------------------------------------------------------------------------

    def accept(
        self, topic: str, partition: int, first_offset: int, after: int | None = None
    ) -> PartitionState | None:
        """The state to fold a batch into; None if the batch must be dropped, unacknowledged.

        ``after``: the last offset that will be applied before it, where that is not what is applied now.

        A batch that begins beyond applied + 1 may follow one that a rebalance lost: seek back once. The same
        hole again is a real one (retention, compaction, a transaction's marker).
        """
        state = self._partitions.get(partition)
        if state is None or not state.ready or state.held:
            return None
        applied = state.shards[self._scope_of[topic]].applied(topic) if after is None else after
        if first_offset > applied + 1 and state.gap.get(topic) != (applied, first_offset):
            state.gap[topic] = (applied, first_offset)
            self._spawn(self._seek_back(partition, topic, applied + 1))
            return None
        return state

    def states(self) -> list[PartitionState]:
        """The partitions whose records are being folded."""
        return [state for state in self._partitions.values() if state.ready and not state.held]

    def current(self, state: PartitionState) -> bool:
        """Whether ``state`` is still the partition's: ask after every await."""
        return state.ready and not state.held and self._partitions.get(state.partition) is state

    async def room(self) -> None:
        """Return when another batch may be folded."""
        while not self._room.is_set():
            await self._room.wait()

    def folded(self, state: PartitionState, events: int) -> None:
        """``events`` were folded into ``state``'s memory."""
        state.dirty = True
        state.events_unflushed += events
        self.counts.events += events
        self._folded.set()
        self._check_room()

    def batch_folded(self, state: PartitionState, batch: Any) -> None:
        """Every record of a Faust event is folded: acknowledge it with the next checkpoint."""
        state.dirty = True
        state.folded_batches.append(batch)
        self._folded.set()

    # -- flush --------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Write every changed row of every partition to the disk, in one batch with the applied offsets.

        What folds have sent to other partitions is acknowledged first: an applied offset on the disk promises
        that nothing at or below it has to be forwarded again.
        """
        async with self._flush_lock:
            self._folded.clear()
            async with self.forward_gate:
                await self._forwards.delivered()
                await self._returned()
                states = [state for state in self.states() if state.dirty]
                if states:
                    started_s = time.thread_time()
                    self._clock.begin()
                    self._flush_now(states)
                    # CPU time: where other processes take the core, elapsed time would multiply the rest.
                    run_s = time.thread_time() - started_s
                    self.counts.flush_cpu_s += run_s
                    rests = _RESTS_BEHIND if self._delivered.is_plenty() else 1.0
                    self._flush_cadence.ran(time.monotonic(), run_s, rests)

    def until_flush_s(self) -> float:
        """How long until the next flush is due, 0 if it is."""
        return self._flush_cadence.wait_s(time.monotonic())

    async def _returned(self) -> None:
        """Wait, within a bound, until what was sent to partitions of our own has come back and is folded.

        A signal is visible when its user's partition and its item's have both been flushed: so one flush
        shows it, where the next one would have to.
        """
        deadline_s = time.monotonic() + _RETURN_WAIT_S
        while self._is_out() and not self._delivered.is_plenty():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return
            self._folded.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._folded.wait()

    def _is_out(self) -> bool:
        """Whether a record that was sent to a partition of our own is not folded yet."""
        for (topic, partition), end in self._forwards.ends().items():
            state = self._partitions.get(partition)
            if state is None or not self.current(state):
                continue
            if state.shards[self._scope_of[topic]].applied(topic) < end:
                return True
        return False

    def _flush_now(self, states: Sequence[PartitionState]) -> None:
        """Write ``states``. After one that failed none is tried, not even at the end: it would write offsets
        whose rows are lost, where the worker's next start reads them from the log.
        """
        if self._broken_off:
            raise FlushBrokenError("an earlier flush failed; the worker stops and folds those records again")
        self._broken_off = True
        try:
            self._write_states(states)
        except BaseException as error:
            self.fail(error)
            raise
        self._broken_off = False

    def _write_states(self, states: Sequence[PartitionState]) -> None:
        batch = self._database.begin_flush()
        flush = self._database.flush_number
        sections: list[Section] = []
        states = sorted(states, key=lambda state: state.partition)  # a sorted write batch is quicker
        writers = [self._flush_partition(state, batch, flush) for state in states]
        for writer in writers:
            sections.extend(writer.sections)
        self._write_feed(batch, flush, sections)
        self._clock.lap("flush: feed")
        self._database.write(batch)
        self._clock.lap("flush: RocksDB write")
        for state, writer in zip(states, writers, strict=True):
            state.take_changes(writer.changes)
            state.mark_flushed(flush)
            self.counts.rows += len(writer.changes)
        self._clock.lap("flush: keep for the checkpoint")
        self.counts.flushes += 1
        self._check_room()

    def _flush_partition(self, state: PartitionState, batch: Any, flush: int) -> PartitionWriter:
        writer = PartitionWriter(self._database, batch, state.partition)
        letters = []
        for scope, shard in state.shards.items():
            meta = shard.flush(writer)
            writer.put(META_TABLE, scope.encode(), encode(meta))
            letters.extend(shard.take_letters())
        self._clock.lap("flush: rows of the shards")
        writer.finish()
        self._clock.lap("flush: fill the write batch")
        put_pending(self._database, batch, state.partition, flush, writer.changes.names(), letters)
        self._clock.lap("flush: names of pending rows")
        state.letters.extend(letters)
        return writer

    def _write_feed(self, batch: Any, flush: int, sections: list[Section]) -> None:
        change = Change(flush, int(time.time() * 1000), sections)
        self._database.put(batch, CHANGES_TABLE, WORKER, change_key(flush), encode_change(change))
        now_s = time.monotonic()
        self._feed_times.append((now_s, flush))
        if flush % _FEED_TRIM_EVERY:
            return
        kept = [entry for entry in self._feed_times if entry[0] > now_s - self._settings.feed_keep_s]
        through = kept[0][1] if kept else flush
        self._database.delete_rows(
            batch, CHANGES_TABLE, WORKER, change_key(self._feed_trimmed), change_key(through)
        )
        self._feed_times, self._feed_trimmed = kept, through

    def trim_feed(self, through: int) -> None:
        """Forget what the change feed told up to flush number ``through``: who has not read it reads the
        tables anew.
        """
        batch = self._database.batch()
        self._database.delete_rows(batch, CHANGES_TABLE, WORKER, change_key(0), change_key(through + 1))
        self._database.write(batch)
        self._feed_times = [entry for entry in self._feed_times if entry[1] > through]
        self._feed_trimmed = max(self._feed_trimmed, through + 1)

    # -- checkpoint ---------------------------------------------------------------------------------

    async def checkpoint(self) -> None:
        """Flush, then commit what no checkpoint holds of every partition, all of them at once."""
        await self.flush()
        await self._checkpoint_flushed()

    async def _checkpoint_flushed(self) -> None:
        async with self._checkpoint_lock:
            started_s = time.monotonic()
            states = [state for state in self.states() if state.needs_checkpoint()]
            await asyncio.gather(*(self._commit(state) for state in states))
            ended_s = time.monotonic()
            self._checkpoint_cadence.ran(ended_s, ended_s - started_s)

    async def _checkpoint_within(self, seconds: float) -> bool:
        """Whether a checkpoint finished in time; one that did not goes on and may still succeed."""
        task = self._spawn(self.checkpoint())
        done, _ = await asyncio.wait((task,), timeout=seconds)
        return task in done

    async def _commit(self, state: PartitionState) -> None:
        checkpoint, batches = state.begin_checkpoint()
        self._write_ownership(state)
        try:
            await self._in_thread(state.writer.commit, checkpoint)
        except CheckpointAbortedError as error:
            logger.warning("%s", error)
            state.checkpoint_aborted(checkpoint, batches)
            return
        except PartitionLostError as error:
            logger.warning("%s", error)
            state.mark_lost()
            self._check_room()
            return
        self._committed(state, checkpoint, batches)

    def _committed(self, state: PartitionState, checkpoint: Checkpoint, batches: list[Any]) -> None:
        if self._partitions.get(state.partition) is not state:
            return
        assert self._flow is not None
        for batch in batches:
            self._flow.acknowledge(batch)
        through = state.ownership.attempt_flush
        state.checkpoint_committed(checkpoint)
        batch = self._database.batch()
        self._put_ownership(batch, state.partition, state.ownership)
        clear_pending(self._database, batch, state.partition, through)
        self._database.write(batch)
        self.counts.checkpoints += 1
        self.counts.checkpoint_rows += checkpoint.row_count()
        self._check_room()

    def _write_ownership(self, state: PartitionState) -> None:
        batch = self._database.batch()
        self._put_ownership(batch, state.partition, state.ownership)
        self._database.write(batch)

    def _put_ownership(self, batch: Any, partition: int, ownership: Ownership) -> None:
        self._database.put(batch, META_TABLE, partition, OWNERSHIP_KEY, encode(ownership))

    # -- replacing rows -----------------------------------------------------------------------------

    @property
    def flush_number(self) -> int:
        """Of the last flush."""
        return self._database.flush_number

    def owns(self, state: PartitionState) -> bool:
        """Whether ``state`` is still the partition's, held or not."""
        return state.ready and self._partitions.get(state.partition) is state

    async def hold(self, partition: int, generation: int) -> PartitionState | None:
        """Stop folding a partition, with everything that was folded of it on the disk; ``release`` goes on.

        None if it is not ours in this generation.
        """
        async with self._flush_lock, self.forward_gate:
            await self._forwards.delivered()
            state = self._partitions.get(partition)
            if state is None or not self.current(state) or state.ownership.generation != generation:
                return None
            self._flush_now([state])
            state.held = True
            return state

    async def replace_rows(
        self, state: PartitionState, rows: Mapping[str, Mapping[bytes, bytes | None]]
    ) -> int:
        """Let tables of a held partition hold ``rows`` and no others; the number of rows that vanished.

        A row that is None is deleted even if the disk has none: the changelog may have one.

        One write batch: a crash leaves the old rows or the new ones. All of them go into the next checkpoint,
        so that the changelog says the same, and readers are told to read the partition anew.

        Raises:
            PartitionLostError: the partition is not ours any more.
        """
        vanished = await self._in_thread(self._missing_in, state.partition, rows)
        async with self._flush_lock:
            if not self.owns(state):
                raise PartitionLostError(f"partition {state.partition}: moved while its rows were replaced")
            self._replace_now(state, {table: {**vanished[table], **new} for table, new in rows.items()})
        state.shards = await self._restored_shards(state.partition)
        return sum(map(len, vanished.values()))

    async def release(self, state: PartitionState) -> None:
        """Fold a held partition on from where it stands."""
        state.held = False
        if self.owns(state):
            await self._resume(state)

    def _missing_in(
        self, partition: int, rows: Mapping[str, Mapping[bytes, bytes | None]]
    ) -> dict[str, dict[bytes, bytes | None]]:
        """The rows of each table that ``rows`` has not, as deletions."""
        return {
            table: {key: None for key, _ in self._database.scan(table, partition) if new.get(key) is None}
            for table, new in rows.items()
        }

    def _replace_now(self, state: PartitionState, rows: dict[str, dict[bytes, bytes | None]]) -> None:
        batch = self._database.begin_flush()
        flush = self._database.flush_number
        writer = PartitionWriter(self._database, batch, state.partition)
        for table, changed in rows.items():
            writer.changes.put_rows(table, changed)
        writer.feed(REPLACED_SECTION, b"")
        writer.finish()
        put_pending(self._database, batch, state.partition, flush, writer.changes.names(), [])
        self._write_feed(batch, flush, writer.sections)
        self._database.write(batch)
        state.merge_rows(rows)
        state.mark_flushed(flush)
        self._check_room()

    # -- acquire ------------------------------------------------------------------------------------

    async def _acquire_until(self, partition: int, epoch: int, before: asyncio.Future[None] | None) -> None:
        """Acquire, again if the log failed us, until it works or a newer rebalance begins.

        ``before`` is the acquisition that an earlier rebalance began: its thread may still write rows.
        """
        if before is not None:
            await asyncio.wait([before])
        while epoch == self._epoch:
            try:
                await self._acquire(partition, epoch)
            except AcquisitionStoppedError as error:
                logger.info("%s", error)
                return
            except (PartitionLostError, CheckpointAbortedError, KafkaException) as error:
                logger.warning("partition %d: acquiring failed (%s); trying again", partition, error)
            else:
                return
            finally:  # also when a rebalance took the partition away: nobody must wait for its restore
                self.restores.pop(partition, None)
            await asyncio.sleep(_RETRY_S)

    async def _acquire(self, partition: int, epoch: int) -> None:
        writer = ChangelogWriter(self._topics, partition, self._stopping)
        try:
            state = await self._take_over(partition, epoch, writer)
            await self._claim(state)
            self._check_epoch(partition, epoch)
        except BaseException:
            self._close_writer(writer)
            raise
        state.ready = True
        self._partitions[partition] = state
        self._announce(state, owned=True)
        await self._resume(state)

    async def _take_over(self, partition: int, epoch: int, writer: ChangelogWriter) -> PartitionState:
        def wanted() -> bool:
            return epoch == self._epoch and not self._stopping.is_set()

        await self._in_thread(writer.init)
        log = await self._in_thread(read_ownership, self._topics, partition, wanted)
        disk = decode_ownership(self._database.get(META_TABLE, partition, OWNERSHIP_KEY))
        decision = decide(disk, log)
        logger.info("partition %d: %s (checkpoint %s)", partition, decision, log.lineage if log else "none")
        if decision is Decision.RESTORE:
            progress = self.restores[partition] = RestoreProgress(partition=partition)
            await self._in_thread(
                restore_partition, self._database, self._topics, partition, progress, wanted
            )
        elif decision is Decision.KEEP_ATTEMPT:
            batch = self._database.batch()
            clear_pending(self._database, batch, partition, disk.attempt_flush)
            self._database.write(batch)
        self._check_epoch(partition, epoch)
        return await self._load(partition, writer, log)

    async def _load(self, partition: int, writer: ChangelogWriter, log: Ownership | None) -> PartitionState:
        shards = await self._restored_shards(partition)
        rows, letters = read_pending(self._database, partition)
        ownership = Ownership(
            lineage=log.lineage if log else "",
            generation=log.generation if log else 0,
            acquired_ms=int(time.time() * 1000),
        )
        return PartitionState(
            partition=partition,
            shards=shards,
            writer=writer,
            ownership=ownership,
            rows=rows,
            letters=letters,
            flushed=self._database.flush_number,
        )

    async def _restored_shards(self, partition: int) -> Mapping[Scope, Shard]:
        """The partition's shards as its rows on the disk say."""
        reader = self._database.rows(partition)
        shards = self._shards_of(partition)
        for scope, shard in shards.items():
            shard.restore(reader, decode_shard(self._database.get(META_TABLE, partition, scope.encode())))
            await asyncio.sleep(0)
        return shards

    async def _claim(self, state: PartitionState) -> None:
        """The first checkpoint of an owner: from here on its generation and lineage are in the changelog."""
        checkpoint, _ = state.begin_checkpoint(claim=True)
        self._write_ownership(state)
        await self._in_thread(state.writer.commit, checkpoint)
        through = state.ownership.attempt_flush
        state.checkpoint_committed(checkpoint)
        batch = self._database.batch()
        self._put_ownership(batch, state.partition, state.ownership)
        clear_pending(self._database, batch, state.partition, through)
        self._database.write(batch)

    async def _resume(self, state: PartitionState) -> None:
        assert self._flow is not None
        positions = {topic: state.shards[scope].applied(topic) + 1 for topic, scope in self._scope_of.items()}
        await self._flow.resume(state.partition, positions)

    async def _seek_back(self, partition: int, topic: str, offset: int) -> None:
        assert self._flow is not None
        await self._flow.resume(partition, {topic: offset})

    def _announce(self, state: PartitionState, *, owned: bool) -> None:
        """Tell readers of the change feed that the partition's rows begin or cease to be ours."""
        batch = self._database.begin_flush()
        payload = encode_ownership_change(OwnershipChange(owned, state.ownership.generation))
        flush = self._database.flush_number
        self._write_feed(batch, flush, [Section(OWNERSHIP_SECTION, state.partition, payload)])
        self._database.write(batch)

    def _let_go(self, partition: int) -> None:
        state = self._partitions.pop(partition)
        was_ready, state.ready = state.ready, False
        self._close_writer(state.writer)
        if was_ready:
            self._announce(state, owned=False)
        self._check_room()

    def _close_writer(self, writer: ChangelogWriter) -> None:
        if not self._stopping.is_set():
            self._threads.submit(writer.close)

    def _check_epoch(self, partition: int, epoch: int) -> None:
        if epoch != self._epoch:
            raise AcquisitionStoppedError(f"partition {partition}: overtaken by a newer rebalance")

    # -- background ---------------------------------------------------------------------------------

    async def _run_flushes(self) -> None:
        while True:
            await self._folded.wait()
            await self._rest(self.until_flush_s())
            if self._room.is_set():
                await self._delivered.fold_now()
            await self.flush()

    async def _run_checkpoints(self) -> None:
        while True:
            await self._rest(self._checkpoint_cadence.wait_s(time.monotonic()))
            # What is not flushed yet will be soon: a flush for its own sake would be one more.
            if any(state.needs_checkpoint() for state in self.states()):
                await self._checkpoint_flushed()
            else:
                self._checkpoint_cadence.paused()
                await asyncio.sleep(_TICK_S)

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not while folding stands still for want of a checkpoint."""
        if self._room.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._no_room.wait(), seconds)

    async def _watch_lost(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for partition, state in self._partitions.items():
                if state.lost_s is not None and time.monotonic() - state.lost_s > _LOST_LEAVE_S:
                    raise PartitionLostError(
                        f"partition {partition}: its writer was fenced {_LOST_LEAVE_S:.0f} s ago and no "
                        "rebalance took it away; the worker leaves the group and starts again"
                    )

    def _check_room(self) -> None:
        states = self._partitions.values()
        unflushed = sum(state.events_unflushed for state in states)
        waiting = sum(state.bytes_uncheckpointed for state in states)
        if (
            unflushed < self._settings.events_unflushed_max
            and waiting < self._settings.bytes_uncheckpointed_max
        ):
            self._room.set()
            self._no_room.clear()
        else:
            self._room.clear()
            self._no_room.set()

    def _spawn(self, work: Awaitable[None]) -> asyncio.Future[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def _in_thread(self, call: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
