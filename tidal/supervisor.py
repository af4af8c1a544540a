"""Runs child processes for `tidal up`: starts them in order, restarts what dies, stops them in reverse.

The contract with a child has three parts. It is told a *ready file*, which it writes once it serves; the file
names its pid and, where it listens, its address. It is told the supervisor's pid and dies with it. SIGTERM
asks it to finish its work and leave.

Children run in process groups of their own, because Ctrl-C in a terminal reaches the whole foreground group
at once, and then the log would be gone before the workers had written their last checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from schemas.errors import TidalError
from tidal.child_output import ChildOutput

READY_POLL_S = 0.05
"""How often the ready file is looked for: a restart is noticed within this, and a stat costs microseconds."""
STILL_WAITING_S = 10.0
"""How often a start that takes long is mentioned."""
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
STEADY_S = 60.0
"""A child that ran this long has recovered: its next death starts the back-off anew."""
START_ATTEMPTS_MAX = 3
"""Deaths before the first readiness after which `up` gives up: such a child will not get better by itself."""
USAGE_EXIT_CODE = 2
STOP_S = 5.5
"""Patience with each stage of a stop. Two stages (readers and workers, then the log) stay within the 10 s
that `tidal up` promises, with time left for killing what does not listen."""
KILL_S = 2.0
PUMP_END_S = 1.0

Report = Callable[[str], None]


class SupervisorError(TidalError):
    """A child could not be started, or the folder is in use."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to run one child.

    `command` is called at each start with the address that the child had before, or None the first time: a
    child that took a free port takes the same one again. `stage` orders starting (low first) and stopping
    (high first); children of one stage start and stop together.
    """

    name: str
    command: Callable[[str | None], Sequence[str]]
    stage: int


@dataclass(slots=True)
class Child:
    """A supervised process and what is known about it."""

    spec: ChildSpec
    ready_file: Path
    output: ChildOutput
    process: asyncio.subprocess.Process | None = None
    address: str | None = None
    state: Literal["starting", "ready", "waiting", "stopped"] = "starting"
    deaths: int = 0
    was_ready: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The pid while the process lives."""
        if self.process is None or self.process.returncode is not None:
            return None
        return self.process.pid


class Supervisor:
    """Keeps children alive: `start` them, wait for `failed` or a signal of your own, `stop` them."""

    def __init__(
        self,
        run_dir: Path,
        log_dir: Path,
        report: Report,
        on_change: Callable[[], None],
        progress: Callable[[], str] = str,
    ) -> None:
        """`progress` says, while a start takes long, how far it is."""
        self._progress = progress
        self._run_dir = run_dir
        self._log_dir = log_dir
        self._report = report
        self._on_change = on_change
        self._children: dict[str, Child] = {}
        self._stopping = False
        self.failed = asyncio.Event()

    def address(self, name: str) -> str | None:
        """Where the child listens, as it said itself."""
        return self._children[name].address

    def pids(self) -> dict[str, int]:
        """Pids of the children that live, by name."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    async def start(self, specs: Sequence[ChildSpec]) -> None:
        """Starts the children and returns when all of them are ready.

        Raises SupervisorError, with the child's last words, when one keeps dying before it is ready.
        """
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._log_dir.mkdir(parents=True, exist_ok=True)
        waits = [asyncio.create_task(self._await_ready(self._launch(spec))) for spec in specs]
        try:
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()

    async def stop(self) -> None:
        """Stops everything, highest stage first; whoever does not leave in time is killed."""
        self._stopping = True
        for stage in sorted({child.spec.stage for child in self._children.values()}, reverse=True):
            children = [child for child in self._children.values() if child.spec.stage == stage]
            await asyncio.gather(*(self._stop_child(child) for child in children))

    def _launch(self, spec: ChildSpec) -> Child:
        child = Child(
            spec=spec,
            ready_file=self._run_dir / f"{spec.name}.ready",
            output=ChildOutput(self._log_dir / f"{spec.name}.log"),
        )
        self._children[spec.name] = child
        child.keeper = asyncio.create_task(self._keep(child), name=f"keep {spec.name}")
        child.keeper.add_done_callback(partial(self._keeper_ended, child))
        return child

    def _keeper_ended(self, child: Child, keeper: asyncio.Task[None]) -> None:
        """A keeper ends by itself only if its child never became ready, which `start` reports, or by a
        defect."""
        if self._stopping or keeper.cancelled():
            return
        self.failed.set()
        error = keeper.exception()
        if error is not None and child.was_ready.is_set():
            self._report(f"{child.spec.name} is not supervised any more: {error}")

    async def _await_ready(self, child: Child) -> None:
        assert child.keeper is not None
        ready = asyncio.create_task(child.was_ready.wait())
        started = time.monotonic()
        try:
            while True:
                done, _ = await asyncio.wait(
                    {ready, child.keeper}, timeout=STILL_WAITING_S, return_when=asyncio.FIRST_COMPLETED
                )
                if ready in done:
                    return
                if child.keeper in done:
                    child.keeper.result()
                    raise SupervisorError(f"{child.spec.name} ended before it was ready")
                self._say_waiting(child, time.monotonic() - started)
        finally:
            ready.cancel()

    def _say_waiting(self, child: Child, waited_s: float) -> None:
        why = self._progress() or f"its log: {child.output.path}"
        self._report(f"{child.spec.name} is not ready yet after {waited_s:.0f} s; {why}")

    async def _keep(self, child: Child) -> None:
        """Runs the child again and again until the supervisor stops."""
        backoff_s = BACKOFF_FIRST_S
        while not self._stopping:
            started = time.monotonic()
            code = await self._run_once(child)
            if self._stopping:
                break
            child.deaths += 1
            child.state = "waiting"
            self._on_change()
            if not child.was_ready.is_set() and (
                code == USAGE_EXIT_CODE or child.deaths >= START_ATTEMPTS_MAX
            ):
                raise SupervisorError(_did_not_start(child, code))
            if time.monotonic() - started >= STEADY_S:
                backoff_s = BACKOFF_FIRST_S
            self._report(
                f"{child.spec.name} died ({describe_exit(code)}); starting it again in {backoff_s:g} s"
            )
            await asyncio.sleep(backoff_s)
            backoff_s = min(BACKOFF_MAX_S, backoff_s * 2)
        child.state = "stopped"

    async def _run_once(self, child: Child) -> int:
        child.state = "starting"
        child.ready_file.unlink(missing_ok=True)
        command = [*child.spec.command(child.address), "--ready-file", str(child.ready_file)]
        command += ["--parent", str(os.getpid())]
        child.process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        assert child.process.stdout is not None
        watcher = asyncio.create_task(self._watch_readiness(child, child.process.pid))
        pump = asyncio.create_task(child.output.pump(child.process.stdout))
        try:
            code = await child.process.wait()
            # Bounded: something that the child started could still hold its end of the pipe.
            await asyncio.wait({pump}, timeout=PUMP_END_S)
            return code
        finally:
            watcher.cancel()
            pump.cancel()

    async def _watch_readiness(self, child: Child, pid: int) -> None:
        while True:
            announced = read_ready_file(child.ready_file)
            if announced is not None and announced.get("pid") == pid:
                break
            await asyncio.sleep(READY_POLL_S)
        child.address = announced.get("address")
        child.state = "ready"
        again = child.was_ready.is_set()
        child.was_ready.set()
        self._on_change()
        if again:
            self._report(f"{child.spec.name} is ready again (pid {pid})")

    async def _stop_child(self, child: Child) -> None:
        process = child.process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            # A stopped process (SIGSTOP) takes no SIGTERM until it is continued.
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            if not await _leaves(process, STOP_S):
                self._report(f"{child.spec.name} did not stop within {STOP_S:g} s and is killed")
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await _leaves(process, KILL_S)
        if child.keeper is not None:
            child.keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError, SupervisorError):
                await child.keeper
        child.ready_file.unlink(missing_ok=True)
        child.output.close()
        child.state = "stopped"


async def _leaves(process: asyncio.subprocess.Process, patience_s: float) -> bool:
    try:
        await asyncio.wait_for(process.wait(), patience_s)
    except TimeoutError:
        return False
    return True


def read_ready_file(path: Path) -> Mapping[str, Any] | None:
    """What a child has announced, or None while it has not. The file appears whole (by a rename)."""
    try:
        announced = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return announced if isinstance(announced, dict) else None


def describe_exit(code: int) -> str:
    """`signal SIGKILL` or `exit code 1`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _did_not_start(child: Child, code: int) -> str:
    last_words = child.output.tail().strip() or "(it printed nothing)"
    return (
        f"{child.spec.name} ended with {describe_exit(code)} before it was ready; its last output:\n"
        f"{last_words}\nThe whole of it is in {child.output.path}"
    )
