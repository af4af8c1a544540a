"""What one partition knows about its idempotent and transactional producers.

Rules for epochs and sequences are Kafka's (KIP-98): the last five batches of a producer are
remembered, a repeated one is answered with its first offset, anything else must continue the sequence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from streams.embedded.batch import BatchHeader
from streams.embedded.errors import SequenceError

# Kafka clients keep at most five requests in flight when idempotent.
REMEMBERED_BATCHES = 5
SEQUENCE_MODULUS = 1 << 31


class SentBatch(NamedTuple):
    """One remembered batch of a producer."""

    first_sequence: int
    last_sequence: int
    base_offset: int


class ProducerSnapshot(msgspec.Struct, array_like=True):
    """A producer's state as it is written into a segment's snapshot."""

    producer_id: int
    epoch: int
    updated_ms: int
    batches: Sequence[tuple[int, int, int]]
    open_since: int


class ProducerEntry:
    """State of one producer id in one partition. `open_since` is its transaction's first offset, or -1."""

    __slots__ = ("batches", "epoch", "open_since", "updated_ms")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.batches: deque[SentBatch] = deque(maxlen=REMEMBERED_BATCHES)
        self.open_since = -1
        self.updated_ms = 0


class Producers:
    """All producers of one partition. Pure: knows nothing of files or clocks."""

    def __init__(self) -> None:
        self._entries: dict[int, ProducerEntry] = {}
        self._open: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def check(self, header: BatchHeader) -> int | None:
        """Offset of the batch that this one repeats, or None when it is new.

        Raises SequenceError (invalid_producer_epoch, out_of_order_sequence_number).
        """
        entry = self._entries.get(header.producer_id)
        if entry is None:
            return None
        if header.producer_epoch < entry.epoch:
            raise SequenceError(
                "invalid_producer_epoch",
                f"producer {header.producer_id}: epoch {header.producer_epoch}, newest {entry.epoch}",
            )
        if header.producer_epoch > entry.epoch:
            if header.base_sequence != 0:
                raise _out_of_order(header, 0)
            return None
        return _check_same_epoch(entry, header)

    def append(self, header: BatchHeader, now_ms: int) -> bool:
        """Take note of a batch that has been given its offset. Does it open a transaction?"""
        entry = self._entry(header.producer_id, header.producer_epoch)
        entry.updated_ms = now_ms
        last = (header.base_sequence + header.last_offset_delta) % SEQUENCE_MODULUS
        entry.batches.append(SentBatch(header.base_sequence, last, header.base_offset))
        opens = header.is_transactional and entry.open_since < 0
        if opens:
            entry.open_since = header.base_offset
            self._open[header.producer_id] = header.base_offset
        return opens

    def end_transaction(self, producer_id: int, epoch: int, now_ms: int) -> int:
        """A marker was written: first offset of the transaction that it ends, or -1 if none was open."""
        entry = self._entry(producer_id, epoch)
        entry.updated_ms = now_ms
        entry.open_since = -1
        return self._open.pop(producer_id, -1)

    def first_open_offset(self) -> int | None:
        """First offset of the oldest open transaction."""
        return min(self._open.values()) if self._open else None

    def open_transactions(self) -> dict[int, int]:
        """Epoch of each producer id with an open transaction here."""
        return {producer_id: self._entries[producer_id].epoch for producer_id in self._open}

    def forget_idle(self, before_ms: int) -> None:
        """Drop producers not heard of since `before_ms`, except with an open transaction."""
        for producer_id, entry in list(self._entries.items()):
            if entry.updated_ms < before_ms and entry.open_since < 0:
                del self._entries[producer_id]

    def snapshot(self) -> list[ProducerSnapshot]:
        return [
            ProducerSnapshot(producer_id, e.epoch, e.updated_ms, list(e.batches), e.open_since)
            for producer_id, e in self._entries.items()
        ]

    def restore(self, snapshots: list[ProducerSnapshot]) -> None:
        """Replace everything by what a snapshot holds."""
        self._entries.clear()
        self._open.clear()
        for saved in snapshots:
            entry = self._entry(saved.producer_id, saved.epoch)
            entry.updated_ms = saved.updated_ms
            entry.open_since = saved.open_since
            entry.batches.extend(SentBatch(*batch) for batch in saved.batches)
            if saved.open_since >= 0:
                self._open[saved.producer_id] = saved.open_since

    def _entry(self, producer_id: int, epoch: int) -> ProducerEntry:
        entry = self._entries.get(producer_id)
        if entry is None:
            entry = self._entries[producer_id] = ProducerEntry(epoch)
        elif epoch != entry.epoch:
            entry.epoch = epoch
            entry.batches.clear()
        return entry


def _check_same_epoch(entry: ProducerEntry, header: BatchHeader) -> int | None:
    last = (header.base_sequence + header.last_offset_delta) % SEQUENCE_MODULUS
    for sent in entry.batches:
        if sent.first_sequence == header.base_sequence and sent.last_sequence == last:
            return sent.base_offset
    expected = (entry.batches[-1].last_sequence + 1) % SEQUENCE_MODULUS if entry.batches else 0
    if header.base_sequence != expected:
        raise _out_of_order(header, expected)
    return None


def _out_of_order(header: BatchHeader, expected: int) -> SequenceError:
    return SequenceError(
        "out_of_order_sequence_number",
        f"producer {header.producer_id} epoch {header.producer_epoch} sent sequence {header.base_sequence}, "
        f"expected {expected}",
    )
