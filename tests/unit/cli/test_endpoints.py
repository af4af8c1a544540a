"""endpoints.json."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tidal.endpoints import Endpoints, EndpointsError, read_endpoints, remove_endpoints, write_endpoints


def test_round_trip(tmp_path: Path) -> None:
    endpoints = Endpoints("http://127.0.0.1:1", "127.0.0.1:2", {"log": os.getpid()})
    assert read_endpoints(tmp_path) is None
    write_endpoints(tmp_path, endpoints)
    assert read_endpoints(tmp_path) == endpoints
    assert [path.name for path in tmp_path.iterdir()] == ["endpoints.json"]
    remove_endpoints(tmp_path)
    remove_endpoints(tmp_path)
    assert read_endpoints(tmp_path) is None


def test_what_a_killed_site_left_does_not_count(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write_endpoints(tmp_path, Endpoints("http://127.0.0.1:1", "127.0.0.1:2", {"log": ended.pid}))
    assert read_endpoints(tmp_path) is None


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text("{}")
    with pytest.raises(EndpointsError, match="tidal up"):
        read_endpoints(tmp_path)
