"""SIGKILL for the processes of a running site, and waiting until they are as they were."""

from __future__ import annotations

import os
import signal

from tests.e2e.test_up import Site, until
from tidal.client import Client
from tidal.client_errors import ClientError

BACK_S = 90.0
KILLED = ("worker-0", "queryd-0")


def kill_worker_and_queryd(site: Site) -> None:
    """Returns when both run again, have applied the whole log and leave nothing out of an answer."""
    before = site.ready()["pids"]
    for name in KILLED:
        os.kill(before[name], signal.SIGKILL)
    until(lambda: _as_it_was(site, before), BACK_S, site.said)


def _as_it_was(site: Site, before: dict[str, int]) -> bool:
    endpoints = site.endpoints()
    if endpoints is None or any(endpoints["pids"].get(name) in (None, before[name]) for name in KILLED):
        return False
    try:
        with Client(endpoints["http"], retries=0) as client:
            if not client.readiness().ready or client.status().log["lag_records"] != 0:
                return False
            return client.query("RETRIEVE items USING PROFILE trending").degraded == []
    except ClientError:
        return False
