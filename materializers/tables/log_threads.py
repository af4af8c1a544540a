"""Threads for calls that wait for the log and touch no state of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, TypeVar

_T = TypeVar("_T")


class LogThreads:
    """Of one worker; used on its event loop. ``stopping`` ends what repeats itself in a thread."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "tables")
        self.stopping = Event()

    async def run(self, call: Callable[..., _T], *arguments: Any) -> _T:
        """What the call returns or raises, when it ends."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)

    def leave(self, call: Callable[[], None]) -> None:
        """Run a call that nobody waits for; a process that stops does without it."""
        if not self.stopping.is_set():
            self._pool.submit(call)

    def stop(self) -> None:
        self.stopping.set()

    def join(self) -> None:
        """Return when no call is under way."""
        self._pool.shutdown(wait=True, cancel_futures=True)
