"""`tidal worker` alone: how it ends says why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schemas.settings import TopicSettings
from streams.admin import init_topics
from streams.topics import all_topics
from tests.brokers import Broker
from tests.server_process import ROOT

READY_S = 40.0
STOP_S = 15.0
PARTITIONS = 2


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow)]
)
def test_the_exit_code_tells_ctrl_c_from_a_stop(
    broker: Broker, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    init_topics(broker.bootstrap, all_topics(TopicSettings(partitions=PARTITIONS)))
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "tidal", "worker", "--data", str(tmp_path / "data"), "--name", "w"]
    with (tmp_path / "out").open("wb") as output:
        worker = subprocess.Popen(
            [*command, "--brokers", broker.bootstrap, "--ready-file", str(ready)],
            cwd=ROOT,
            env={**os.environ, "TIDAL_TOPICS_PARTITIONS": str(PARTITIONS)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline_s = time.monotonic() + READY_S
        while not ready.exists():
            assert worker.poll() is None, (tmp_path / "out").read_text()
            assert time.monotonic() < deadline_s, (tmp_path / "out").read_text()
            time.sleep(0.05)
        worker.send_signal(number)
        assert worker.wait(STOP_S) == code, (tmp_path / "out").read_text()
    finally:
        worker.kill()
        worker.wait()
