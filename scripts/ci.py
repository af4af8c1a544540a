"""What `.ci/run` runs in a clean clone: everything that must hold.

Two lanes, one for each core that a small machine has, take part after part. A part that still runs when all
must have ended is interrupted and has failed, so that a run always ends by itself and says how far it came.
Every line of output begins with the name of its part; the summary at the end repeats what failed. What parts
leave running is stopped.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHOLE_S = 26 * 60
"""All parts have ended by then; CI gives a run 30 minutes."""
GRACE_S = 60.0
"""From the interruption to SIGKILL: pytest says where it was and stops its servers."""
LANES = 2
CLOSING = re.compile(r"^=+ .*(?:passed|failed|error).* =+$")
FAILED = re.compile(r"^(?:FAILED|ERROR) ")
MARK = "TIDAL_CI"
"""Of the environment of all that parts start."""
LOOKS = 2
"""So often nothing must be found: a process that is just being executed has no environment to read."""


@dataclass
class Part:
    """A command and, once it ran, its outcome."""

    name: str
    command: Sequence[str]
    status: int | None = None
    seconds: float = 0.0
    closing: str = ""
    failures: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.status is None:
            return "NOT RUN"
        return "ok" if self.status == 0 else f"FAILED (exit {self.status})"


# The longest first: the lanes then end at about the same time.
PARTS = (
    Part("kafka", ("make", "kafka-test")),
    Part("test", ("make", "test")),
    Part("slow", ("make", "crash", "TESTS=tests --ignore=tests/e2e")),
    Part("slow-e2e", ("make", "crash", "TESTS=tests/e2e")),
    Part("demo", ("make", "demo")),
    Part("demo-again", ("make", "demo")),
    Part("check", ("make", "check")),
)


class Run:
    """The parts in their lanes, until `deadline_s` of the monotonic clock."""

    def __init__(self, parts: Sequence[Part], deadline_s: float) -> None:
        self._parts = parts
        self._waiting = deque(parts)
        self._deadline_s = deadline_s
        self._running: set[subprocess.Popen[str]] = set()
        self._printing = threading.Lock()

    def finish(self, lanes: int) -> None:
        """Run every part; returns when all have ended."""
        threads = [threading.Thread(target=self._lane, daemon=True) for _ in range(lanes)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._waiting.clear()
            for process in list(self._running):
                _interrupt(process)
            raise

    def _lane(self) -> None:
        while True:
            try:
                part = self._waiting.popleft()
            except IndexError:
                return
            if time.monotonic() < self._deadline_s:
                self._run(part)

    def _run(self, part: Part) -> None:
        began_s = time.monotonic()
        self._print(part, f"$ {' '.join(part.command)}")
        process = subprocess.Popen(
            part.command,
            cwd=ROOT,
            env={**os.environ, "CI": "true", MARK: str(os.getpid()), "PYTEST_ADDOPTS": "--durations=10"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._running.add(process)
        reader = threading.Thread(target=self._follow, args=(part, process), daemon=True)
        reader.start()
        try:
            process.wait(max(0.0, self._deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._print(part, f"not ended when all had to be ({WHOLE_S / 60:.0f} min): interrupted")
            _interrupt(process)
        reader.join(GRACE_S)  # what the part left running may hold its output open
        self._running.discard(process)
        part.status = process.returncode
        part.seconds = time.monotonic() - began_s

    def _follow(self, part: Part, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.rstrip()
            self._print(part, text)
            if CLOSING.match(text):
                part.closing = text.strip("= ")
            if FAILED.match(text):
                part.failures.append(text)

    def _print(self, part: Part, text: str) -> None:
        with self._printing:
            print(f"{part.name:<10} │ {text}", flush=True)


def _interrupt(process: subprocess.Popen[str]) -> None:
    """SIGINT to the group of a part, and SIGKILL when that does not end it."""
    _signal_group(process, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def install_tools() -> None:
    """A JDK and Maven for the real Kafka, and kcat, where they are missing and can be installed.

    Without them `make kafka-test` fails by itself, and kcat's tests are skipped and say so.
    """
    wanted = {"javac": "default-jdk-headless", "mvn": "maven", "kcat": "kcat"}
    missing = [package for tool, package in wanted.items() if shutil.which(tool) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"ci: not installed, and cannot be here: {', '.join(missing)}", flush=True)
        return
    subprocess.run(["apt-get", "-qq", "update"], check=False)
    for package in missing:
        subprocess.run(["apt-get", "-qq", "install", "-y", "--no-install-recommends", package], check=False)


def stop_leftovers() -> list[str]:
    """SIGKILL to whatever parts have left running; their commands."""
    stopped: list[str] = []
    looks_left = LOOKS
    while looks_left:
        found = _marked()
        looks_left = looks_left - 1 if not found else LOOKS
        for pid, command in found.items():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            stopped.append(command)
        time.sleep(0.1)  # until they are gone
    return stopped


def _marked() -> dict[int, str]:
    """Commands by pid of the running processes that parts have started, whoever is their parent by now."""
    wanted = f"{MARK}={os.getpid()}".encode()
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
        except OSError:
            continue  # it has just ended, or is somebody else's
    return found


def summary(parts: Sequence[Part]) -> str:
    """A line for each part, then what failed in them."""
    lines = ["", "===== summary"]
    lines += [f"{part.name:<10} {part.verdict:<18} {part.seconds:5.0f} s  {part.closing}" for part in parts]
    lines += [f"{part.name}: {failure}" for part in parts for failure in part.failures]
    return "\n".join(lines)


def main() -> int:
    """0 when every part passed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    deadline_s = time.monotonic() + WHOLE_S
    setup = Part("setup", ("make", "setup"))
    parts = (setup, *PARTS)
    try:
        install_tools()
        Run([setup], deadline_s).finish(1)
        if setup.status == 0:
            Run(PARTS, deadline_s).finish(LANES)
    finally:
        left = stop_leftovers()
        print(summary(parts))
        for command in left:
            print(f"was left running, and stopped: {command[:200]}")
    return 0 if all(part.status == 0 for part in parts) else 1


if __name__ == "__main__":
    sys.exit(main())
