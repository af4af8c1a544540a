"""The arithmetic of lifts, and comparisons of cohorts as the engine makes them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from queryd.compare import lifts
from queryd.engine import Engine
from queryd.errors import CohortTooSmall, QueryError
from tests.engine_site import HOUR_MS, NOW_MS, Site, running, small_schema

US, DE = "locale:US", "locale:DE"


def test_a_lift_by_hand() -> None:
    """(40.5/4000.5) / (18.5/9000.5), and 1.96 standard errors of its logarithm."""
    found = lifts(np.array([40]), np.array([18]), 4000, 9000)
    error = math.sqrt(1 / 40.5 - 1 / 4000.5 + 1 / 18.5 - 1 / 9000.5)
    assert found.lift[0] == pytest.approx(40.5 / 4000.5 * 9000.5 / 18.5)
    assert math.log(found.high[0] / found.lift[0]) == pytest.approx(1.959964 * error)
    assert found.low[0] * found.high[0] == pytest.approx(found.lift[0] ** 2)


def test_lifts_at_the_edges_are_finite_and_symmetric() -> None:
    counts = np.array([0, 0, 3, 7])
    others = np.array([0, 4, 0, 7])
    there, back = lifts(counts, others, 7, 7), lifts(others, counts, 7, 7)
    assert np.isfinite([there.lift, there.low, there.high]).all()
    assert there.lift == pytest.approx(1 / back.lift)
    assert there.low == pytest.approx(1 / back.high)
    assert (there.low <= there.lift).all()


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of 4,000 draws with a known ratio, 95 % lie within, whatever the rates."""
    draws = np.random.default_rng(7)
    for rate_a, rate_b in ((0.05, 0.05), (0.02, 0.01), (0.2, 0.4)):
        a, b = draws.binomial(800, rate_a, 4_000), draws.binomial(1_500, rate_b, 4_000)
        found = lifts(a, b, 800, 1_500)
        covered = (found.low <= rate_a / rate_b) & (rate_a / rate_b <= found.high)
        assert covered.mean() > 0.94


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """US likes piano, DE likes cello, both see news; two of everything an hour ago, the rest now."""
    site = Site(tmp_path, small_schema(limits={"min_cohort_size": 2}))
    for number in range(10):
        site.user(f"us_{number}", locale="US", age=20)
        site.user(f"de_{number}", locale="DE", age=30)
    site.user("only", locale="FR")
    plays = {"us": {"piano": 8, "cello": 1, "news": 6}, "de": {"piano": 1, "cello": 9, "news": 6, "rare": 1}}
    for place, items in plays.items():
        for item, count in items.items():
            for number in range(count):
                ago_ms = 2 * HOUR_MS if number < 2 else 0
                site.signal("view", item, f"{place}_{number}", ago_ms=ago_ms)
    site.signal("view", "gone", "us_1")
    site.delete_item("gone")
    site.flush()
    async with running(site) as engine:
        yield engine


async def test_items_by_lift(engine: Engine) -> None:
    found = await engine.compare_cohorts(US, DE, "view", "24h")
    assert [each.id for each in found.results] == ["piano", "news", "cello"]
    best = found.results[0]
    assert (best.rank, best.count_a, best.count_b) == (1, 8, 1)
    assert (found.a.events, found.b.events, found.a.users, found.b.users) == (16, 17, 10, 10)
    assert (best.rate_a, best.rate_b) == (8 / 16, 1 / 17)
    assert best.lift == pytest.approx(8.5 / 16.5 * 17.5 / 1.5)
    assert best.lift_low < best.lift < best.lift_high
    assert (found.items_compared, found.items_left_out) == (3, 1)  # "rare"; what is deleted is never listed
    assert (found.confidence, found.estimator, found.at) == (0.95, "exact", NOW_MS)
    assert found.warnings == []


async def test_seldom_counted_items_are_listed_when_asked_for(engine: Engine) -> None:
    found = await engine.compare_cohorts(DE, US, "view", "24h", min_count=1, limit=2)
    assert [each.id for each in found.results] == ["cello", "rare"]
    assert (found.items_compared, found.items_left_out) == (4, 0)


async def test_a_past_time_is_compared_as_it_was(engine: Engine) -> None:
    found = await engine.compare_cohorts(US, DE, "view", "24h", at=NOW_MS - HOUR_MS, min_count=1)
    counts = {each.id: (each.count_a, each.count_b) for each in found.results}
    assert counts == {"piano": (2, 1), "cello": (1, 2), "news": (2, 2), "rare": (0, 1)}


async def test_what_is_said_of_comparisons_that_tell_little(engine: Engine) -> None:
    overlapping = await engine.compare_cohorts(US, "age:18-24", "view")
    assert any("overlap" in warning for warning in overlapping.warnings)
    idle = await engine.compare_cohorts(US, DE, "like")
    assert idle.results == []
    assert sum("nothing to compare" in warning for warning in idle.warnings) == 2


async def test_what_cannot_be_compared_is_refused_by_name(engine: Engine) -> None:
    for given, words in (
        ({"a": US, "b": "locle:DE"}, "in b; expected|did you mean 'locale'"),
        ({"a": US, "b": DE, "signal": "vew"}, "did you mean 'view'"),
        ({"a": US, "b": DE, "window": "25h"}, "did you mean '24h'"),
        ({"a": US, "b": DE, "at": NOW_MS + 1}, "future"),
        ({"a": "", "b": DE}, "empty"),
    ):
        with pytest.raises(QueryError, match=words):
            await engine.compare_cohorts(**given)  # type: ignore[arg-type]
    for pair in ((US, "locale:FR"), ("locale:FR", US)):
        with pytest.raises(CohortTooSmall, match="locale = FR"):
            await engine.compare_cohorts(*pair)
