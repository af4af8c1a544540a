"""A worker that finds no log says so: it is no defect of the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiokafka.errors import KafkaConnectionError

from materializers import worker
from schemas.default import default_schema
from schemas.settings import Settings
from streams.errors import BrokerUnavailableError


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    policy = asyncio.get_event_loop_policy()
    yield
    asyncio.set_event_loop_policy(policy)


def test_a_log_that_goes_away_while_a_worker_starts_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(*_: object) -> None:
        raise KafkaConnectionError("Unable to bootstrap")

    monkeypatch.setattr(worker, "_run", start)
    monkeypatch.setattr(worker, "check_topics", lambda *_: [])
    monkeypatch.setattr(worker, "bound_arenas", lambda: None)
    monkeypatch.setattr("sys.setswitchinterval", lambda _: None)
    with pytest.raises(BrokerUnavailableError, match="the log went away"):
        worker.run_worker(Settings(), default_schema(), "worker-0")
