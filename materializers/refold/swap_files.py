"""How ``tidal rebuild`` and a worker speak: through small files in a folder of the worker, no network.

``<worker>/rebuild/<partition>/``: the rebuilder writes ``request``; the worker stops folding the partition
and answers ``held``; the rebuilder folds exactly to there, writes ``rows`` and then ``offer``; the worker
replaces the rows and answers ``outcome``. Each file appears whole, by a rename. The rebuilder touches
``request`` while it lives; a worker that sees it untouched for a while, or gone, folds on with the old rows.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from blake3 import blake3

from materializers.materializer import RowReader
from schemas.errors import TidalError

REBUILD_FOLDER: Final = "rebuild"
LEASE_S: Final = 5.0
"""Of a request that its rebuilder does not touch."""

_CHUNK_ROWS: Final = 4_096
_LENGTH_BYTES: Final = 4
_DIGEST_BYTES: Final = 32


class SwapError(TidalError):
    """Rows could not be exchanged; the old ones stand."""


class Request(msgspec.Struct, frozen=True):
    """Stop folding the partition, as long as ``generation`` owns it."""

    id: str
    views: list[str]
    generation: int


class Held(msgspec.Struct, frozen=True):
    """The partition stands still; all of it is on the disk as of flush number ``flush``."""

    id: str
    flush: int


class Offer(msgspec.Struct, frozen=True):
    """File ``rows`` is complete: ``tables`` are to hold its ``rows`` rows and no others."""

    id: str
    tables: list[str]
    rows: int
    digest: str


class Outcome(msgspec.Struct, frozen=True):
    """``failure`` None: the new rows are in force, ``rows`` of them; else the old ones are."""

    id: str
    rows: int = 0
    vanished: int = 0
    failure: str | None = None


_Row = tuple[bytes, bytes | None]
_frame_decoder = msgspec.msgpack.Decoder(tuple[str, list[tuple[bytes, bytes | None]]])
_Message = TypeVar("_Message", Request, Held, Offer, Outcome)

TableRows = dict[str, dict[bytes, bytes | None]]
"""Table -> key -> value; None for a row that must not be there, nor in the changelog."""


class SwapFolder:
    """The files about one partition."""

    def __init__(self, worker_folder: Path, partition: int) -> None:
        self.partition = partition
        self.path = worker_folder / REBUILD_FOLDER / str(partition)

    def put(self, message: Request | Held | Offer | Outcome) -> None:
        """Let ``message`` appear."""
        self.path.mkdir(parents=True, exist_ok=True)
        path = self._file(type(message))
        draft = path.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(message))
        draft.replace(path)

    def get(self, kind: type[_Message]) -> _Message | None:
        """The message of this kind, None if there is none."""
        try:
            return msgspec.json.decode(self._file(kind).read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise SwapError(f"{self._file(kind)}: {error}; remove {self.path}") from error

    def renew(self) -> None:
        """Say that the rebuilder lives. Harmless when the request is gone."""
        try:
            os.utime(self._file(Request))
        except FileNotFoundError:
            return

    def lease_left_s(self) -> float:
        """How long the request stands without another ``renew``; 0 when it is gone or has run out."""
        try:
            age_s = time.time() - self._file(Request).stat().st_mtime
        except FileNotFoundError:
            return 0.0
        return max(0.0, LEASE_S - age_s)

    def remove(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.path, ignore_errors=True)

    def write_rows(self, offer_id: str, rows: RowReader, known: Mapping[str, set[bytes]]) -> Offer:
        """Write ``rows``' rows of the tables in ``known``; the offer that says so, which is still to be put.

        Args:
            known: by table the keys that the changelog has; those without a row are to be deleted there.
        """
        count = 0
        digest = blake3()
        with self._rows_file.open("wb") as file:
            for table, stale in known.items():
                for chunk in _chunks(_rows_and_stale(rows.scan(table), set(stale))):
                    frame = msgspec.msgpack.encode((table, chunk))
                    digest.update(frame)
                    file.write(len(frame).to_bytes(_LENGTH_BYTES, "little") + frame)
                    count += sum(value is not None for _, value in chunk)
        return Offer(offer_id, list(known), count, digest.hexdigest())

    def read_rows(self, offer: Offer) -> TableRows:
        """The rows of an offer, all tables of it, also those without rows.

        Raises:
            SwapError: they are not what was offered.
        """
        rows: TableRows = {table: {} for table in offer.tables}
        digest = blake3()
        with self._rows_file.open("rb") as file:
            while head := file.read(_LENGTH_BYTES):
                frame = file.read(int.from_bytes(head, "little"))
                digest.update(frame)
                table, chunk = _frame_decoder.decode(frame)
                rows[table].update(chunk)
        if digest.hexdigest() != offer.digest:
            raise SwapError(f"{self._rows_file} is not what was offered; run the rebuild again")
        return rows

    def _file(self, kind: type[msgspec.Struct]) -> Path:
        return self.path / f"{kind.__name__.lower()}.json"

    @property
    def _rows_file(self) -> Path:
        return self.path / "rows.bin"


def requests(worker_folder: Path) -> list[SwapFolder]:
    """The folders that hold a request, by partition."""
    found = (worker_folder / REBUILD_FOLDER).glob("*/request.json")
    return sorted((SwapFolder(worker_folder, int(path.parent.name)) for path in found), key=_partition)


def _partition(folder: SwapFolder) -> int:
    return folder.partition


def _rows_and_stale(rows: Iterator[tuple[bytes, bytes]], stale: set[bytes]) -> Iterator[_Row]:
    for key, value in rows:
        stale.discard(key)
        yield key, value
    for key in sorted(stale):
        yield key, None


def _chunks(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    chunk: list[_Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) >= _CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
