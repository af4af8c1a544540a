"""The child's side of the contract with `tidal.supervisor`: say when ready, die with the parent."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PARENT_POLL_S = 1.0


def announce_ready(ready_file: Path | None, address: str | None = None) -> None:
    """Writes the ready file, whole or not at all; does nothing for a process that nobody supervises."""
    if ready_file is not None:
        write_atomically(ready_file, json.dumps({"pid": os.getpid(), "address": address}))


def write_atomically(path: Path, text: str) -> None:
    """Replaces the file: a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)


def die_with_parent(parent: int | None) -> None:
    """Ends this process when process `parent` ends, however that happens.

    All of our processes survive a kill without loss, so the kernel's SIGKILL is as good as a goodbye and
    cannot be missed. Where the kernel offers none (macOS), a thread watches for the change of parent.
    """
    if parent is None:
        return
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True, name="parent watch").start()
    # The parent may have died before the request was in place.
    if os.getppid() != parent:
        os._exit(1)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os._exit(1)
