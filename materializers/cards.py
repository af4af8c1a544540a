"""What the user shard must know of every item: its creator and its embeddings, one copy for each worker.

A *card* is a row number dealt to an item when its first record arrives; 0 means that none has. Vectors lie in
one memory-mapped float32 file for each embedding slot, so that the system keeps in RAM what is in use.

Cards are persisted so that a restart does not read all of ``tidal.items`` again (a million items with 384
dimensions are about 5 GB of JSON): ``save`` appends changed cards to a journal and then replaces
``positions.json``, which says how much of the journal is valid and from which offsets to read on. Vectors are
written in place. A crash leaves some newer than the positions say; reading on from there writes them again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from materializers.batches import EntityWrite
from materializers.interner import Interner
from schemas.model import EmbeddingSlot, Schema

U32 = npt.NDArray[np.uint32]
F32 = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

_FORMAT: Final = 2
_GROWTH_MIN: Final = 1024
_POSITIONS: Final = "positions.json"
_FRAME_BYTES: Final = 4
_REWRITE_FACTOR: Final = 3  # a journal with three entries for each card is written anew


class _Entry(msgspec.Struct, array_like=True, frozen=True):
    """One card in the journal; ``slots`` are the names of the embeddings that it has."""

    card: int
    item: str
    creator: str
    slots: list[str]


class _Positions(msgspec.Struct, frozen=True):
    """What of the files is valid."""

    format: int
    journal: str
    journal_bytes: int
    entries: int
    next_offsets: dict[int, int]
    dims: dict[str, int]
    copies: dict[str, int] = {}


class SlotVectors:
    """The vectors of one slot by card, f32[capacity, dim] in a sparse file, and which cards have one."""

    def __init__(self, path: Path, slot: EmbeddingSlot) -> None:
        self._path = path
        self._slot = slot
        self.present: Flags = np.zeros(0, dtype=bool)
        self._matrix: np.memmap[tuple[int, ...], np.dtype[np.float32]] | None = None

    def reserve(self, cards: int) -> None:
        if cards <= len(self.present):
            return
        capacity = max(_GROWTH_MIN, 1 << (cards - 1).bit_length())
        self.present = np.concatenate([self.present, np.zeros(capacity - len(self.present), dtype=bool)])
        self.flush()
        self._path.touch()
        if self._path.stat().st_size < capacity * self._slot.dim * 4:
            os.truncate(self._path, capacity * self._slot.dim * 4)
        self._matrix = np.memmap(self._path, np.float32, mode="r+", shape=(capacity, self._slot.dim))

    def set(self, card: int, vector: F32 | None) -> None:
        self.present[card] = vector is not None
        if vector is None or self._matrix is None:
            return
        self._matrix[card] = vector if self._slot.metric == "cosine" else _unit(vector)

    def take(self, cards: U32) -> F32:
        assert self._matrix is not None, "vectors are read only of cards that have one"
        taken: F32 = np.asarray(self._matrix)[cards]
        return taken

    def flush(self) -> None:
        if self._matrix is not None:
            self._matrix.flush()


class Cards(Protocol):
    """What a fold asks of the cards: those of a worker, or those of a moment of the past."""

    NONE: Final = 0  # type: ignore[misc]

    @property
    def version(self) -> int:
        """Another one whenever ``next_offsets`` are others."""
        ...

    @property
    def next_offsets(self) -> dict[int, int]:
        """By partition of ``tidal.items`` the first offset that is not in the cards."""
        ...

    def cards(self, items: U32) -> U32: ...

    def creators(self, cards: U32) -> U32: ...

    def has_vector(self, slot: str, cards: U32) -> Flags: ...

    def vectors(self, slot: str, cards: U32) -> F32: ...


class ItemCards:
    """Cards of all items, fed with the records of every partition of ``tidal.items``.

    Args:
        folder: where the files are; created if absent.
        schema: names the embedding slots. items, creators: the worker's dictionaries.
    """

    NONE: Final = 0

    def __init__(self, folder: Path, schema: Schema, items: Interner, creators: Interner) -> None:
        self._folder = folder
        self._items = items
        self._creators = creators
        self._slots = dict(schema.entities["item"].embeddings)
        self._vectors = {
            name: SlotVectors(folder / f"vectors-{name}.f32", slot) for name, slot in self._slots.items()
        }
        self._card_of_item: U32 = np.zeros(_GROWTH_MIN, dtype=np.uint32)
        self._creator: U32 = np.zeros(_GROWTH_MIN, dtype=np.uint32)
        self._item: U32 = np.zeros(_GROWTH_MIN, dtype=np.uint32)
        self._size = 1
        self._changed: set[int] = set()
        self._next_offsets: dict[int, int] = {}
        self.copies: dict[str, int] = {}
        """Kept with the positions for whoever feeds the cards (see ``item_records.CopyMarks``)."""
        self.version = 0
        """Another one whenever ``next_offsets`` are others."""
        self._journal = "cards-0.log"
        self._journal_bytes = 0
        self._entries = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._open()

    def __len__(self) -> int:
        """Items that have a card."""
        return self._size - 1

    @property
    def next_offsets(self) -> dict[int, int]:
        """By partition of ``tidal.items`` the first offset that has not been applied."""
        return dict(self._next_offsets)

    def apply(self, partition: int, writes: Sequence[EntityWrite]) -> U32:
        """Take the records of one partition in offset order; already applied offsets are left out.

        A deleted item keeps its card, without creator and vectors: its events wait for nothing and move
        nothing. Returns the wids of the items that got their card now, u32[k].
        """
        start = self._next_offsets.get(partition, 0)
        fresh = [write for write in writes if write.offset >= start]
        if not fresh:
            return np.empty(0, dtype=np.uint32)
        before = self._size
        for write in fresh:
            self._write(write)
        self._next_offsets[partition] = fresh[-1].offset + 1
        self.version += 1
        return self._item[before : self._size].copy()

    def advance(self, partition: int, next_offset: int) -> None:
        """Records up to ``next_offset`` were read and held no valid item."""
        if next_offset > self._next_offsets.get(partition, 0):
            self._next_offsets[partition] = next_offset
            self.version += 1

    def cards(self, items: U32) -> U32:
        """Cards of item wids u32[n]; 0 where no record has arrived."""
        self._reserve_items()
        found: U32 = self._card_of_item[items]
        return found

    def creators(self, cards: U32) -> U32:
        """Creator wids of cards u32[n]; 0 = none."""
        found: U32 = self._creator[cards]
        return found

    def has_vector(self, slot: str, cards: U32) -> Flags:
        """Which cards have an embedding in ``slot``."""
        vectors = self._vectors[slot]
        vectors.reserve(self._size)
        found: Flags = vectors.present[cards]
        return found

    def vectors(self, slot: str, cards: U32) -> F32:
        """Unit vectors of cards that have one, f32[n, dim]."""
        return self._vectors[slot].take(cards)

    def save(self) -> None:
        """Make everything applied so far durable, so that the next start reads on from ``next_offsets``."""
        for vectors in self._vectors.values():
            vectors.flush()
        if self._entries + len(self._changed) > _REWRITE_FACTOR * max(self._size, _GROWTH_MIN):
            self._start_journal()
        entries = [self._entry(card) for card in sorted(self._changed)]
        self._append(entries)
        self._changed.clear()
        self._replace_positions()

    def _write(self, write: EntityWrite) -> None:
        card = self._card_for(write.id)
        record = write.record
        creator = record.creator if record is not None and record.creator else ""
        self._creator[card] = self._creators.ids([creator])[0]
        for name, vectors in self._vectors.items():
            vectors.set(card, None if record is None else record.embeddings.get(name))
        self._changed.add(card)

    def _card_for(self, item: str) -> int:
        wid = int(self._items.ids([item])[0])
        self._reserve_items()
        card = int(self._card_of_item[wid])
        if card == self.NONE:
            card = self._size
            self._place(card, wid)
        return card

    def _place(self, card: int, wid: int) -> None:
        self._size = max(self._size, card + 1)
        self._creator = _grown(self._creator, self._size)
        self._item = _grown(self._item, self._size)
        for vectors in self._vectors.values():
            vectors.reserve(self._size)
        self._item[card] = wid
        self._card_of_item[wid] = card

    def _reserve_items(self) -> None:
        self._card_of_item = _grown(self._card_of_item, len(self._items))

    def _entry(self, card: int) -> _Entry:
        slots = [name for name, vectors in self._vectors.items() if vectors.present[card]]
        return _Entry(
            card,
            self._items.string(int(self._item[card])),
            self._creators.string(int(self._creator[card])),
            slots,
        )

    def _start_journal(self) -> None:
        """Every card once, in a new file; the old one is deleted once the positions name the new one."""
        number = int(self._journal.removeprefix("cards-").removesuffix(".log"))
        self._journal = f"cards-{number + 1}.log"
        self._journal_bytes = self._entries = 0
        self._changed = set(range(1, self._size))

    def _append(self, entries: Iterable[_Entry]) -> None:
        encode = msgspec.msgpack.encode
        frames = [encode(entry) for entry in entries]
        blob = b"".join([len(frame).to_bytes(_FRAME_BYTES, "little") + frame for frame in frames])
        path = self._folder / self._journal
        path.touch()
        os.truncate(path, self._journal_bytes)
        with path.open("ab") as journal:
            journal.write(blob)
            journal.flush()
            os.fsync(journal.fileno())
        self._journal_bytes += len(blob)
        self._entries += len(frames)

    def _replace_positions(self) -> None:
        dims = {name: slot.dim for name, slot in self._slots.items()}
        positions = _Positions(
            _FORMAT, self._journal, self._journal_bytes, self._entries, self._next_offsets, dims, self.copies
        )
        draft = self._folder / (_POSITIONS + ".new")
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(positions))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._folder / _POSITIONS)
        for stale in self._folder.glob("cards-*.log"):
            if stale.name != self._journal:
                stale.unlink()

    def _open(self) -> None:
        """Load what ``save`` left; anything that does not fit the schema means reading the topic again."""
        path = self._folder / _POSITIONS
        if not path.exists():
            return
        positions = msgspec.json.decode(path.read_bytes(), type=_Positions)
        dims = {name: slot.dim for name, slot in self._slots.items()}
        if positions.format != _FORMAT or positions.dims != dims:
            return
        self._journal, self._journal_bytes = positions.journal, positions.journal_bytes
        self._entries = positions.entries
        self._next_offsets = dict(positions.next_offsets)
        self.copies.update(positions.copies)
        blob = (self._folder / self._journal).read_bytes()[: self._journal_bytes]
        self._load(list(_frames(blob)))

    def _load(self, entries: list[_Entry]) -> None:
        wids = self._items.ids([entry.item for entry in entries]).tolist()
        creators = self._creators.ids([entry.creator for entry in entries]).tolist()
        self._reserve_items()
        for entry, wid, creator in zip(entries, wids, creators, strict=True):
            self._place(entry.card, wid)
            self._creator[entry.card] = creator
            for name, vectors in self._vectors.items():
                vectors.present[entry.card] = name in entry.slots


def _frames(blob: bytes) -> Iterator[_Entry]:
    decoder = msgspec.msgpack.Decoder(_Entry)
    at = 0
    while at < len(blob):
        size = int.from_bytes(blob[at : at + _FRAME_BYTES], "little")
        at += _FRAME_BYTES
        yield decoder.decode(blob[at : at + size])
        at += size


def _grown(column: U32, size: int) -> U32:
    if size <= len(column):
        return column
    longer = np.zeros(1 << (size - 1).bit_length(), dtype=np.uint32)
    longer[: len(column)] = column
    return longer


def _unit(vector: F32) -> F32:
    exact = vector.astype(np.float64)
    unit: F32 = (exact / np.sqrt(exact @ exact)).astype(np.float32)
    return unit
