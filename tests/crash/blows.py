"""What can happen to a site at 3 a.m."""

from __future__ import annotations

import random
import time

from tests.crash.proof import Blow
from tests.crash.site import SESSION_S, Site


def kill_worker(name: str) -> Blow:
    """kill -9 and an immediate restart."""

    def blow(site: Site) -> None:
        if name in site.running:
            site.kill(name)
            site.start_worker(name)

    blow.__name__ = f"kill -9 {name}"
    return blow


def kill_and_wipe_worker(name: str) -> Blow:
    """kill -9, the disk is lost, and a restart."""

    def blow(site: Site) -> None:
        if name in site.running:
            site.kill(name)
            site.wipe(name)
            site.start_worker(name)

    blow.__name__ = f"kill -9 {name} and wipe its disk"
    return blow


def kill_log() -> Blow:
    """kill -9 of the log's process, and its restart on the same folder."""

    def blow(site: Site) -> None:
        site.broker.kill()
        site.broker.restart()

    blow.__name__ = "kill -9 the log"
    return blow


def kill_queryd() -> Blow:
    """kill -9 and an immediate restart of the query daemon."""

    def blow(site: Site) -> None:
        site.kill("queryd")
        site.start_queryd()

    blow.__name__ = "kill -9 queryd"
    return blow


def join(name: str) -> Blow:
    """Another worker comes."""

    def blow(site: Site) -> None:
        site.start_worker(name)

    blow.__name__ = f"{name} joins"
    return blow


def leave(name: str) -> Blow:
    """A worker stops in order."""

    def blow(site: Site) -> None:
        site.stop(name)

    blow.__name__ = f"{name} leaves"
    return blow


def freeze(name: str, chance: random.Random) -> Blow:
    """SIGSTOP past the session, then SIGCONT: the worker comes back as a zombie."""

    def blow(site: Site) -> None:
        site.freeze(name)
        time.sleep(SESSION_S + 3 + chance.random())
        site.thaw(name)

    blow.__name__ = f"{name} is stopped past its session and continued"
    return blow
