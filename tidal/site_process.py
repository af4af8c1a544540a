"""A whole Tidal as one background process: `tidal up`, started and stopped by a program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final

from schemas.errors import TidalError
from tidal.endpoints import Endpoints, read_endpoints

START_TIMEOUT_S: Final = 60.0
# `tidal up` promises to be done within 10 s of SIGTERM.
STOP_TIMEOUT_S: Final = 15.0
POLL_S: Final = 0.05
SHOWN_LINES: Final = 15


class SiteProcessError(TidalError):
    """`tidal up` did not become ready, or did not stop."""


class SiteProcess:
    """Runs `tidal up` on a data folder while the context is open, on free ports unless told otherwise.

    In a session of its own, so that Ctrl-C in a terminal reaches only the program that started it, and that
    can stop the site in order; it ends with that program, however that ends. What it prints goes to `up.log`
    in the data folder.
    """

    def __init__(self, data: Path, *options: str) -> None:
        self._data = data
        self._options = options
        self._log_path = data / "up.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Endpoints:
        """Starts it and returns when it is ready; raises SiteProcessError, with its last words, if not."""
        self._data.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "tidal",
            "up",
            "--data",
            str(self._data),
            "--parent",
            str(os.getpid()),
        ]
        free_ports = ["--http", "127.0.0.1:0", "--log", "127.0.0.1:0"]
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*command, *free_ports, *self._options],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        try:
            return self._wait_ready()
        except BaseException:
            self._stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _wait_ready(self) -> Endpoints:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            endpoints = read_endpoints(self._data)
            if endpoints is not None:
                return endpoints
            if self._process.poll() is not None:
                raise SiteProcessError(
                    f"`tidal up` ended with exit code {self._process.returncode}:\n{self._last_words()}"
                )
            time.sleep(POLL_S)
        raise SiteProcessError(
            f"`tidal up` was not ready after {START_TIMEOUT_S:.0f} s; logs: {self._data / 'logs'}:\n"
            f"{self._last_words()}"
        )

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise SiteProcessError(
                f"`tidal up` did not stop within {STOP_TIMEOUT_S:.0f} s and was killed:\n{self._last_words()}"
            ) from None

    def _last_words(self) -> str:
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-SHOWN_LINES:])
