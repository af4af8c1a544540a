"""What text and vector index have in common: following item records, in batches, beside the queries."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from queryd.fingerprints import Fingerprints
from queryd.hot.items import ItemWrite
from queryd.records import RecordReads
from schemas.ids import entity_id
from schemas.records.entities import EntityRecord

_IDLE_S: Final = 0.02
_SAVE_EVERY_S: Final = 30.0


class IndexFollower(ABC):
    """Keeps an index on disk equal to the item records.

    Only ids wait to be indexed (one entry for each item at most); the record is read again when its turn
    comes, so a burst of writes costs no memory and an item written ten times is indexed once.

    ``offered`` numbers the records taken note of; everything up to number ``searchable`` is in the index.

    Args:
        folder: the index's own folder; wiped when its layout is not ``kind``.
        batch: items written to the index between two pauses for queries.
        commit_every_s: how long an item may wait to be searchable while others keep coming.
    """

    name = "index"

    def __init__(
        self, folder: Path, kind: str, records: RecordReads, *, batch: int, commit_every_s: float
    ) -> None:
        self._folder = folder
        self._records = records
        self._batch = batch
        self._commit_every_s = commit_every_s
        self._fingerprints = Fingerprints(folder.with_suffix(".fingerprints"), kind)
        self._waiting: dict[str, int] = {}  # id -> number of its first offer, in that order
        self.offered = 0
        self.searchable = 0
        self._written = 0
        self._seen: set[int] | None = set()
        self._deletions: set[int] = set()
        self._ready = False
        self._committing: asyncio.Task[None] | None = None
        self._uncommitted = 0
        self._committed_s = 0.0
        self._saved_s = time.monotonic()
        self.error: str | None = None

    @property
    def waiting(self) -> int:
        """Items that are not in the index as their record says."""
        return len(self._waiting) + len(self._deletions)

    @property
    def current(self) -> bool:
        """Whether everything offered is searchable."""
        return self._ready and not self.waiting and not self._uncommitted

    @property
    def indexed(self) -> int:
        """Items in the index."""
        return len(self._fingerprints.held)

    @property
    def why_unavailable(self) -> str | None:
        """Why it must not be asked yet; None once it has caught up for the first time."""
        if self.error is not None:
            return f"the {self.name} index failed: {self.error}"
        if not self._ready:
            return f"the {self.name} index is being built: {self.waiting} items to go"
        return None

    def open(self) -> None:
        """Open what is on disk, or begin anew."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._open(reuse=self._fingerprints.load())

    def offer(self, writes: Sequence[ItemWrite]) -> None:
        """Take note of item records; those that the index has already are skipped."""
        for write in writes:
            key = entity_id(write.id)
            content = None if write.record is None else self._fingerprint(write.record)
            if self._seen is not None:
                self._seen.add(key)
            self.offered += 1
            if self._fingerprints.held.get(key) == content:
                self._waiting.pop(write.id, None)
            else:
                self._waiting.setdefault(write.id, self.offered)

    def scanned(self, *, complete: bool) -> None:
        """Every item of the tables has been offered once.

        When the tables are ``complete`` (every partition is held by some worker), what else the index holds
        is gone; otherwise it may only not have come yet.
        """
        assert self._seen is not None
        if complete:
            self._deletions = self._fingerprints.held.keys() - self._seen
        self._seen = None

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            if not await self.step():
                await asyncio.sleep(_IDLE_S)

    async def step(self) -> bool:
        """Index one batch or commit; False when there is nothing to do."""
        if self._writable and (self._waiting or self._deletions):
            self._write_batch()
            await asyncio.sleep(0)
        due = time.monotonic() - self._committed_s >= self._commit_every_s
        if self._uncommitted and (due or not self.waiting):
            await self._committed()
            self._committed_s = time.monotonic()
            self._save_now_and_then()
        if not self.waiting and not self._uncommitted:
            self.searchable = self.offered
            self._ready = self._ready or self._seen is None
        return self._writable and bool(self._waiting or self._deletions)

    async def close(self) -> None:
        """Commit what was written and remember it."""
        if self._uncommitted or self._committing is not None:
            await self._committed()
        self._fingerprints.save()
        await self._close()

    async def _committed(self) -> None:
        """Commit, or wait for the commit under way: cancelling who waits does not stop its thread."""
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit())
        written = self._written
        await asyncio.shield(self._committing)
        self._committing = None
        self._uncommitted = 0
        self.searchable = written

    def _write_batch(self) -> None:
        ids = [id_ for id_, _ in zip(self._waiting, range(self._batch), strict=False)]
        keys = [entity_id(id_) for id_ in ids]
        for id_ in ids:
            del self._waiting[id_]
        records = self._records.records("item", ids)
        held = self._fingerprints.held
        upserts: list[tuple[int, EntityRecord]] = []
        deletes = [self._deletions.pop() for _ in range(min(self._batch, len(self._deletions)))]
        for key, record in zip(keys, records, strict=True):
            content = None if record is None else self._fingerprint(record)
            if record is None or content is None:
                deletes.append(key)
            elif held.get(key) != content:
                upserts.append((key, record))
                held[key] = content
        for key in deletes:
            held.pop(key, None)
        self._write(upserts, deletes)
        self._uncommitted += len(upserts) + len(deletes)
        self._written = next(iter(self._waiting.values()), self.offered + 1) - 1

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved_s > _SAVE_EVERY_S:
            self._fingerprints.save()
            self._saved_s = time.monotonic()

    @property
    def _writable(self) -> bool:
        """Whether the index takes writes now."""
        return True

    @abstractmethod
    def _open(self, *, reuse: bool) -> None: ...

    @abstractmethod
    def _fingerprint(self, record: EntityRecord) -> int | None:
        """Of what the index has of a record; None when it does not belong into the index."""

    @abstractmethod
    def _write(self, upserts: list[tuple[int, EntityRecord]], deletes: list[int]) -> None: ...

    @abstractmethod
    async def _commit(self) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...
