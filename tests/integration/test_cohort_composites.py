"""Random composites over people who change: every page of the engine equals a plain count."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from tests.composites import Profile, random_composites
from tests.engine_site import HOUR_MS, NOW_MS, Site, small_schema
from tests.plain_recount import Counted, Page, Recount

VALUES = {
    "locale": ("US", "DE", "FR"),
    "gender": ("F", "M"),
    "age": ("13-17", "18-24", "25-34", "35-44", "45-54", "55+"),
}
USERS, ITEMS, EVENTS, COMPOSITES = 60, 25, 1_500, 150
WINDOWS = ("24h", "7d", "30d", "all_time")


def _site(folder: Path, draw: random.Random) -> Site:
    """Events of twelve days; every now and then somebody has other attributes, or one less."""
    site = Site(folder, small_schema())
    for number in range(EVENTS):
        if number < USERS or draw.random() < 0.1:
            user = f"u{number if number < USERS else draw.randrange(USERS)}"
            record = {name: draw.choice(VALUES[name]) for name in ("locale", "gender")}
            whole = {**record, "age": draw.randint(13, 70)}
            whole.pop(draw.choice(("locale", "gender", "age", "none")), None)
            site.user(user, **whole)
        ago_ms = min(round(abs(draw.gauss(0, 4)) * 24 * HOUR_MS), 12 * 24 * HOUR_MS)
        item, user = f"i{draw.randrange(ITEMS):02}", f"u{draw.randrange(USERS)}"
        site.signal("view", item, user, ago_ms=ago_ms)
    site.flush()
    return site


async def test_every_page_equals_a_plain_count(tmp_path: Path) -> None:
    """Of 150 composites of depth 2 to 4: now, and half of them as of a random past hour."""
    draw = random.Random(17)
    site = _site(tmp_path, draw)
    recount = Recount(
        [Counted(each.kind, each.item, each.ts_ms, json.loads(each.profile)) for each in site.events], "view"
    )
    engine = site.engine()
    await engine.start(follow=False)

    async def answered(cohort: str, window: str, at_ms: int | None) -> Page:
        query = {"retrieve": "items", "using_profile": "trending", "limit": 500}
        reply = await engine.query({**query, "cohort": cohort, "window": window, "as_of": at_ms})
        assert reply.estimator == "exact"
        return [(result.id, result.score) for result in reply.results]

    def counted(belongs: Callable[[Profile], bool], window: str, at_ms: int | None) -> Page:
        return recount.trending(window, NOW_MS if at_ms is None else at_ms, belongs)

    told = set()
    try:
        for number, each in enumerate(random_composites(23, VALUES, COMPOSITES)):
            at_ms = NOW_MS - draw.randrange(13 * 24 * HOUR_MS) if number % 2 else None
            window = draw.choice(WINDOWS)
            answer = await answered(each.text, window, at_ms)
            assert answer == counted(each.belongs, window, at_ms), (each.text, window, at_ms)
            told.add(str(answer))
    finally:
        await engine.stop()
    assert len(told) > COMPOSITES // 3  # they are not all the same few
