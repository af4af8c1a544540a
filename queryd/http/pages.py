"""The pages for people. Each is one file with style and script inside: nothing is loaded from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def docs_page() -> str:
    """Renders /openapi.json."""
    return _page("docs.html")


@cache
def status_page() -> str:
    """Renders /v1/status and /readyz."""
    return _page("status.html")


def _page(name: str) -> str:
    return (files("queryd.http") / name).read_text("utf-8")
