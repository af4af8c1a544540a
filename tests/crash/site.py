"""A site under attack: workers, queryd and the log, as processes to be killed, stopped and wiped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from schemas.settings import TopicSettings
from streams.admin import init_topics
from streams.topics import all_topics
from tests.brokers import Broker
from tests.crash.load import SCHEMA_FILE as SCHEMA_FILE
from tests.server_process import ROOT, free_port

STOP_S = 20.0
START_S = 60.0
SESSION_S = 6.0


class Site:
    """Processes over one log and one data folder."""

    def __init__(self, broker: Broker, folder: Path, partitions: int = 8) -> None:
        self.broker = broker
        self.folder = folder
        self.data = folder / "data"
        self.http = f"127.0.0.1:{free_port()}"
        self._partitions = partitions
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            **os.environ,
            "TIDAL_SITE_BROKERS": broker.bootstrap,
            "TIDAL_SITE_DATA_DIR": str(self.data),
            "TIDAL_SITE_SCHEMA": str(SCHEMA_FILE),
            "TIDAL_TOPICS_PARTITIONS": str(partitions),
            "TIDAL_WORKER_SESSION_TIMEOUT_S": str(SESSION_S),
            "OPENBLAS_NUM_THREADS": "1",
        }

    def create_topics(self) -> None:
        init_topics(self.broker.bootstrap, all_topics(TopicSettings(partitions=self._partitions)))

    def use_schema(self, path: Path) -> None:
        """What processes that start from now on are given."""
        self._environment["TIDAL_SITE_SCHEMA"] = str(path)

    def start_worker(self, name: str) -> None:
        command = [sys.executable, "-m", "materializers.worker", "--name", name]
        self._start(name, [*command, "--brokers", self.broker.bootstrap, "--data", str(self.data)])

    def start_queryd(self) -> None:
        command = [sys.executable, "-m", "tidal", "queryd", "--http", self.http]
        self._start("queryd", [*command, "--brokers", self.broker.bootstrap, "--data", str(self.data)])

    def kill(self, name: str) -> None:
        """SIGKILL."""
        child = self._children.pop(name)
        child.kill()
        child.wait()

    def stop(self, name: str) -> None:
        """SIGTERM; it must leave in time and in order."""
        child = self._children.pop(name)
        child.terminate()
        assert child.wait(STOP_S) == 0, f"{name} ended with {child.returncode}: {self.tail(name)}"

    def freeze(self, name: str) -> None:
        os.kill(self._children[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.kill(self._children[name].pid, signal.SIGCONT)

    def wipe(self, name: str) -> None:
        """Everything that a stopped worker had on its disk."""
        assert name not in self._children
        shutil.rmtree(self.data / "workers" / name, ignore_errors=True)

    def revive(self) -> list[str]:
        """Start again whoever has ended by itself, as a supervisor would; returns their names."""
        ended = [name for name, child in self._children.items() if child.poll() is not None]
        for name in ended:
            del self._children[name]
            self.start_queryd() if name == "queryd" else self.start_worker(name)
        return ended

    @property
    def running(self) -> list[str]:
        return [name for name in self._children if name != "queryd"]

    def close(self) -> None:
        """Kill what is left."""
        for child in self._children.values():
            child.send_signal(signal.SIGCONT)
            child.kill()
            child.wait()
        self._children.clear()

    def status(self, name: str) -> dict[str, Any]:
        """What the worker last said of itself."""
        path = self.data / "workers" / name / "status.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def tail(self, name: str, characters: int = 3000) -> str:
        return (self.folder / f"{name}.out").read_text(errors="replace")[-characters:]

    def partitions_beside(self, blow: str) -> frozenset[int]:
        """Partitions that are owned by workers which ``blow`` does not name."""
        return frozenset(
            int(partition)
            for name in self.running
            if name not in blow
            for partition in self.status(name).get("partitions", {})
        )

    def wait_until_owned(self, partitions: int) -> None:
        """Until the running workers say that all partitions are theirs."""
        deadline_s = time.monotonic() + START_S
        while sum(len(self.status(name).get("partitions", {})) for name in self.running) < partitions:
            assert time.monotonic() < deadline_s, "the workers do not take the partitions"
            time.sleep(0.1)

    def get(self, path: str) -> Any:
        """JSON of a GET on queryd."""
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as reply:
            return json.loads(reply.read())

    def wait_until_queryd_serves(self) -> None:
        self.wait_until_queryd_answers("/readyz")

    def wait_until_queryd_answers(self, path: str) -> None:
        deadline_s = time.monotonic() + START_S
        while True:
            try:
                self.get(path)
                return
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline_s, f"queryd does not answer {path}: {self.tail('queryd')}"
                time.sleep(0.1)

    def _start(self, name: str, command: list[str]) -> None:
        assert name not in self._children
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.out").open("ab") as output:
            self._children[name] = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )
