"""These tests write thousands of small logs and cut no power: a disk would only cost time."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
FREE_BYTES_MIN = 2 << 30


@pytest.fixture(autouse=True, scope="module")
def no_disk() -> Iterator[None]:
    """No sync, and temporary folders in memory where the machine has room there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        patch.setattr(os, "fdatasync", lambda fd: None)
        if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= FREE_BYTES_MIN:
            patch.setattr(tempfile, "tempdir", str(MEMORY))
        yield


@pytest.fixture
def tmp_path(no_disk: None) -> Iterator[Path]:
    """Like pytest's, but gone when the test is over."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
