"""Pages and ledgers of decayed scores: linear, permanent, of cohorts, and as of a past time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.durations import DAY_MS, HOUR_MS
from tests.engine_site import Site, ids, running, scores, small_schema

WINDOWS = ["1h", "24h", "7d", "30d", "all_time"]


def profile(**term: Any) -> dict[str, Any]:
    return {
        "signal": "view",
        "window": "30d",
        "sources": [{"source": "trending", "limit": 50}],
        "terms": [{"term": "signal", "read": "decay", **term}],
        "normalize": "none",
    }


SCHEMA = small_schema(
    signals={
        "view": {"decay": {"exponential": ["24h"]}, "windows": WINDOWS},
        "warmth": {"decay": {"linear": "4d"}, "windows": WINDOWS},
        "tally": {"decay": "none", "windows": WINDOWS},
    },
    profiles={
        "trending": {"sources": ["trending"], "terms": [{"term": "base"}]},
        "warm": profile(signal="warmth"),
        "warm_here": profile(signal="warmth", half_life="4d", scope="cohort"),
        "tallied": profile(signal="tally"),
        "viewed_here": profile(signal="view", half_life="24h", scope="cohort"),
        "viewed": profile(signal="view", half_life="24h"),
    },
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path, SCHEMA)
    site.user("us", locale="US")
    site.user("de", locale="DE")
    for number in range(12):
        item = f"item_{number:02}"
        site.item(item, title=item, creator=f"creator_{number % 3}")
        for turn in range(number % 5 + 1):
            user = "us" if (number + turn) % 2 else "de"
            site.signal("view", item, user, ago_ms=turn * 7 * HOUR_MS + number * 60_000)
            site.signal("warmth", item, user, ago_ms=(turn * 29 + number) * HOUR_MS, weight=number + 1)
            site.signal("tally", item, user, ago_ms=turn * DAY_MS, weight=turn - 1)
    site.flush()
    return site


def warmth(site: Site, at_ms: int, locale: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for event in site.events:
        if event.kind == "warmth" and locale in event.profile and event.ts_ms <= at_ms:
            left = max(0.0, 1 - (at_ms - event.ts_ms) / (4 * DAY_MS))
            found[event.item] = found.get(event.item, 0.0) + event.weight / 1e6 * left
    return found


def best(expected: dict[str, float]) -> list[str]:
    return sorted(expected, key=lambda item: (-expected[item], item))


async def test_linear_decay_ranks_and_is_told_by_ledgers(site: Site) -> None:
    now_ms = site.now_ms
    async with running(site, follow=True) as engine:
        page = await engine.query("RETRIEVE items USING PROFILE warm LIMIT 20")
        here = await engine.query("RETRIEVE items USING PROFILE warm_here COHORT locale:US LIMIT 20")
        ledger: Any = await engine.ledger("item", "item_07", "warmth")
        creator: Any = await engine.ledger("creator", "creator_1", "warmth", cohort="locale:US")
        site.now_ms += 3 * HOUR_MS
        later = await engine.query("RETRIEVE items USING PROFILE warm LIMIT 20")
        site.signal("warmth", "item_00", "us", weight=500)
        site.flush()
        await engine.feeder.step()
        after = await engine.query("RETRIEVE items USING PROFILE warm LIMIT 20")
    everybody, american = warmth(site, now_ms), warmth(site, now_ms, "US")
    assert scores(page) == {item: pytest.approx(everybody[item], abs=1e-9) for item in everybody}
    assert ids(page) == best(everybody)
    viewed_by_us = {event.item for event in site.events if event.kind == "view" and "US" in event.profile}
    assert scores(here) == {item: pytest.approx(american.get(item, 0.0), abs=1e-9) for item in viewed_by_us}
    assert ledger.decay == {"4d": pytest.approx(everybody["item_07"], abs=1e-9)}
    mine = sum(american.get(f"item_{number:02}", 0.0) for number in (1, 4, 7, 10))
    assert creator.decay == {"4d": pytest.approx(mine, abs=1e-9)}
    aged = warmth(site, now_ms + 3 * HOUR_MS - 1)  # without the last event
    assert scores(later) == {item: pytest.approx(aged[item], abs=1e-5) for item in aged}
    assert ids(after)[0] == "item_00"
    assert scores(after)["item_00"] == pytest.approx(aged["item_00"] + 500, abs=1e-5)


async def test_what_does_not_fade_is_the_permanent_sum(site: Site) -> None:
    async with running(site, follow=True) as engine:
        page = await engine.query("RETRIEVE items USING PROFILE tallied LIMIT 20")
        ledger: Any = await engine.ledger("item", "item_09", "tally")
        past: Any = await engine.ledger("item", "item_09", "tally", at=site.now_ms - 2 * DAY_MS)
    sums: dict[str, float] = {}
    for event in site.events:
        if event.kind == "tally":
            sums[event.item] = sums.get(event.item, 0.0) + event.weight / 1e6
    assert scores(page) == sums
    assert (ledger.decay, ledger.resolution) == ({"all_time": sums["item_09"]}, "exact")
    assert (past.decay, past.resolution) == ({"all_time": 1.0 + 2.0 + 3.0}, "1h")


async def test_decay_of_a_cohort_is_placed_to_the_hour(site: Site) -> None:
    async with running(site, follow=True) as engine:
        page = await engine.query("RETRIEVE items USING PROFILE viewed_here COHORT locale:US LIMIT 20")
        ledger: Any = await engine.ledger("item", "item_08", "view", cohort="locale:US")
    expected: dict[str, float] = {}
    for event in site.events:
        if event.kind == "view" and "US" in event.profile:
            left = 2.0 ** (-(site.now_ms - event.ts_ms) / DAY_MS)
            expected[event.item] = expected.get(event.item, 0.0) + left
    assert scores(page) == {item: pytest.approx(expected[item], rel=0.015) for item in expected}
    assert any("placed to the hour" in warning for warning in page.warnings)
    assert ledger.decay == {"24h": pytest.approx(expected["item_08"], rel=0.015)}
    assert ledger.resolution == "1h"


async def test_as_of_serves_decay_and_says_how_exact_it_is(site: Site) -> None:
    at_ms = site.now_ms - 15 * HOUR_MS
    async with running(site, follow=True) as engine:
        page = await engine.query(f"RETRIEVE items USING PROFILE viewed AS OF {at_ms} LIMIT 20")
        warm = await engine.query(f"RETRIEVE items USING PROFILE warm AS OF {at_ms} LIMIT 20")
        some = await engine.query(
            f"RETRIEVE items USING PROFILE viewed FILTER view.decay(24h) >= 0.9 AS OF {at_ms} LIMIT 20"
        )
        quiet: Any = await engine.ledger("item", "item_05", "view", at=site.now_ms - 60_000)
    expected: dict[str, float] = {}
    for event in site.events:
        if event.kind == "view" and event.ts_ms <= at_ms:
            expected[event.item] = expected.get(event.item, 0.0) + 2.0 ** (-(at_ms - event.ts_ms) / DAY_MS)
    found = {item: score for item, score in scores(page).items() if score > 0}
    assert found == {item: pytest.approx(expected[item], rel=0.015) for item in expected}
    assert any("summed from buckets" in warning for warning in page.warnings)
    assert scores(some) == {item: score for item, score in found.items() if score >= 0.9}
    assert 0 < len(some.results) < len(found), "a filter reads the decay of that time as well"
    then = warmth(site, at_ms)
    cut = 13 * HOUR_MS / (4 * DAY_MS)  # no bucket of an hour weighs more than one event of 12
    assert scores(warm) == {item: pytest.approx(then.get(item, 0.0), abs=cut) for item in scores(warm)}
    # Nothing came after that minute: the accumulator tells it to the last digit.
    exact = 2.0 ** (-(4 * 60_000) / DAY_MS)
    assert quiet.decay == {"24h": pytest.approx(exact, rel=1e-12)}
    assert quiet.resolution == "exact"
