"""What every test may use: the `broker` fixture (tests/brokers.py), hypothesis profiles; how a hang ends."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests import brokers
from tests.brokers import Broker, BrokerPool

# "fast" is for every run, "thorough" for a change in an encoding or a fold. Machines differ, so no deadline.
# CI tries the same examples each time: a change is judged by what it changes. Others are found by who runs
# the tests by hand, and kept as an @example.
settings.register_profile("fast", max_examples=50, deadline=None, derandomize="CI" in os.environ)
settings.register_profile(
    "thorough", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("TIDAL_HYPOTHESIS_PROFILE", "fast"))

HANG_GRACE_S = 60.0
_STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the real standard error, which tests' is not."""
    config.stash[_STDERR] = os.dup(2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Ends the process, with the stack of every thread, when a test's time-out did not end the test: it is an
    exception in the main thread, which a call into C never sees and a task of asyncio may keep for itself."""
    mark = item.get_closest_marker("timeout")
    limit_s = float(mark.args[0] if mark is not None else item.config.getini("timeout"))
    faulthandler.dump_traceback_later(limit_s + HANG_GRACE_S, exit=True, file=item.config.stash[_STDERR])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_addoption(parser: pytest.Parser) -> None:
    """--brokers."""
    parser.addoption(
        "--brokers",
        default="",
        help=f"run the tests of the broker fixture on these variants: {', '.join(brokers.VARIANTS)}",
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Which brokers can run here."""
    return brokers.report_line(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each broker variant."""
    if "broker" in metafunc.fixturenames:
        metafunc.parametrize("broker", brokers.parameters(metafunc), indirect=True)


@pytest.fixture(scope="session")
def broker_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerPool]:
    """The session's brokers; all are stopped at its end."""
    pool = BrokerPool(tmp_path_factory)
    try:
        yield pool
    finally:
        pool.close()


@pytest.fixture
def broker(request: pytest.FixtureRequest, broker_pool: BrokerPool) -> Broker:
    """A running log without topics: `.bootstrap`, `.kill()`, `.restart()`, `.variant`, `.pid`."""
    return broker_pool.clean_broker(request.param)
