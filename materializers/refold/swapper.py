"""A worker's side of a rebuild: holds a partition on request and replaces rows of it by those offered."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from materializers.refold.swap_files import (
    Held,
    Offer,
    Outcome,
    Request,
    SwapError,
    SwapFolder,
    TableRows,
    requests,
)
from materializers.tables.database import DatabaseError
from materializers.tables.errors import PartitionLostError
from materializers.tables.partition import PartitionState

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 0.2
_LOOK_HELD_S: Final = 0.02
_HOLD_MAX_S: Final = 300.0
"""Longer than any catch-up takes; what was to be a pause is an outage by then."""


class Holder(Protocol):
    """What is asked of the owner of the partitions."""

    @property
    def flush_number(self) -> int: ...

    async def hold(self, partition: int, generation: int) -> PartitionState | None: ...

    async def replace_rows(self, state: PartitionState, rows: TableRows) -> int: ...

    async def release(self, state: PartitionState) -> None: ...

    def owns(self, state: PartitionState) -> bool: ...


class Swapper:
    """Serves one request at a time: a rebuild goes partition by partition."""

    def __init__(self, worker_folder: Path, owner: Holder) -> None:
        self._folder = worker_folder
        self._owner = owner
        self.held: dict[int, str] = {}
        """Partition -> views that are being swapped; for ``status``."""

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            for folder in requests(self._folder):
                await self._serve(folder)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _serve(self, folder: SwapFolder) -> None:
        try:
            request = folder.get(Request)
            if request is None or folder.get(Outcome) is not None:
                return
            if not folder.lease_left_s():
                folder.remove()
                return
            outcome = await self._swap(folder, request)
        except (SwapError, PartitionLostError, DatabaseError, OSError) as error:
            logger.warning("partition %d: rebuild refused: %s", folder.partition, error)
            outcome = Outcome(request.id if request else "", failure=str(error))
        if not folder.lease_left_s():
            folder.remove()
            return
        with suppress(OSError):  # the rebuild went away this moment, and took the folder with it
            folder.put(outcome)

    async def _swap(self, folder: SwapFolder, request: Request) -> Outcome:
        state = await self._owner.hold(folder.partition, request.generation)
        if state is None:
            return Outcome(request.id, failure=_moved(folder.partition))
        self.held[folder.partition] = ", ".join(request.views)
        try:
            folder.put(Held(request.id, self._owner.flush_number))
            offer = await self._wait_for_offer(folder, request, state)
            if offer is None:
                return Outcome(request.id, failure="the rebuild went away, or a rebalance came between")
            rows = await asyncio.get_running_loop().run_in_executor(None, folder.read_rows, offer)
            if not self._owner.owns(state):
                return Outcome(request.id, failure=_moved(folder.partition))
            vanished = await self._owner.replace_rows(state, rows)
            logger.info("partition %d: %d rows of %s replaced", folder.partition, offer.rows, request.views)
            return Outcome(request.id, rows=offer.rows, vanished=vanished)
        finally:
            del self.held[folder.partition]
            await self._owner.release(state)

    async def _wait_for_offer(
        self, folder: SwapFolder, request: Request, state: PartitionState
    ) -> Offer | None:
        deadline_s = time.monotonic() + _HOLD_MAX_S
        while folder.lease_left_s() and time.monotonic() < deadline_s and self._owner.owns(state):
            offer = folder.get(Offer)
            if offer is not None and offer.id == request.id:
                return offer
            await asyncio.sleep(_LOOK_HELD_S)
        return None


def _moved(partition: int) -> str:
    return f"partition {partition} is owned by another worker, or was acquired anew meanwhile"
