"""`tidal up` as data and steps: which processes make a whole Tidal on one machine, in which order."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queryd.http.restores import unfinished
from schemas.errors import TidalError
from streams.embedded.settings import LogSettings
from tidal.endpoints import Endpoints, remove_endpoints, write_endpoints
from tidal.supervisor import ChildSpec, Report, Supervisor

LOG_STAGE = 0
WORK_STAGE = 1
LOCK_NAME = "up.lock"
_TIDAL = (sys.executable, "-m", "tidal")

_CHILD_ENVIRONMENT = {
    # One process for each core is how this scales; threads inside numpy would only take the cores away.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}


class StackError(TidalError):
    """The stack cannot start."""


@dataclass(frozen=True, slots=True)
class StackPlan:
    """What to run.

    Addresses are HOST:PORT, port 0 takes a free one; `brokers` names a cluster to use instead of the embedded
    log.
    """

    data: Path
    http: str
    log: str
    brokers: str | None = None
    schema: Path | None = None
    keys: Path | None = None
    workers: int = 1
    queryds: int = 1


def check_free(address: str, option: str) -> None:
    """Raises StackError when something else listens at HOST:PORT: better now than by a child later."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise StackError(
                f"cannot listen on {address}: {error.strerror}; stop what uses it, or choose another {option}"
            ) from error


class FolderClaim:
    """This folder belongs to one `tidal up`; the kernel ends the claim with the process, however it ends."""

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self._path = data / LOCK_NAME
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise StackError(
                f"{data} is in use by another `tidal up` (process {owner}); stop it, or choose another --data"
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Ends the claim."""
        os.close(self._fd)


class Stack:
    """A running `tidal up`."""

    def __init__(self, plan: StackPlan, report: Report) -> None:
        self._plan = plan
        self._report = report
        check_free(plan.http, "--http")
        if plan.brokers is None:
            check_free(plan.log, "--log")
        self._claim = FolderClaim(plan.data)
        remove_endpoints(plan.data)
        os.environ.update({k: v for k, v in _CHILD_ENVIRONMENT.items() if k not in os.environ})
        self._supervisor = Supervisor(
            plan.data / "run", plan.data / "logs", report, self._publish_endpoints, self._progress
        )
        self._endpoints: Endpoints | None = None

    @property
    def failed(self) -> asyncio.Event:
        """Set when a child cannot be kept alive."""
        return self._supervisor.failed

    async def start(self) -> Endpoints:
        """Starts everything; returns when it is ready. Raises TidalError with the reason if it cannot be."""
        plan = self._plan
        brokers = plan.brokers or await self._start_log()
        await self._init_topics(brokers)
        first = queryd_spec(plan, 0, brokers, plan.http)
        workers = [worker_spec(plan, index, brokers) for index in range(plan.workers)]
        await self._supervisor.start([*workers, first])
        http = self._supervisor.address(first.name)
        assert http is not None, "queryd announces its address"
        await self._supervisor.start([queryd_spec(plan, i, brokers, http) for i in range(1, plan.queryds)])
        self._endpoints = Endpoints(http=f"http://{http}", brokers=brokers, pids={})
        self._publish_endpoints()
        return self._endpoints

    async def stop(self) -> None:
        """Stops everything, the log last."""
        self._endpoints = None
        remove_endpoints(self._plan.data)
        await self._supervisor.stop()
        self._claim.release()

    async def _start_log(self) -> str:
        await self._supervisor.start([log_spec(self._plan)])
        address = self._supervisor.address("log")
        assert address is not None, "the log announces its address"
        self._report(f"log: ready at {address}")
        return address

    async def _init_topics(self, brokers: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *_TIDAL, "topics", "init", "--brokers", brokers,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            raise StackError(f"the topics could not be made:\n{output.decode('utf-8', 'replace').strip()}")

    def _progress(self) -> str:
        """Why the log takes no records; what workers still restore, with counts and the time that is left."""
        statuses = {path.parent.name: _status(path) for path in self._plan.data.glob("workers/*/status.json")}
        restores = unfinished(statuses, time.time_ns() // 1_000_000) if statuses else []
        return "; ".join([*self._low_disk(), *restores])

    def _low_disk(self) -> list[str]:
        """What to say when the embedded log refuses batches."""
        free, reserve = shutil.disk_usage(self._plan.data).free, LogSettings().disk_reserve_bytes
        if self._plan.brokers is not None or free >= reserve:
            return []
        least = f"the log takes no records while less than {reserve >> 20} MiB are"
        return [f"{self._plan.data}: {free >> 20} MiB are free, and {least}"]

    def _publish_endpoints(self) -> None:
        """Keeps the pids in the file right; before everything is ready there is no file."""
        if self._endpoints is None:
            return
        self._endpoints = Endpoints(self._endpoints.http, self._endpoints.brokers, self._supervisor.pids())
        try:
            write_endpoints(self._plan.data, self._endpoints)
        except OSError as error:
            # On a full disk a worker dies, and its death must not end those that still serve.
            self._report(f"the pids in endpoints.json are old: {error.strerror}")


def _status(path: Path) -> Mapping[str, Any]:
    """What a worker last wrote of itself; the file is replaced whole, so it is JSON or not there."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) else {}


def log_spec(plan: StackPlan) -> ChildSpec:
    """The embedded log. Once it has a port it keeps it: everybody else has been told."""

    def command(address: str | None) -> Sequence[str]:
        # What it announces may be another name for where it listens.
        host, _, port = plan.log.rpartition(":")
        port = port if address is None else address.rpartition(":")[2]
        return (*_TIDAL, "log", "--data", str(plan.data), "--listen", f"{host}:{port}")

    return ChildSpec("log", command, LOG_STAGE)


def worker_spec(plan: StackPlan, index: int, brokers: str) -> ChildSpec:
    """One worker."""
    name = f"worker-{index}"
    command = (*_TIDAL, "worker", "--name", name, *_shared(plan, brokers))
    return ChildSpec(name, lambda _address: command, WORK_STAGE)


def queryd_spec(plan: StackPlan, index: int, brokers: str, http: str) -> ChildSpec:
    """One queryd. All of them listen on the first one's port."""
    keys = ("--keys", str(plan.keys)) if plan.keys is not None else ()
    share = ("--share-port",) if plan.queryds > 1 else ()
    name = f"queryd-{index}"
    command = (*_TIDAL, "queryd", "--name", name, *_shared(plan, brokers), *keys, *share)
    return ChildSpec(name, lambda address: (*command, "--http", address or http), WORK_STAGE)


def _shared(plan: StackPlan, brokers: str) -> Sequence[str]:
    schema = ("--schema", str(plan.schema)) if plan.schema is not None else ()
    return ("--data", str(plan.data), "--brokers", brokers, *schema)
