"""The version of this installation."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _installed_version() -> str:
    try:
        return version("tidal")
    except PackageNotFoundError:
        return "unpackaged"


VERSION = _installed_version()
