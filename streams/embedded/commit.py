"""Group commit: everything appended since the last cycle goes to the disk in one, off the event loop.

1. A log or journal marks itself dirty when it is appended to.
2. A cycle takes what each dirty one has pending (on the loop), writes and syncs it (in threads),
   then lets each move its high watermark (on the loop) and calls everybody who waited.
3. What is appended while a cycle runs belongs to the next one.

A write or sync that fails ends the process: after a failed fsync the kernel may have dropped the
pages, so nothing in memory can be trusted to agree with the disk; a restart reads what is there. Only a disk
without room is waited for: the file is as it was, nobody has been answered, readers are served meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from typing import Protocol

from streams.embedded.measures import SYNC_BOUNDS_S, Histogram
from streams.embedded.segment import NoSpaceError

logger = logging.getLogger(__name__)

# sysexits.h EX_IOERR, for whoever supervises the process.
EXIT_IO_ERROR = 74
# How often a full disk is tried again.
_SPACE_RETRY_S = 0.2


class SyncJob(Protocol):
    """Writes and syncs of one file set, run in a thread."""

    def run(self) -> None:
        """May be called again after NoSpaceError."""

    def finish(self) -> None:
        """Called on the loop after `run` has succeeded."""


class Syncable(Protocol):
    """Something with unsynced appends."""

    def begin_sync(self) -> SyncJob: ...


def end_process(error: BaseException) -> None:
    """Leave at once: no flush, no cleanup, nothing may be acknowledged any more."""
    logger.critical("the log could not be written and stops, acknowledged data is safe: %s", error)
    logging.shutdown()
    os._exit(EXIT_IO_ERROR)


class GroupCommit:
    """Runs the commit cycles of one log. All methods are called on the event loop."""

    def __init__(
        self,
        threads: int,
        interval_ms: float = 0.0,
        on_failure: Callable[[BaseException], None] = end_process,
    ) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="log-sync")
        self._threads = threads
        self._interval_s = interval_ms / 1000
        self._on_failure = on_failure
        self._dirty: dict[Syncable, None] = {}
        self._waiting: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._closing = threading.Event()
        # A cycle is waiting for room on the disk.
        self.is_out_of_space = False
        # Of all logs together; kept by them, read by whoever limits what is taken in.
        self.unsynced_bytes = 0
        self.cycles = 0
        self.sync_s = Histogram(SYNC_BOUNDS_S)

    def mark(self, target: Syncable) -> None:
        """`target` has something for the next cycle."""
        self._dirty[target] = None
        self._start()

    def after(self, callback: Callable[[], None]) -> None:
        """Call back when everything marked before now is on disk."""
        self._waiting.append(callback)
        self._start()

    async def barrier(self) -> None:
        """Return when everything marked before now is on disk."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.after(lambda: None if future.done() else future.set_result(None))
        await future

    async def close(self) -> None:
        """Finish what is under way and release the threads. What comes later is lost, as in a crash."""
        self._closing.set()
        while self._task is not None:
            await self._task
            # Whoever waited for this cycle may begin another, e.g. to write its markers.
            await asyncio.sleep(0)
        self._closed = True
        self._executor.shutdown()

    def _start(self) -> None:
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="group commit")

    async def _run(self) -> None:
        try:
            while self._dirty or self._waiting:
                if self._interval_s:
                    await asyncio.sleep(self._interval_s)
                await self._cycle()
        except Exception as error:
            self._on_failure(error)
            raise
        finally:
            self._task = None

    async def _cycle(self) -> None:
        dirty, self._dirty = self._dirty, {}
        waiting, self._waiting = self._waiting, []
        jobs = [target.begin_sync() for target in dirty]
        if jobs:
            await self._run_jobs(jobs)
            for job in jobs:
                job.finish()
        for callback in waiting:
            _call(callback)

    async def _run_jobs(self, jobs: list[SyncJob]) -> None:
        loop = asyncio.get_running_loop()
        # Each thread gets every n-th job: one hand-over for each thread, not for each file.
        shares = [jobs[start :: self._threads] for start in range(min(self._threads, len(jobs)))]
        durations = await asyncio.gather(
            *(loop.run_in_executor(self._executor, self._run_share, share) for share in shares)
        )
        self.is_out_of_space = False
        self.cycles += 1
        for duration_s in chain.from_iterable(durations):
            self.sync_s.add(duration_s)

    def _run_share(self, jobs: list[SyncJob]) -> list[float]:
        """Seconds that each job took. In a thread."""
        ends = [time.perf_counter()]
        for job in jobs:
            self._run_job(job)
            ends.append(time.perf_counter())
        return [end - begin for begin, end in pairwise(ends)]

    def _run_job(self, job: SyncJob) -> None:
        while True:
            try:
                job.run()
            except NoSpaceError:
                if not self.is_out_of_space:
                    logger.error("the disk is full: nothing is acknowledged until there is room")  # noqa: TRY400
                self.is_out_of_space = True
                if self._closing.wait(_SPACE_RETRY_S):
                    raise
            else:
                return


def _call(callback: Callable[[], None]) -> None:
    # The data is on disk, so a fault in one answer must not take the others with it.
    try:
        callback()
    except Exception:
        logger.exception("an answer after the commit failed")
