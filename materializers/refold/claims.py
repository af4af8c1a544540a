"""Folders that belong to one process as long as it lives."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LOCK: Final = "lock"


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether ``folder``, which exists, is ours in the body; the kernel ends a claim with its process."""
    claim = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(claim)


@contextmanager
def own_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in ``parent``, gone afterwards; what processes that were killed left of such goes, too."""
    for stale in parent.glob(f"{prefix}-*"):
        with claimed(stale) as is_ours:
            if is_ours:
                shutil.rmtree(stale, ignore_errors=True)
    folder = parent / f"{prefix}-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        with claimed(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
