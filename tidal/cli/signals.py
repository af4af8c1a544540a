"""Waiting for the signal that ends a long-running command, and the exit code that it means."""

from __future__ import annotations

import asyncio
import signal

from tidal.cli.failure import DONE, INTERRUPTED


def exit_code_of(received: signal.Signals | None) -> int:
    """0 after SIGTERM, which is how services are stopped; 130 after Ctrl-C."""
    return INTERRUPTED if received == signal.SIGINT else DONE


class StopSignal:
    """Watches SIGTERM and SIGINT from its construction on; needs a running loop."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._event = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    async def wait(self) -> None:
        """Returns when one of the signals has come."""
        await self._event.wait()

    @property
    def exit_code(self) -> int:
        """See `exit_code_of`."""
        return exit_code_of(self.received)

    def _on_signal(self, number: signal.Signals) -> None:
        self.received = self.received or number
        self._event.set()
