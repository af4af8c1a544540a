"""The built-in sort modes that are served: each a source whose score is the order."""

from __future__ import annotations

from typing import Final, NamedTuple


class SortMode(NamedTuple):
    """``window`` None: the query's own."""

    source: str
    window: str | None = None


SORT_MODES: Final[dict[str, SortMode]] = {
    "trending": SortMode("trending"),
    "new": SortMode("newest"),
    "old": SortMode("oldest"),
    "top_1h": SortMode("top", "1h"),
    "top_24h": SortMode("top", "24h"),
    "top_7d": SortMode("top", "7d"),
    "top_30d": SortMode("top", "30d"),
    "top_all": SortMode("top", "all_time"),
    "random": SortMode("random"),
}
