"""The four reference queries, as they are written, each with the way to recount it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from tidal.demo.history import History
from tidal.demo.people import FIRST_USER
from tidal.demo.recount import Page, Recount
from tidal.demo.site import TREND_AGES, TREND_LOCALE

# Counts and ranks are exact. A personal page is made of float32 vectors and of decays at two instants a few
# milliseconds apart: what that moves is far below this share of the best score.
EXACT: Final = 1e-12
PERSONAL: Final = 1e-5


class ReferenceQuery(NamedTuple):
    """A query and its recount; scores may differ by `tolerance`, relative to the best one."""

    name: str
    text: str
    tolerance: float
    recount: Callable[[Recount, set[str]], Page]


def in_cohort(user: dict[str, Any]) -> bool:
    """Whether a user record belongs to `locale:US, age:18-24`."""
    low, high = TREND_AGES
    return bool(user["locale"] == TREND_LOCALE and low <= user["age"] <= high)


def cohort_of(history: History) -> set[str]:
    """Ids of the users of the cohort that the queries ask for."""
    return history.members(in_cohort)


TRENDING: Final = ReferenceQuery(
    "trending",
    "RETRIEVE items USING PROFILE trending WINDOW 24h LIMIT 25",
    EXACT,
    lambda recount, cohort: recount.trending("24h", 25),
)
COHORT_TRENDING: Final = ReferenceQuery(
    "trending in a cohort",
    "RETRIEVE items USING PROFILE trending COHORT locale:US, age:18-24 WINDOW 24h LIMIT 25",
    EXACT,
    lambda recount, cohort: recount.trending("24h", 25, cohort),
)
SEARCH: Final = ReferenceQuery(
    "search in what trends in a cohort",
    'SEARCH items QUERY "piano tutorial" WITHIN TRENDING COHORT locale:US, age:18-24 WINDOW 24h LIMIT 20',
    EXACT,
    lambda recount, cohort: recount.search("piano tutorial", "24h", 20, cohort),
)
FOR_YOU: Final = ReferenceQuery(
    "a personal page of what trends in a cohort",
    f"RETRIEVE items FOR USER @{FIRST_USER} USING PROFILE for_you FILTER unseen\n"
    "WITHIN TRENDING COHORT locale:US, age:18-24 DIVERSITY max_per_creator:2 LIMIT 50",
    PERSONAL,
    lambda recount, cohort: recount.for_you(FIRST_USER, "24h", 50, cohort, max_per_creator=2),
)
REFERENCE_QUERIES: Final = (TRENDING, COHORT_TRENDING, SEARCH, FOR_YOU)
