"""Parts of Tidal as measured child processes: their address, CPU time and peak memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from schemas.errors import TidalError
from tidal.supervisor import read_ready_file

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 20.0
POLL_S: Final = 0.02
SHOWN_CHARACTERS: Final = 2_000


class PartError(TidalError):
    """A part did not become ready, or ended by itself."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used since it started: CPU seconds of all its threads, and its peak memory."""

    cpu_s: float
    memory_bytes_max: int


class Part:
    """`tidal PART …` as a child process: `log`, `worker` or `queryd`, ready when the context is entered."""

    def __init__(self, folder: Path, part: str, *options: str) -> None:
        self.name = part
        self._ready_file = folder / f"{part}.ready"
        self._output = folder / f"{part}.out"
        self._command = [
            sys.executable,
            "-m",
            "tidal",
            part,
            *options,
            "--ready-file",
            str(self._ready_file),
            "--parent",
            str(os.getpid()),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._printed_before = 0
        self.address = ""

    def __enter__(self) -> Self:
        self._ready_file.unlink(missing_ok=True)
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._printed_before = self._output.stat().st_size if self._output.exists() else 0
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def usage(self) -> Usage:
        """CPU time and peak memory up to now."""
        return Usage(cpu_seconds(self.pid), peak_memory_bytes(self.pid))

    def printed(self) -> str:
        """What it has printed since it was started."""
        with self._output.open("rb") as output:
            output.seek(self._printed_before)
            return output.read().decode("utf-8", errors="replace")

    def check(self) -> None:
        """Raises PartError, with its last words, when it has ended."""
        assert self._process is not None, f"{self.name} is not running"
        if self._process.poll() is not None:
            raise PartError(f"{self.name} ended with {self._process.returncode}:\n{self._last_words()}")

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not listen."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            announced = read_ready_file(self._ready_file)
            if announced is not None:
                self.address = str(announced.get("address") or "")
                return
            self.check()
            time.sleep(POLL_S)
        raise PartError(f"{self.name} was not ready after {START_TIMEOUT_S:.0f} s:\n{self._last_words()}")

    def _last_words(self) -> str:
        return self.printed()[-SHOWN_CHARACTERS:]


def run_to_end(*arguments: str) -> None:
    """`tidal …` as a command that ends; raises PartError with what it printed when it fails."""
    command = [sys.executable, "-m", "tidal", *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if finished.returncode:
        raise PartError(f"tidal {' '.join(arguments)} failed:\n{finished.stdout}{finished.stderr}")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads."""
    fields = _proc(pid, "stat").rpartition(")")[2].split()
    # After the name in parentheses, utime and stime are the 12th and 13th field (proc(5): 14 and 15 of all).
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory_bytes(pid: int) -> int:
    """Peak resident memory of a process."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", _proc(pid, "status"), re.MULTILINE)
    assert found is not None, "the kernel keeps the peak of every process"
    return int(found[1]) * 1024


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise PartError(f"process {pid} is gone, or this is not Linux: benchmarks read /proc") from error
