"""The supervisor with real, tiny child processes: order, readiness, restarts, ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tidal import supervisor
from tidal.supervisor import ChildSpec, Supervisor, SupervisorError

READY_THEN_SLEEP = """
import json, os, signal, sys, time
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
def leave(*_):
    with open(os.path.join(os.path.dirname(path), "order"), "a") as file:
        print(os.path.basename(path), file=file)
    time.sleep(0.1)
    sys.exit(0)
path = arguments["--ready-file"]
signal.signal(signal.SIGTERM, leave)
with open(path + ".tmp", "w") as file:
    json.dump({"pid": os.getpid(), "address": arguments.get("--listen", "127.0.0.1:4711")}, file)
os.replace(path + ".tmp", path)
time.sleep(60)
"""
DEAF = READY_THEN_SLEEP.replace(
    "signal.signal(signal.SIGTERM, leave)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
)
FAILS = "import sys; print('no such folder', file=sys.stderr); sys.exit(1)"
WRONG_USAGE = "import sys; print('unknown option', file=sys.stderr); sys.exit(2)"


def spec(name: str, script: str = READY_THEN_SLEEP, stage: int = 0) -> ChildSpec:
    """A child that runs `script`; its former address is passed on as --listen."""

    def command(address: str | None) -> Sequence[str]:
        listen = ("--listen", address) if address is not None else ()
        return (sys.executable, "-c", script, *listen)

    return ChildSpec(name, command, stage)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_FIRST_S", 0.05)
    monkeypatch.setattr(supervisor, "STOP_S", 1.0)
    monkeypatch.setattr(supervisor, "READY_POLL_S", 0.01)


@asynccontextmanager
async def running(folder: Path, *specs: ChildSpec) -> AsyncIterator[tuple[Supervisor, list[str]]]:
    """A supervisor with these children ready, and what it has reported."""
    said: list[str] = []
    supervised = Supervisor(folder / "run", folder / "logs", said.append, lambda: None)
    try:
        await supervised.start(specs)
        yield supervised, said
    finally:
        await supervised.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition; the test's own time limit bounds it."""
    while not condition():  # noqa: ASYNC110 - other processes set no events of ours
        await asyncio.sleep(0.01)


async def test_children_are_ready_when_start_returns(tmp_path: Path) -> None:
    async with running(tmp_path, spec("a"), spec("b")) as (supervised, _):
        assert set(supervised.pids()) == {"a", "b"}
        assert supervised.address("a") == "127.0.0.1:4711"


async def test_a_killed_child_is_started_again_at_its_old_address(tmp_path: Path) -> None:
    async with running(tmp_path, spec("a")) as (supervised, said):
        before = supervised.pids()["a"]
        os.kill(before, signal.SIGKILL)
        await until(lambda: any("is ready again" in line for line in said))
        assert supervised.pids()["a"] != before
        assert supervised.address("a") == "127.0.0.1:4711"
        assert any("a died (signal SIGKILL); starting it again in 0.05 s" in line for line in said)


async def test_stages_stop_in_reverse_order(tmp_path: Path) -> None:
    async with running(tmp_path, spec("log", stage=0)) as (supervised, _):
        await supervised.start([spec("worker", stage=1), spec("queryd", stage=1)])
        pids = supervised.pids()
        await supervised.stop()
        order = (tmp_path / "run" / "order").read_text().split()
    assert sorted(order[:2]) == ["queryd.ready", "worker.ready"]
    assert order[2] == "log.ready"
    assert not any(_alive(pid) for pid in pids.values())


async def test_a_child_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_S", 0.1)
    async with running(tmp_path, spec("deaf", DEAF)) as (supervised, said):
        pid = supervised.pids()["deaf"]
        await supervised.stop()
        assert not _alive(pid)
        assert any("did not stop within" in line for line in said)


async def test_a_stopped_child_can_be_ended(tmp_path: Path) -> None:
    async with running(tmp_path, spec("a")) as (supervised, said):
        pid = supervised.pids()["a"]
        os.kill(pid, signal.SIGSTOP)
        await supervised.stop()
        assert not _alive(pid)
        assert not any("killed" in line for line in said)


@pytest.mark.parametrize(("script", "attempts"), [(FAILS, 3), (WRONG_USAGE, 1)])
async def test_a_child_that_never_becomes_ready_fails_the_start(
    tmp_path: Path, script: str, attempts: int
) -> None:
    with pytest.raises(SupervisorError, match="before it was ready") as raised:
        async with running(tmp_path, spec("bad", script), spec("good")):
            pytest.fail("the start did not fail")
    words = "no such folder" if script is FAILS else "unknown option"
    assert words in str(raised.value)
    assert (tmp_path / "logs" / "bad.log").read_text().count(words) == attempts


async def test_a_long_start_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STILL_WAITING_S", 0.05)
    said: list[str] = []
    supervised = Supervisor(
        tmp_path / "run", tmp_path / "logs", said.append, lambda: None, lambda: "half of the rows"
    )
    starting = asyncio.create_task(supervised.start([spec("a", "import time; time.sleep(60)")]))
    await until(lambda: any("a is not ready yet" in line and "half of the rows" in line for line in said))
    starting.cancel()
    await supervised.stop()


async def test_a_ready_file_of_another_process_does_not_count(tmp_path: Path) -> None:
    silent = "import time; time.sleep(60)"
    supervised = Supervisor(tmp_path / "run", tmp_path / "logs", lambda _: None, lambda: None)
    starting = asyncio.create_task(supervised.start([spec("a", silent)]))
    await until(lambda: bool(supervised.pids()))
    (tmp_path / "run" / "a.ready").write_text('{"pid": 1, "address": null}')
    done, _ = await asyncio.wait({starting}, timeout=0.2)
    assert not done
    starting.cancel()
    await supervised.stop()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
