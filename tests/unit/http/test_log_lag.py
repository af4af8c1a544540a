"""Lag in records and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from materializers.materializer import Scope
from queryd.log_lag import EndHistory, Lag, LogLag

KEY = ("tidal.signals", 0)
OTHER = ("tidal.signals", 1)


class NoTables:
    """Tables before the first partition."""

    def partitions(self, scope: Scope) -> Sequence[int]:
        return ()

    def applied(self, scope: Scope, partition: int) -> Mapping[str, int]:
        return {}


def history(*ends: int, every_ms: int = 1000) -> EndHistory:
    """One partition's end, seen once a second from time 0 on."""
    seen = EndHistory()
    for index, end in enumerate(ends):
        seen.add(index * every_ms, {KEY: end})
    return seen


def test_nothing_is_known_before_the_first_look() -> None:
    assert EndHistory().lag({}, 5) == Lag(None, None)


@pytest.mark.parametrize(
    ("applied", "lag"),
    [
        (29, Lag(0, 0)),
        (35, Lag(0, 0)),
        (28, Lag(1, 1500)),
        (19, Lag(10, 1500)),
        (18, Lag(11, 2500)),
        (-1, Lag(30, 2500)),
    ],
)
def test_behind_as_long_as_the_newest_end_that_was_passed_is_old(applied: int, lag: Lag) -> None:
    """Ends 10, 20, 30 at 0, 1 and 2 s; read at 2.5 s."""
    assert history(10, 20, 30).lag({KEY: applied}, 2500) == lag


def test_an_idle_log_is_not_behind() -> None:
    assert history(10, 10, 10).lag({KEY: 9}, 90_000) == Lag(0, 0)


def test_every_partition_must_have_passed() -> None:
    seen = EndHistory()
    seen.add(0, {KEY: 1, OTHER: 0})
    seen.add(1000, {KEY: 1, OTHER: 5})
    assert seen.lag({KEY: 0, OTHER: 3}, 1000) == Lag(1, 1000)
    assert seen.lag({KEY: 0}, 1000) == Lag(5, 1000)


def test_the_memory_is_bounded() -> None:
    seen = EndHistory(samples_max=3)
    for second in range(100):
        seen.add(second * 1000, {KEY: second})
    assert seen.lag({KEY: -1}, 100_000) == Lag(99, 3000)


async def test_a_log_that_answers_too_late_is_noted_and_not_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own time-out is an OSError to Python: the daemon must not end of it."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def look(*arguments: object, **options: object) -> None:
        loop.call_soon_threadsafe(asked.set)
        raise TimeoutError

    monkeypatch.setattr("queryd.log_lag._look", look)
    monkeypatch.setattr("queryd.retention.look", look)
    lag = LogLag("127.0.0.1:1", "tidal", NoTables(), lambda: 1_000)
    assert lag.fault is None
    watching = asyncio.create_task(lag.run())
    await asked.wait()
    while lag.fault is None:  # noqa: ASYNC110 - the note follows the question
        await asyncio.sleep(0.001)
    assert not watching.done()
    assert "no answer in time" in (lag.fault or "")
    assert not lag.status()["reachable"]
    watching.cancel()


def test_the_lag_of_some_topics_leaves_the_others_out() -> None:
    seen = EndHistory()
    seen.add(0, {KEY: 5, ("tidal.items", 0): 9})
    applied = {KEY: 4, ("tidal.items", 0): 2}
    assert seen.lag(applied, 1_000).records == 6
    assert seen.lag(applied, 1_000, (KEY[0],)) == Lag(0, 0)
