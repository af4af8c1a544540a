"""Kafka's own Java tools, from the jars that the tests run Kafka from."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests import kafka_server

TOOL_TIMEOUT_S = 90
TOPICS = "org.apache.kafka.tools.TopicCommand"
GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
CONFIGS = "kafka.admin.ConfigCommand"
CONSOLE_PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
VERIFIABLE_PRODUCER = "org.apache.kafka.tools.VerifiableProducer"
VERIFIABLE_CONSUMER = "org.apache.kafka.tools.VerifiableConsumer"


def java(name: str, *arguments: str, classes: Path | None = None) -> list[str]:
    """The command that runs a class."""
    reason = kafka_server.why_not()
    if reason is not None:
        pytest.skip(reason)
    path = f"{kafka_server.ensure_libs()}/*" + (f":{classes}" if classes is not None else "")
    log_level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", path, log_level, name, *arguments]


def run(name: str, *arguments: str, given: str = "") -> str:
    """What a tool prints; fails with its last words when it fails."""
    ended = subprocess.run(
        java(name, *arguments),
        input=given,
        capture_output=True,
        text=True,
        timeout=TOOL_TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-2_000:]
    return ended.stdout


def compiled(source: Path, target: Path) -> Path:
    """The folder with the classes of one source file; needs a JDK."""
    if shutil.which("javac") is None:
        pytest.skip("no javac on the PATH (a JDK is needed to compile the word count)")
    command = ["javac", "-cp", f"{kafka_server.ensure_libs()}/*", "-d", str(target), str(source)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False)
    assert ended.returncode == 0, ended.stderr
    return target
