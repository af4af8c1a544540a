"""A disk that is full ends nothing of `tidal up` by itself, and is named."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NamedTuple

import pytest

from tidal import stack
from tidal.child_output import ChildOutput
from tidal.endpoints import Endpoints, read_endpoints
from tidal.stack import Stack, StackPlan


class Usage(NamedTuple):
    """Of a disk."""

    free: int


def test_what_a_child_prints_is_dropped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "child.log").symlink_to("/dev/full")
    output = ChildOutput(tmp_path / "child.log")
    output.write(b"lost\n")
    assert output.tail() == "lost\n"
    (tmp_path / "child.log").unlink()
    output._file = (tmp_path / "child.log").open("ab", buffering=0)
    output.write(b"kept\n")
    output.write(b"too\n")
    output.close()
    assert (tmp_path / "child.log").read_text() == "(5 bytes could not be written here)\nkept\ntoo\n"


async def test_pids_that_cannot_be_written_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    said: list[str] = []
    up = Stack(StackPlan(tmp_path, "127.0.0.1:0", "127.0.0.1:0"), said.append)
    up._endpoints = Endpoints("http://127.0.0.1:1", "127.0.0.1:2", {})
    with monkeypatch.context() as patched:
        patched.setattr(stack, "write_endpoints", full)
        up._publish_endpoints()
    assert said == ["the pids in endpoints.json are old: No space left on device"]
    up._publish_endpoints()
    assert (tmp_path / "endpoints.json").exists()
    assert read_endpoints(tmp_path) is None  # no process of it lives
    await up.stop()


@pytest.mark.parametrize(
    ("brokers", "free_mib", "is_named"), [(None, 90, True), (None, 300, False), ("k:1", 9, False)]
)
async def test_a_start_that_waits_names_a_low_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brokers: str | None, free_mib: int, is_named: bool
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(free_mib << 20))
    up = Stack(StackPlan(tmp_path, "127.0.0.1:0", "127.0.0.1:0", brokers), lambda _: None)
    assert ("90 MiB are free, and the log takes no records" in up._progress()) == is_named
    await up.stop()
