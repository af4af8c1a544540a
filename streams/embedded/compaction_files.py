"""File names of a compaction, and how a start finishes or forgets one.

A compaction writes and syncs `<base>-<end>.clean` with its snapshot `<base>-<end>.clean-snap`. Renaming
the former to `<base>-<end>.swap` decides: it then stands for all segments with a base in [base, end).
Those are removed, and both files take their final names.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from streams.embedded.segment import LOG_SUFFIX, SNAPSHOT_SUFFIX, segment_path, sync_directory

_CLEAN = ".clean"
_CLEAN_SNAPSHOT = ".clean-snap"
_SWAP = ".swap"


def clean_path(directory: Path, base_offset: int, end_offset: int) -> Path:
    """Where the compacted form of the segments in [base_offset, end_offset) is being written."""
    return directory / f"{base_offset:020d}-{end_offset:020d}{_CLEAN}"


def clean_snapshot_path(directory: Path, base_offset: int, end_offset: int) -> Path:
    """Where its snapshot is being written."""
    return clean_path(directory, base_offset, end_offset).with_suffix(_CLEAN_SNAPSHOT)


def install(directory: Path, base_offset: int, end_offset: int) -> Path:
    """Put a complete, synced compacted file in place of its sources; returns its final path."""
    clean = clean_path(directory, base_offset, end_offset)
    swap = clean.with_suffix(_SWAP)
    clean.rename(swap)
    sync_directory(directory)
    return _finish(swap)


class Decided(NamedTuple):
    """A compacted file that stands for the segments with a base in [base_offset, end_offset)."""

    base_offset: int
    end_offset: int
    path: Path
    snapshot_path: Path


def decided(directory: Path) -> list[Decided]:
    """Replacements that were decided and not finished."""
    found = []
    for path in sorted(directory.glob("*" + _SWAP)):
        base, end = (int(part) for part in path.stem.split("-"))
        written, final = path.with_suffix(_CLEAN_SNAPSHOT), segment_path(directory, base)
        snapshot = written if written.exists() else final.with_suffix(SNAPSHOT_SUFFIX)
        found.append(Decided(base, end, path, snapshot))
    return found


def discard(directory: Path) -> None:
    """Remove whatever was written but not decided."""
    for path in (*directory.glob("*" + _CLEAN), *directory.glob("*" + _CLEAN_SNAPSHOT)):
        path.unlink(missing_ok=True)


def finish_replacements(directory: Path) -> None:
    """On start: complete what had been decided, drop what had not."""
    for swap in sorted(directory.glob("*" + _SWAP)):
        _finish(swap)
    discard(directory)


def _finish(swap: Path) -> Path:
    directory = swap.parent
    base, end = (int(part) for part in swap.stem.split("-"))
    for path in directory.glob("*" + LOG_SUFFIX):
        if path.stem.isdigit() and base <= int(path.stem) < end:
            path.with_suffix(SNAPSHOT_SUFFIX).unlink(missing_ok=True)
            path.unlink()
    target = segment_path(directory, base)
    snapshot = swap.with_suffix(_CLEAN_SNAPSHOT)
    if snapshot.exists():
        snapshot.rename(target.with_suffix(SNAPSHOT_SUFFIX))
    swap.rename(target)
    sync_directory(directory)
    return target
