"""The `broker` fixture: the same tests on every log that Tidal can run on.

| variant | what | runs |
|---|---|---|
| embedded | `python -m streams.embedded` as a child process, one for the session | always |
| kafka | a real Apache Kafka (tests/kafka_server.py), one for the session | `-m kafka` |
| container | Redpanda by testcontainers, one for the session | `--brokers=container` |
| external | the cluster at TIDAL_TEST_BROKERS; deletes its topics tidal* | `--brokers=external` |

`--brokers=embedded,kafka` (or TIDAL_TEST_VARIANTS) names the variants to run, whatever `-m` says of kafka. A
test that is itself marked `kafka` runs on that variant only. Each test finds a log without topics.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests import kafka_server
from tests.kafka_server import KafkaServer
from tests.server_process import ServerProcess, free_port

VARIANTS = ("embedded", "kafka", "container", "external")
EMBEDDED_START_TIMEOUT_S = 20
READY_TIMEOUT_S = 30
REDPANDA_IMAGE = "docker.redpanda.com/redpandadata/redpanda:v24.2.7"


class Broker(Protocol):
    """A running log. `kill` is SIGKILL; `restart` brings it back on the same address with the same data."""

    variant: str
    bootstrap: str
    can_restart: bool

    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...

    def restart(self) -> None: ...

    def close(self) -> None: ...


class EmbeddedBroker:
    """The embedded log in a process of its own, on a port that stays."""

    variant = "embedded"
    can_restart = True

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.bootstrap = f"127.0.0.1:{port}"
        command = self.command(folder / "log", port)
        self._server = ServerProcess(command, port, folder / "log.out", EMBEDDED_START_TIMEOUT_S)
        self._server.start()

    def command(self, data: Path, port: int) -> list[str]:
        """What serves the log in ``data``."""
        arguments = ["--data", str(data), "--listen", f"127.0.0.1:{port}"]
        return [sys.executable, "-m", "streams.embedded", *arguments]

    @property
    def pid(self) -> int:
        return self._server.pid

    def kill(self) -> None:
        self._server.kill()

    def restart(self) -> None:
        self._server.kill()
        self._server.start()

    def close(self) -> None:
        self._server.stop()


class KafkaBroker:
    """A real Kafka."""

    variant = "kafka"
    can_restart = True

    def __init__(self, folder: Path) -> None:
        self._server = KafkaServer(folder)
        self.bootstrap = f"127.0.0.1:{self._server.port}"
        self._start()

    @property
    def pid(self) -> int:
        return self._server.pid

    def kill(self) -> None:
        self._server.kill()

    def restart(self) -> None:
        self._server.kill()
        self._start()

    def close(self) -> None:
        self._server.kill()  # its orderly shutdown takes seconds, and nobody needs the data

    def _start(self) -> None:
        self._server.start()
        wait_until_ready(self.bootstrap)


class FixedBroker:
    """A log that the tests do not manage: a container or somebody's cluster."""

    can_restart = False

    def __init__(self, variant: str, bootstrap: str) -> None:
        self.variant = variant
        self.bootstrap = bootstrap

    @property
    def pid(self) -> int:
        raise RuntimeError(f"the {self.variant} broker is no process of ours")

    def kill(self) -> None:
        pytest.skip(f"the {self.variant} broker cannot be killed")

    def restart(self) -> None:
        pytest.skip(f"the {self.variant} broker cannot be restarted")

    def close(self) -> None:
        """Nothing to stop."""


def wait_until_ready(bootstrap: str) -> None:
    """Until the log answers with its brokers; raises the last error."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            if admin.list_topics(timeout=2).brokers:
                return
        except KafkaException:
            if time.monotonic() > deadline_s:
                raise
        time.sleep(0.1)


def delete_topics(bootstrap: str, prefix: str = "") -> None:
    """Delete every topic that is not internal and starts with `prefix`, and wait until they are gone."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while names := _deletable(admin, prefix):
        for deleted in admin.delete_topics(names, operation_timeout=READY_TIMEOUT_S).values():
            deleted.exception()
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"topics are not deleted after {READY_TIMEOUT_S} s: {names}")


def _deletable(admin: AdminClient, prefix: str) -> list[str]:
    topics = admin.list_topics(timeout=READY_TIMEOUT_S).topics
    return [name for name in topics if name.startswith(prefix) and not name.startswith("__")]


def why_not(variant: str) -> str | None:
    """Why a variant cannot run here, in one line; None if it can."""
    if variant == "kafka":
        return kafka_server.why_not()
    if variant == "container":
        socket = Path("/var/run/docker.sock")
        if not os.environ.get("DOCKER_HOST") and not socket.exists():
            return "no Docker engine (neither DOCKER_HOST nor /var/run/docker.sock)"
    if variant == "external" and not os.environ.get("TIDAL_TEST_BROKERS"):
        return "TIDAL_TEST_BROKERS is not set"
    return None


def chosen(config: pytest.Config) -> tuple[str, ...] | None:
    """The variants named by option or environment; None when none is."""
    text = config.getoption("--brokers") or os.environ.get("TIDAL_TEST_VARIANTS", "")
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = set(names) - set(VARIANTS)
    if unknown:
        raise pytest.UsageError(
            f"--brokers: no variant {', '.join(sorted(unknown))}; known: {', '.join(VARIANTS)}"
        )
    return names or None


def parameters(metafunc: pytest.Metafunc) -> list[Any]:
    """The variants of one test. Kafka's carry the mark `kafka` unless they were asked for by name."""
    names = chosen(metafunc.config)
    only_kafka = metafunc.definition.get_closest_marker("kafka") is not None
    if only_kafka:
        return ["kafka"]
    if names is not None:
        return list(names)
    return ["embedded", pytest.param("kafka", marks=pytest.mark.kafka)]


def report_line(config: pytest.Config) -> str:
    """One line for pytest's header: which variants can run, and why the others cannot."""
    able = [name for name in VARIANTS if why_not(name) is None]
    unable = [f"{name} cannot: {why_not(name)}" for name in VARIANTS if why_not(name) is not None]
    return "; ".join([f"brokers: {', '.join(able)} can run", *unable])


class BrokerPool:
    """The brokers of a session, each started when a test first needs it and shared by the tests after."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._shared: dict[str, Broker] = {}
        self._containers: list[Any] = []

    def clean_broker(self, variant: str) -> Broker:
        """A log without topics."""
        reason = why_not(variant)
        if reason is not None:
            pytest.skip(f"{variant}: {reason}")
        if variant not in self._shared:
            self._shared[variant] = self._start(variant)
        broker = self._shared[variant]
        if broker.can_restart and not _runs(broker):
            broker.restart()
        delete_topics(broker.bootstrap, "tidal" if variant == "external" else "")
        return broker

    def close(self) -> None:
        for broker in self._shared.values():
            broker.close()
        for container in self._containers:
            container.stop()

    def _start(self, variant: str) -> Broker:
        if variant == "embedded":
            return EmbeddedBroker(self._folders.mktemp("embedded"))
        if variant == "kafka":
            return KafkaBroker(self._folders.mktemp("kafka"))
        if variant == "external":
            return FixedBroker(variant, os.environ["TIDAL_TEST_BROKERS"])
        return self._start_container()

    def _start_container(self) -> Broker:
        from docker.errors import DockerException  # type: ignore[import-untyped]
        from testcontainers.kafka import RedpandaContainer

        try:
            container = RedpandaContainer(REDPANDA_IMAGE)
            container.start()
        except DockerException as error:
            pytest.skip(f"container: {type(error).__name__}: {str(error).splitlines()[0]}")
        self._containers.append(container)
        return FixedBroker("container", container.get_bootstrap_server())


def _runs(broker: Broker) -> bool:
    try:
        return broker.pid > 0
    except AssertionError:
        return False
