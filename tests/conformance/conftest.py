"""The fixtures `log` and `topic`: each expectation is held against the embedded log and a real Apache Kafka.

A test that is itself marked `kafka` needs Java for its client and runs with `-m kafka` on both.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests import brokers
from tests.brokers import Broker, BrokerPool
from tests.conformance.clients import create


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each log."""
    if "log" in metafunc.fixturenames:
        metafunc.parametrize("log", _variants(metafunc.config), indirect=True, scope="module")


def _variants(config: pytest.Config) -> list[Any]:
    names = brokers.chosen(config)
    if names is not None:
        return list(names)
    return ["embedded", pytest.param("kafka", marks=pytest.mark.kafka)]


@pytest.fixture(scope="module")
def log(request: pytest.FixtureRequest, broker_pool: BrokerPool) -> Broker:
    """A running log, one for the tests of a file."""
    return broker_pool.clean_broker(request.param)


@pytest.fixture
def topic(log: Broker, request: pytest.FixtureRequest) -> str:
    """A topic of four partitions, named after the test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    create(log, name, 4)
    return name
