"""A worker whose log is gone ends when it is told to, whatever it was doing."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from streams.topics import SIGNALS
from tests.brokers import EmbeddedBroker
from tests.crash.site import Site

NAME = "worker-0"
PARTITIONS = 4
# What the worker promises is ten; a busy machine needs some to start and end processes.
ENDS_WITHIN_S = 15.0


@pytest.fixture
def dead_log(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """A log of our own, which will not come back."""
    found = EmbeddedBroker(tmp_path)
    yield found
    found.kill()


@pytest.fixture
def site(dead_log: EmbeddedBroker, tmp_path: Path) -> Iterator[Site]:
    found = Site(dead_log, tmp_path, PARTITIONS)
    found.create_topics()
    yield found
    found.close()


def _publish(site: Site, events: int) -> None:
    producer = Producer({"bootstrap.servers": site.broker.bootstrap})
    for number in range(events):
        value = {"kind": "view", "user": f"u{number % 50}", "item": f"i{number % 20}"}
        producer.produce(SIGNALS, json.dumps(value).encode(), key=f"u{number % 50}")
    producer.flush()


def _ends(site: Site, codes: tuple[int, ...] = (0,)) -> None:
    child = site._children[NAME]
    child.terminate()
    try:
        child.wait(ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        pytest.fail(f"it still runs: {site.tail(NAME)}")
    assert child.returncode in codes, site.tail(NAME)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("silent_s", [0.0, 4.0])
def test_it_ends_in_the_middle_of_folding(site: Site, dead_log: EmbeddedBroker, silent_s: float) -> None:
    site.start_worker(NAME)
    site.wait_until_owned(PARTITIONS)
    _publish(site, 20_000)
    dead_log.kill()
    time.sleep(silent_s)
    _ends(site)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_it_ends_while_it_waits_for_a_log_that_never_came(site: Site, dead_log: EmbeddedBroker) -> None:
    dead_log.kill()
    site.start_worker(NAME)
    time.sleep(3.0)
    _ends(site, (0, -signal.SIGTERM))  # so early, nobody has said yet what a signal does
