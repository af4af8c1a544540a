"""An embedded log in a process of its own: started, killed, started again on the same port."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class LogProcess:
    """`python -m streams.embedded` on a data folder. The port stays over restarts."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.address = "127.0.0.1:0"
        self._errors = data_dir.parent / f"{data_dir.name}.err"
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it listens; raises RuntimeError with its last words when it does not."""
        command = [sys.executable, "-m", "streams.embedded"]
        with self._errors.open("a") as errors:
            self._process = subprocess.Popen(
                [*command, "--data", str(self.data_dir), "--listen", self.address],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("listening on "):
            self._process.wait(10)
            raise RuntimeError(self._errors.read_text()[-2_000:])
        self.address = line.split()[-1]

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(10)

    def close(self) -> None:
        """After a test, however it ended: nothing of it stays."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
