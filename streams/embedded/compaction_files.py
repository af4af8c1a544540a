"""File names of a compaction under way, and how a start finishes or forgets one.

A compaction writes `<base>-<end>.clean`, syncs it and renames it to `<base>-<end>.swap`: from then on it
stands for all segments with a base in [base, end). They are removed, then it takes its final name.
"""

from __future__ import annotations

from pathlib import Path

from streams.embedded.segment import LOG_SUFFIX, SNAPSHOT_SUFFIX, segment_path, sync_directory

CLEAN_SUFFIX = ".clean"
SWAP_SUFFIX = ".swap"


def clean_path(directory: Path, base_offset: int, end_offset: int) -> Path:
    """Where the compacted form of the segments in [base_offset, end_offset) is being written."""
    return directory / f"{base_offset:020d}-{end_offset:020d}{CLEAN_SUFFIX}"


def install(clean: Path) -> Path:
    """Put a complete, synced compacted file in place of its sources; returns its final path."""
    swap = clean.with_suffix(SWAP_SUFFIX)
    clean.rename(swap)
    sync_directory(swap.parent)
    return _finish(swap)


def finish_replacements(directory: Path) -> None:
    """On start: complete what had been decided, drop what had not."""
    for unfinished in directory.glob("*" + CLEAN_SUFFIX):
        unfinished.unlink()
    for swap in sorted(directory.glob("*" + SWAP_SUFFIX)):
        _finish(swap)


def _finish(swap: Path) -> Path:
    directory = swap.parent
    base, end = (int(part) for part in swap.stem.split("-"))
    for path in directory.glob("*" + LOG_SUFFIX):
        if path.stem.isdigit() and base <= int(path.stem) < end:
            path.with_suffix(SNAPSHOT_SUFFIX).unlink(missing_ok=True)
            path.unlink()
    target = segment_path(directory, base)
    swap.rename(target)
    sync_directory(directory)
    return target
