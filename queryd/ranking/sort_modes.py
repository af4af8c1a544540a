"""The built-in sort modes: what each measures items by, over which window, and whose events it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.durations import ALL_TIME
from schemas.sort_names import MEASURED_SOURCES, ROLES_OF_SOURCES

MEASURE_NAMES: Final = frozenset({"trending", "newest", "matching", *MEASURED_SOURCES})
"""Sources that can score any item, so that an order by them works on whatever candidates there are."""
SIGNAL_MEASURES: Final = frozenset(
    {"trending", "trending_relative", "rising", "top", "hacker", "evergreen", "creator_popularity"}
)
"""Those that count one signal, which SIGNAL and profiles choose; others count roles, or nothing."""
COUNTING_MEASURES: Final = SIGNAL_MEASURES | frozenset(ROLES_OF_SOURCES)
"""Those that count events, and do so in the scope of a query."""
WINDOWED_MEASURES: Final = COUNTING_MEASURES - {"creator_popularity"}


@dataclass(frozen=True, slots=True)
class SortMode:
    """One mode of SORT BY.

    Attributes:
        source: the measure, or for modes that are not one, the source whose score is the order.
        window: what WINDOW is when it is not given; ``fixed``: the mode's name says it, so it never is.
        role: whose signals are counted; None: SIGNAL, or what trends count.
        takes_signal: whether SIGNAL may stand in place of the role.
    """

    source: str
    window: str | None = None
    fixed: bool = False
    role: str | None = None
    takes_signal: bool = True

    @property
    def is_measure(self) -> bool:
        """Whether it scores any item."""
        return self.source in MEASURE_NAMES


def _most(role: str) -> SortMode:
    return SortMode("top", "24h", role=role, takes_signal=False)


SORT_MODES: Final[dict[str, SortMode]] = {
    "trending": SortMode("trending", "24h"),
    "trending_relative": SortMode("trending_relative", "1h"),
    "rising": SortMode("rising", "24h"),
    "hot": SortMode("hot", ALL_TIME),
    "hacker": SortMode("hacker", ALL_TIME, role="liked"),
    "new": SortMode("newest"),
    "old": SortMode("oldest"),
    "top_1h": SortMode("top", "1h", fixed=True, role="liked"),
    "top_24h": SortMode("top", "24h", fixed=True, role="liked"),
    "top_7d": SortMode("top", "7d", fixed=True, role="liked"),
    "top_30d": SortMode("top", "30d", fixed=True, role="liked"),
    "top_all": SortMode("top", ALL_TIME, fixed=True, role="liked"),
    "best": SortMode("best", ALL_TIME),
    "controversial": SortMode("controversial", ALL_TIME),
    "most_viewed": _most("viewed"),
    "most_liked": _most("liked"),
    "most_shared": _most("shared"),
    "most_saved": _most("saved"),
    "most_commented": _most("commented"),
    "completion_rate": SortMode("completion_rate", ALL_TIME),
    "dwell": SortMode("dwell", ALL_TIME),
    "hidden_gems": SortMode("hidden_gems", ALL_TIME),
    "evergreen": SortMode("evergreen", "30d"),
    "discussed": SortMode("discussed", ALL_TIME),
    "creator_popularity": SortMode("creator_popularity"),
    "following_newest": SortMode("following"),
    "personal": SortMode("preference_neighbours"),
    "relevance": SortMode("text"),
    "semantic": SortMode("item_neighbours"),
    "hybrid": SortMode(""),
    "random": SortMode("random"),
}

SEARCH_MODES: Final = ("relevance", "semantic", "hybrid")
"""Modes that are about a search: its text, its vector, and both."""
