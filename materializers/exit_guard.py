"""Ends a process that was told to end and hangs: on a library's thread, on a call to a log that is gone.

Everything durable survives a kill at any moment, so waiting longer for an orderly end gains nothing.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class ExitGuard:
    """Waits in a thread of its own, so that nothing else can hold it up."""

    def __init__(self, within_s: float, leave: Callable[[int], object] = os._exit) -> None:
        """``leave`` takes the exit code; the default one ends the process at once."""
        self._within_s = within_s
        self._leave = leave
        self._timer: threading.Timer | None = None

    def start(self, code: int) -> None:
        """The process ends within the bound from the first call on: in order, or with this exit code."""
        if self._timer is None:
            self._timer = threading.Timer(self._within_s, self._give_up, (code,))
            self._timer.daemon = True
            self._timer.start()

    def _give_up(self, code: int) -> None:
        threads = ", ".join(thread.name for thread in threading.enumerate() if not thread.daemon)
        logger.warning(
            "told to end %.0f s ago and still here (threads: %s): leaving as it is; what no checkpoint holds "
            "is folded again at the next start",
            self._within_s,
            threads,
        )
        logging.shutdown()
        self._leave(code)
