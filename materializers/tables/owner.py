"""Owns a worker's partitions: acquires and restores them, flushes and checkpoints them, lets go of them.

Everything here runs on one event loop, except blocking calls to the log, which run in threads and touch no
state. A flush is synchronous, so it is atomic with respect to folds; a checkpoint takes a flush's rows out
of the state, sends them in a thread, and comes back to acknowledge.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec
from confluent_kafka import KafkaException

from materializers.materializer import Scope
from materializers.stage_clock import StageClock
from materializers.tables.acquisition import Acquisition, ShardsOf
from materializers.tables.cadence import CHECKPOINT_PACE, FLUSH_PACE, Cadence, Pace
from materializers.tables.changelog import ChangelogTopics, Checkpoint
from materializers.tables.checkpoints import begin_checkpoint, confirm_checkpoint
from materializers.tables.database import Database
from materializers.tables.errors import (
    AcquisitionStoppedError,
    CheckpointAbortedError,
    PartitionLostError,
)
from materializers.tables.flushes import Flushes
from materializers.tables.log_threads import LogThreads
from materializers.tables.partition import PartitionState

logger = logging.getLogger(__name__)

_REVOKE_WAIT_S: Final = 1.0
"""The group waits for us: what no checkpoint holds then, the next owner folds again from the log."""
_LOST_LEAVE_S: Final = 8.0
"""A rebalance that takes a fenced partition away comes within a session; after this long none is coming."""
_RETRY_S: Final = 0.5
_TICK_S: Final = 0.02
_ACQUIRE_THREADS: Final = 16
_CHECKPOINT_THREADS: Final = 8
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
        self._threads = LogThreads(_ACQUIRE_THREADS + _CHECKPOINT_THREADS)
        self._flushes = Flushes(database, self._settings.feed_keep_s, self._clock)
        self._acquisition = Acquisition(database, topics, shards_of, self._threads)
        self._folded = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._no_room = asyncio.Event()
        self._flush_lock = asyncio.Lock()
        self._checkpoint_lock = asyncio.Lock()
        self.forward_gate = asyncio.Lock()
        """Held while a slice is folded that sends to other partitions, and while a flush waits for those
        sends.
        """
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
        self._threads.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for partition in list(self._partitions):
            self._let_go(partition)
        self._threads.join()

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
                for partition, progress in self._acquisition.restores.items()
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
        try:
            self.counts.rows += self._flushes.write(states)
        except BaseException as error:
            self.fail(error)
            raise
        self.counts.flushes += 1
        self._check_room()

    def trim_feed(self, through: int) -> None:
        """Forget what the change feed told up to flush number ``through``: who has not read it reads the
        tables anew.
        """
        self._flushes.trim_feed(through)

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
        checkpoint, batches = begin_checkpoint(self._database, state)
        try:
            await self._threads.run(state.writer.commit, checkpoint)
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
        confirm_checkpoint(self._database, state, checkpoint)
        self.counts.checkpoints += 1
        self.counts.checkpoint_rows += checkpoint.row_count()
        self._check_room()

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
        vanished = await self._threads.run(self._missing_in, state.partition, rows)
        async with self._flush_lock:
            if not self.owns(state):
                raise PartitionLostError(f"partition {state.partition}: moved while its rows were replaced")
            self._flushes.replace(state, {table: {**vanished[table], **new} for table, new in rows.items()})
            self._check_room()
        state.shards = await self._acquisition.restored_shards(state.partition)
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
            await asyncio.sleep(_RETRY_S)

    async def _acquire(self, partition: int, epoch: int) -> None:
        def wanted() -> bool:
            return epoch == self._epoch and not self._threads.stopping.is_set()

        state = await self._acquisition.acquire(partition, wanted)
        state.ready = True
        self._partitions[partition] = state
        self._flushes.announce(state, owned=True)
        await self._resume(state)

    async def _resume(self, state: PartitionState) -> None:
        assert self._flow is not None
        positions = {topic: state.shards[scope].applied(topic) + 1 for topic, scope in self._scope_of.items()}
        await self._flow.resume(state.partition, positions)

    async def _seek_back(self, partition: int, topic: str, offset: int) -> None:
        assert self._flow is not None
        await self._flow.resume(partition, {topic: offset})

    def _let_go(self, partition: int) -> None:
        state = self._partitions.pop(partition)
        was_ready, state.ready = state.ready, False
        self._acquisition.close(state)
        if was_ready:
            self._flushes.announce(state, owned=False)
        self._check_room()

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
