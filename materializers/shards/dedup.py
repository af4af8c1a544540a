"""Drops an event that was already counted: same kind, item, user and second, inside the dedup horizon.

**Digest.** 24 bytes made of BLAKE3s that exist anyway: EntityId of the user (8), EntityId of the item (8),
code of the signal (4), second of the event (4). Two events have the same digest exactly if they agree in all
four, up to collisions of ids, which are refused elsewhere; nothing is hashed for each event.

**Horizon.** Two generations. The *epoch* of an event is ``record_ts_ms // generation_ms`` with the log's
time of its record; a partition's epoch is the highest seen so far. When it rises by one, the current
generation becomes the previous one; when it rises by more, both are forgotten. An event is a duplicate if
its digest is in either; else it enters the current one. A generation that is full rotates before the next
digest enters it. All of it depends on the order of events in the log alone, not on batches or clocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from materializers.materializer import RowReader, RowWriter, TableSpec

I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

DEDUP_TABLE: Final = TableSpec(
    "dedup", "[generation u32][first digest u32] -> digests, 24 bytes each", bloom=False
)
DIGESTS_MAX: Final = 1 << 20
"""Of one generation: 32 bytes each. At 12,500 events/s a partition this is 84 s; beyond it rotates early."""

_WORDS: Final = 3
_GROWTH_MIN: Final = 1024
_ROW_DIGESTS_MAX: Final = 1 << 15
_KEY_BITS: Final = 63
_KEY_MASK: Final = np.uint64((1 << _KEY_BITS) - 1)
_NOBODY: Final = -1
_REPLACED_AT_ONCE: Final = 1 << 16
_MIX: Final = tuple(np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))


def digests_of(user: U64, item: U64, code: U64, ts_ms: I64) -> U64:
    """Digests u64[n, 3] of events: EntityIds of user and item, the signal's code, the event's time."""
    digests = np.empty((len(user), _WORDS), dtype=np.uint64)
    digests[:, 0] = user
    digests[:, 1] = item
    seconds = (ts_ms // 1000).astype(np.uint64) & np.uint64(0xFFFFFFFF)
    digests[:, 2] = (code << np.uint64(32)) | seconds
    return digests


def _index_keys(digests: U64) -> I64:
    mixed = digests[:, 0] * _MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(29)) ^ digests[:, 1]) * _MIX[1]
    mixed = (mixed ^ (mixed >> np.uint64(32)) ^ digests[:, 2]) * _MIX[2]
    return ((mixed ^ (mixed >> np.uint64(31))) & _KEY_MASK).astype(np.int64)


class DigestSet:
    """Digests in order of arrival, behind a hash index: 32 to 40 bytes each.

    The index holds positions and no keys (open addressing, linear probing, between a quarter and half full):
    a place's digest is looked at itself, so whatever keys are alike, what is found is equal.
    """

    def __init__(self) -> None:
        self._digests: U64 = np.empty((_GROWTH_MIN, _WORDS), dtype=np.uint64)
        self._size = 0
        self._clear_places(2 * _GROWTH_MIN)

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return int(self._digests.nbytes + self._at.nbytes)

    def contains(self, digests: U64, keys: I64) -> Flags:
        """Which digests are in the set, bool[n]. keys: of ``_index_keys``."""
        found = np.zeros(len(digests), dtype=bool)
        searching = np.arange(len(digests))
        place = keys >> self._shift
        while len(searching):
            position = self._at[place]
            taken = np.flatnonzero(position != _NOBODY)
            searching, place, position = searching[taken], place[taken], position[taken]
            equal = self._equal(position, digests, searching)
            found[searching[equal]] = True
            searching, place = searching[~equal], (place[~equal] + 1) & self._mask
        return found

    def add(self, digests: U64, keys: I64) -> None:
        """Add digests that are absent and distinct; blank ones take a place in the order only."""
        start, self._size = self._size, self._size + len(digests)
        if self._size > len(self._digests):
            longer = np.empty((1 << (self._size - 1).bit_length(), _WORDS), dtype=np.uint64)
            longer[:start] = self._digests[:start]
            self._digests = longer
        self._digests[start : self._size] = digests
        if 2 * self._size > len(self._at):
            self._clear_places(1 << (2 * self._size - 1).bit_length())
            for first in range(0, self._size, _REPLACED_AT_ONCE):
                known = self._digests[first : min(self._size, first + _REPLACED_AT_ONCE)]
                self._enter(known, _index_keys(known), first)
        else:
            self._enter(digests, keys, start)

    def since(self, first: int, end: int | None = None) -> U64:
        """Digests from the ``first``-th on (up to the ``end``-th), in order of arrival."""
        added: U64 = self._digests[first : self._size if end is None else end]
        return added

    def erase(self, users: U64) -> I64:
        """Blank the digests of users, given as EntityIds; their positions i64[k]. A blank one equals no
        event's digest, and keeps its place.
        """
        gone = np.flatnonzero(np.isin(self._digests[: self._size, 0], users))
        self._digests[gone] = 0
        return gone

    def _equal(self, position: I32, digests: U64, rows: I64) -> Flags:
        """Whether the digests at ``position`` are those of ``rows``: few have the same user even."""
        equal: Flags = self._digests[:, 0][position] == digests[:, 0][rows]
        alike = np.flatnonzero(equal)
        if len(alike):
            equal[alike] = (self._digests[position[alike]] == digests[rows[alike]]).all(axis=1)
        return equal

    def _clear_places(self, count: int) -> None:
        self._at: I32 = np.full(count, _NOBODY, dtype=np.int32)
        self._mask = count - 1
        self._shift = _KEY_BITS - (count.bit_length() - 1)

    def _enter(self, digests: U64, keys: I64, first: int) -> None:
        """In each round every digest takes its place if that is free; one that is overwritten moves on."""
        entering = np.flatnonzero(digests.any(axis=1))
        place, position = keys[entering] >> self._shift, (entering + first).astype(np.int32)
        while len(position):
            free = self._at[place] == _NOBODY
            self._at[place[free]] = position[free]
            left = self._at[place] != position
            place, position = (place[left] + 1) & self._mask, position[left]


@dataclass(slots=True)
class _Generation:
    number: int
    digests: DigestSet
    written: int = 0


class DedupHorizon:
    """The horizon of one user partition."""

    def __init__(self, generation_ms: int, digests_max: int = DIGESTS_MAX) -> None:
        self._generation_ms = generation_ms
        self._digests_max = digests_max
        self._epoch = 0
        self._current = _Generation(0, DigestSet())
        self._previous = _Generation(-1, DigestSet())
        self._rows: dict[int, list[bytes]] = {}
        self._rewrite: dict[int, set[int]] = {}
        self._dropped: list[bytes] = []
        self.early_rotations = 0

    def __len__(self) -> int:
        return len(self._current.digests) + len(self._previous.digests)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return self._current.digests.nbytes + self._previous.digests.nbytes

    def accept(self, digests: U64, record_ts_ms: I64) -> Flags:
        """Which events to count, bool[n], in the log's order; those are remembered.

        Args:
            digests: u64[n, 3].
            record_ts_ms: the log's time of each event's record.
        """
        fresh = np.zeros(len(digests), dtype=bool)
        keys = _index_keys(digests)
        epochs = np.maximum.accumulate(np.maximum(record_ts_ms // self._generation_ms, self._epoch))
        starts = np.flatnonzero(np.diff(epochs, prepend=self._epoch - 1))
        for start, end in zip(starts.tolist(), [*starts.tolist()[1:], len(digests)], strict=True):
            self._advance(int(epochs[start]))
            while start < end:
                start = self._accept_some(digests, keys, fresh, start, end)
        return fresh

    def counters(self) -> dict[str, int]:
        """What has to be restored with the rows."""
        return {
            "dedup_epoch": self._epoch,
            "dedup_generation": self._current.number,
            "dedup_early_rotations": self.early_rotations,
        }

    def forget(self, users: U64) -> dict[str, int]:
        """Blank every digest of users, given as EntityIds u64[k]; rows to be written anew by table.

        The same event, sent again, counts then: it is the first of somebody new.
        """
        rewritten = 0
        for generation in (self._previous, self._current):
            firsts = np.array(self._firsts(generation.number), dtype=np.int64)
            gone = generation.digests.erase(users)
            written = gone[gone < generation.written]
            rows = np.unique(np.searchsorted(firsts, written, side="right") - 1)
            self._rewrite.setdefault(generation.number, set()).update(firsts[rows].tolist())
            rewritten += len(rows)
        return {DEDUP_TABLE.name: rewritten} if rewritten else {}

    def flush(self, writer: RowWriter) -> None:
        """Write the digests added since the last call, and rows with blanked ones; delete those of forgotten
        generations.
        """
        self._write_blanked(writer)
        for key in self._dropped:
            writer.delete(DEDUP_TABLE.name, key)
        self._dropped.clear()
        for generation in (self._previous, self._current):
            while generation.written < len(generation.digests):
                self._write_row(generation, writer)

    def restore(self, reader: RowReader, counters: dict[str, int]) -> None:
        self._epoch = counters.get("dedup_epoch", 0)
        self.early_rotations = counters.get("dedup_early_rotations", 0)
        number = counters.get("dedup_generation", 0)
        self._current, self._previous = _Generation(number, DigestSet()), _Generation(number - 1, DigestSet())
        for key, value in reader.scan(DEDUP_TABLE.name):
            generation = self._generation(int.from_bytes(key[:4], "big"))
            if generation is None:
                self._dropped.append(key)
                continue
            self._rows.setdefault(generation.number, []).append(key)
            digests = np.frombuffer(value, dtype="<u8").astype(np.uint64).reshape(-1, _WORDS)
            generation.digests.add(digests, _index_keys(digests))
            generation.written = len(generation.digests)

    def _accept_some(self, digests: U64, keys: I64, fresh: Flags, start: int, end: int) -> int:
        """Decide events from ``start`` on, at most to ``end``, without a rotation; where to go on."""
        part, part_keys = digests[start:end], keys[start:end]
        new = ~self._current.digests.contains(part, part_keys)
        new &= ~self._previous.digests.contains(part, part_keys)
        new &= _first_of_equals(part, part_keys)
        room = self._digests_max - len(self._current.digests)
        added = np.flatnonzero(new)
        if len(added) > room:
            stop = int(added[room])
            new[stop:] = False
            added = added[:room]
        else:
            stop = end - start
        self._current.digests.add(part[added], part_keys[added])
        fresh[start : start + stop] = new[:stop]
        if start + stop < end:
            self.early_rotations += 1
            self._rotate()
        return start + stop

    def _advance(self, epoch: int) -> None:
        steps = min(2, epoch - self._epoch) if self._epoch else 1
        if epoch > self._epoch:
            self._epoch = epoch
            for _ in range(steps):
                self._rotate()

    def _rotate(self) -> None:
        self._dropped.extend(self._rows.pop(self._previous.number, ()))
        self._previous = self._current
        self._current = _Generation(self._previous.number + 1, DigestSet())

    def _generation(self, number: int) -> _Generation | None:
        return next((each for each in (self._current, self._previous) if each.number == number), None)

    def _firsts(self, number: int) -> list[int]:
        """Position of the first digest of each row of a generation, ascending."""
        return sorted(int.from_bytes(key[4:], "big") for key in self._rows.get(number, ()))

    def _write_blanked(self, writer: RowWriter) -> None:
        for generation in (self._previous, self._current):
            wanted = self._rewrite.get(generation.number)
            if not wanted:
                continue
            firsts = self._firsts(generation.number)
            for first, end in zip(firsts, [*firsts[1:], generation.written], strict=True):
                if first in wanted:
                    digests = generation.digests.since(first, end).astype("<u8")
                    writer.put(DEDUP_TABLE.name, _row_key(generation.number, first), digests.tobytes())
        self._rewrite.clear()

    def _write_row(self, generation: _Generation, writer: RowWriter) -> None:
        key = _row_key(generation.number, generation.written)
        digests = generation.digests.since(generation.written)[:_ROW_DIGESTS_MAX]
        writer.put(DEDUP_TABLE.name, key, digests.astype("<u8").tobytes())
        self._rows.setdefault(generation.number, []).append(key)
        generation.written += len(digests)


def _row_key(generation: int, first: int) -> bytes:
    return generation.to_bytes(4, "big") + first.to_bytes(4, "big")


def _are_distinct(keys: I64) -> bool:
    ordered = np.sort(keys)
    return not (ordered[1:] == ordered[:-1]).any()


def _first_of_equals(digests: U64, keys: I64) -> Flags:
    """Whether a digest is the first of its equals in the batch, bool[n]."""
    if _are_distinct(keys):
        return np.ones(len(keys), dtype=bool)
    first = np.zeros(len(keys), dtype=bool)
    _, at, inverse = np.unique(keys, return_index=True, return_inverse=True)
    first[at] = True
    if (digests != digests[at[inverse]]).any():  # two digests with one index key: decide exactly
        seen: set[bytes] = set()
        for row, digest in enumerate(map(bytes, digests)):
            first[row] = digest not in seen
            seen.add(digest)
    return first
