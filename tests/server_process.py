"""A log server as a child process: started on a fixed port, killed, started again, stopped by its pid."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAIL_CHARS = 2000
STOP_S = 20.0


class ServerProcess:
    """One command that listens on 127.0.0.1:`port`; its output goes to `output`."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        output: Path,
        start_timeout_s: float,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._command = list(command)
        self._port = port
        self._output = output
        self._start_timeout_s = start_timeout_s
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running process; raises when there is none."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        """Start and wait until the port takes connections; raises RuntimeError with the end of its output."""
        assert self._process is None, "the server already runs"
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._env, stdout=output, stderr=subprocess.STDOUT
            )
        deadline_s = time.monotonic() + self._start_timeout_s
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                code = self._process.poll()
                self.kill()
                raise RuntimeError(f"server did not start (exit code {code}): {self.tail()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGTERM, then SIGKILL if it takes too long."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def tail(self) -> str:
        """The end of the output, for error messages."""
        return self._output.read_text(errors="replace")[-TAIL_CHARS:] if self._output.exists() else ""

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
