"""The embedded log as one object: opens a data folder, serves it, closes it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from streams.embedded.broker import Broker
from streams.embedded.commit import GroupCommit
from streams.embedded.errors import ListenError, LogFolderError
from streams.embedded.housekeeping import Housekeeping
from streams.embedded.metadata import Guard
from streams.embedded.security import Security, check_exposure
from streams.embedded.server import Server
from streams.embedded.settings import LogSettings

if TYPE_CHECKING:
    from streams.embedded.metrics import MetricsServer

logger = logging.getLogger(__name__)

_DEFAULTS = LogSettings()


class FolderLock:
    """An exclusive lock on a data folder; the kernel drops it when the process dies."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "lock"
        self._fd = -1

    def acquire(self) -> None:
        """Raises LogFolderError when another log has the folder."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            self._fd = -1
            raise LogFolderError(
                f"{self._path.parent} is in use by another log (process {owner}); stop it or take another"
            ) from error
        # For the message above only: a full disk must not keep a log from serving what it has.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class EmbeddedLog:
    """A single-node log that speaks the Kafka protocol.

    data_dir: made if missing, locked while the log runs.
    host, port: where to listen; port 0 takes a free one.
    security: certificate and users; without them the log listens on loopback only.
    guards: groups that retention waits for.
    metrics: host and port for Prometheus; `metrics_port` tells which, if it was 0.
    advertise: HOST or HOST:PORT that clients are told to connect to, if it is not where the log listens.
    """

    def __init__(
        self,
        data_dir: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        settings: LogSettings = _DEFAULTS,
        *,
        security: Security | None = None,
        advertise: str = "",
        guards: Sequence[Guard] = (),
        metrics: tuple[str, int] | None = None,
    ) -> None:
        self.data_dir = Path(data_dir)
        # "localhost" may mean two addresses, and a free port of one need not be free on the other.
        self.host = "127.0.0.1" if host == "localhost" else host
        self.port = port
        self.settings = settings
        self._security = security
        self._advertise = advertise
        self._guards = guards
        self._metrics_address = metrics
        self.metrics_port = 0
        self._metrics: MetricsServer | None = None
        self._lock = FolderLock(self.data_dir)
        self._commit: GroupCommit | None = None
        self._broker: Broker | None = None
        self._server: Server | None = None
        self._housekeeping: Housekeeping | None = None

    @property
    def address(self) -> str:
        """host:port for clients."""
        host, port = self._advertised()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _advertised(self) -> tuple[str, int]:
        host, _, port = self._advertise.rpartition(":")
        if not host or not port.isdecimal():
            host, port = self._advertise, ""
        return host.strip("[]") or self.host, int(port) if port else self.port

    async def start(self) -> None:
        """Recover what is on disk, then listen.

        Raises LogFolderError when the folder is in use or cannot be written, ListenError for an address
        that others reach without a login or a certificate of no use, OSError when the port is taken.
        """
        check_exposure(self.host, self._advertise, self._security)
        started = time.perf_counter()
        self._prepare_folder()
        try:
            self._commit = GroupCommit(self.settings.sync_threads, self.settings.commit_interval_ms)
            self._broker = Broker(self.data_dir, self.settings, self._commit, self._guards)
            await self._broker.transactions.recover()
            await self._commit.barrier()
            self._server = Server(self._broker, self._security)
            self.port = await self._server.start(self.host, self.port)
            self._broker.host, self._broker.port = self._advertised()
            self._housekeeping = Housekeeping(self._broker)
            self._housekeeping.start()
            await self._start_metrics(self._broker, self._server)
        except BaseException:
            await self.stop()
            raise
        logger.info(
            "log %s: %d partitions ready after %.0f ms, listening on %s",
            self.data_dir, self._broker.topics.count(), (time.perf_counter() - started) * 1000, self.address,
        )  # fmt: skip

    async def _start_metrics(self, broker: Broker, server: Server) -> None:
        if self._metrics_address is None:
            return
        from streams.embedded.metrics import MetricsServer

        host, port = self._metrics_address
        self._metrics = MetricsServer(broker, server)
        try:
            self.metrics_port = await self._metrics.start(host, port)
        except OSError as error:
            raise ListenError(f"metrics at {host}:{port}: {error.strerror or error}") from error

    async def stop(self) -> None:
        """Write out what is pending and close; safe to call twice."""
        if self._metrics is not None:
            self._metrics.stop()
        if self._housekeeping is not None:
            await self._housekeeping.stop()
        if self._server is not None:
            await self._server.stop()
        if self._commit is not None:
            await self._commit.close()
        if self._broker is not None:
            self._broker.close()
        self._metrics = self._housekeeping = self._server = self._broker = self._commit = None
        self._lock.release()

    def _prepare_folder(self) -> None:
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise LogFolderError(f"{self.data_dir} cannot be used as a data folder: {error}") from error
        _raise_file_limit()


def run(log: EmbeddedLog, on_ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve a log until SIGTERM or SIGINT. Blocks; on_ready gets the address once it listens."""
    uvloop.run(_serve(log, on_ready))


async def _serve(log: EmbeddedLog, on_ready: Callable[[str], None]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await log.start()
    try:
        on_ready(log.address)
        await stopping.wait()
    finally:
        await log.stop()


def _raise_file_limit() -> None:
    """Active segments stay open, so many partitions need more files than many systems' soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(hard, 8192)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
