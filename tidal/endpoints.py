"""Where a running `tidal up` can be reached: DIR/endpoints.json, there while everything is ready."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from schemas.errors import TidalError
from tidal.child_process import write_atomically

FILE_NAME = "endpoints.json"


class EndpointsError(TidalError):
    """The file is there and cannot be read."""


class Endpoints(msgspec.Struct, frozen=True):
    """`http` is a URL, `brokers` host:port,…, `pids` the children by name."""

    http: str
    brokers: str
    pids: dict[str, int]


def write_endpoints(data: Path, endpoints: Endpoints) -> None:
    """Writes the file atomically."""
    write_atomically(data / FILE_NAME, msgspec.json.format(msgspec.json.encode(endpoints)).decode() + "\n")


def remove_endpoints(data: Path) -> None:
    """Removes the file; a missing one is fine."""
    (data / FILE_NAME).unlink(missing_ok=True)


def read_endpoints(data: Path) -> Endpoints | None:
    """The endpoints of the `tidal up` that serves `data`, or None when none is running there.

    A `tidal up` that was killed leaves the file behind; one whose processes are all gone counts as none.
    """
    path = data / FILE_NAME
    try:
        endpoints = msgspec.json.decode(path.read_bytes(), type=Endpoints)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise EndpointsError(
            f"{path} cannot be read: {error}; start `tidal up` again, it writes it anew"
        ) from error
    return endpoints if any(_alive(pid) for pid in endpoints.pids.values()) else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
