"""Watches the free space of the data folder's disk, so that a full disk never meets a write of ours."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)


class DiskSpace:
    """While less than the reserve is free, batches are refused; markers and offsets live on the reserve."""

    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self.is_low = False
        self.look()

    def look(self) -> None:
        """Ask the file system."""
        free = shutil.disk_usage(self._folder).free
        is_low = free < self._reserve_bytes
        if is_low and not self.is_low:
            logger.error(
                "%s: %d MB are free, %d MB are the reserve: batches are refused until there is more",
                self._folder, free >> 20, self._reserve_bytes >> 20,
            )  # fmt: skip
        elif self.is_low and not is_low:
            logger.warning("%s: %d MB are free again, batches are taken", self._folder, free >> 20)
        self.is_low = is_low
