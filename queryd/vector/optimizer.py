"""Builds the search graph of a closed Edge shard: `python -m queryd.vector.optimizer FOLDER`.

Edge builds it with the GIL held (10,000 vectors of 384 dimensions: 1.8 s in which no other thread runs), so a
query daemon that did it in a thread would not answer meanwhile. It runs at low priority, and ends with its
parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import qdrant_edge as edge

from schemas.errors import TidalError

_NICENESS = 10
_PR_SET_PDEATHSIG = 1


class VectorIndexError(TidalError):
    """The vector index could not be optimised; it goes on without a graph, exact and slower."""


class Optimizer:
    """Runs the program on one folder at a time."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, folder: Path) -> None:
        """Optimise the shard in ``folder``, which nobody has open. Blocks, without the GIL.

        Raises:
            VectorIndexError: the child failed, or was stopped.
        """
        command = [sys.executable, "-m", "queryd.vector.optimizer", str(folder)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as self._child:  # noqa: S603
            _, said = self._child.communicate()
        if self._child.returncode != 0:
            raise VectorIndexError(
                f"{folder}: building the vector graph ended with {self._child.returncode} "
                f"({said.decode(errors='replace').strip()[-500:]}); queries go on without it, slower, "
                "and it is built after the next changes"
            )

    def stop(self) -> None:
        """End a run at once: what it works on is a copy."""
        if self._child is not None:
            self._child.kill()


def _end_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the request was in place
        sys.exit(1)


def main() -> None:
    """Optimise the folder that the command line names."""
    _end_with_parent(os.getppid())
    os.nice(_NICENESS)
    shard = edge.EdgeShard.load(sys.argv[1])
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    main()
