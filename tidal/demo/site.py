"""The demo's site as a whole: the same seed and anchor give the same site, down to the last event."""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

import numpy as np

from schemas.errors import TidalError
from tidal.demo.activity import Activity, Trend, make_activity
from tidal.demo.catalog import DAY_MS, Catalog, make_catalog
from tidal.demo.people import FIRST_USER, Users, make_creators, make_users

MINUTE_MS: Final = 60_000

TREND_LOCALE: Final = "US"
TREND_AGES: Final = (18, 24)
TREND_TITLE: Final = "piano tutorial"
TREND_HOURS: Final = 15.0
TREND_VIEWS_PER_VIEWER: Final = 1.8


class SiteSize(NamedTuple):
    """How large the site is; `events` is what is aimed at, the real number differs by a few per cent."""

    users: int = 2_000
    creators: int = 300
    items: int = 3_000
    events: int = 200_000
    embedding_dim: int = 384


DEFAULT_SIZE: Final = SiteSize()


class Site(NamedTuple):
    """Everything that the demo publishes, and what it expects to find again."""

    users: Users
    creators: list[dict[str, Any]]
    catalog: Catalog
    activity: Activity
    trend: Trend
    anchor_ms: int

    @property
    def trend_item(self) -> dict[str, Any]:
        """The record of the item that trends in the planted cohort."""
        return self.catalog.records[self.trend.item]


def anchor_now() -> int:
    """The instant at which a site made now ends: this minute's first millisecond, in ms since 1970."""
    return int(time.time() * 1000) // MINUTE_MS * MINUTE_MS


def make_site(seed: int, anchor_ms: int, size: SiteSize = DEFAULT_SIZE) -> Site:
    """The site of this seed, with the two days of activity that end at `anchor_ms`.

    Raises TidalError when the site is too small to hold the planted trend.
    """
    rng = np.random.default_rng(seed)
    users = make_users(rng, size.users)
    creators = make_creators(rng, size.creators)
    catalog = make_catalog(rng, size.items, creators, size.embedding_dim, anchor_ms)
    trend = _plant(users, catalog)
    activity = make_activity(rng, users, catalog, trend, size.events, anchor_ms)
    return Site(users, creators, catalog, activity, trend, anchor_ms)


def _plant(users: Users, catalog: Catalog) -> Trend:
    """The least popular piano tutorial, watched by everybody of the cohort except the user who asks."""
    viewers = users.select(TREND_LOCALE, TREND_AGES)
    viewers = viewers[viewers != users.ids.index(FIRST_USER)]
    candidates = catalog.titled(TREND_TITLE)
    old_enough = candidates[catalog.created_ms[candidates] < catalog.created_ms.max() - 2 * DAY_MS]
    if not len(viewers) or not len(old_enough):
        raise TidalError(
            f"a site of {len(users.records)} users and {len(catalog.records)} items has no place for the "
            f"planted trend ({TREND_TITLE!r} in {TREND_LOCALE} {TREND_AGES}): make it larger"
        )
    item = int(old_enough[np.argmin(catalog.popularity[old_enough])])
    return Trend(viewers, item, TREND_HOURS, TREND_VIEWS_PER_VIEWER)
