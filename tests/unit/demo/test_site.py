"""The demo's site: deterministic, whole, and with the trend where it was planted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from schemas.errors import TidalError
from tidal.demo.activity import KINDS
from tidal.demo.site import Site, SiteSize, make_site

HOUR_MS = 3_600_000
ANCHOR_MS = 1_763_600_040_000
SMALL = SiteSize(users=400, creators=60, items=900, events=20_000, embedding_dim=16)


@pytest.fixture(scope="module")
def site() -> Site:
    return make_site(seed=7, anchor_ms=ANCHOR_MS, size=SMALL)


def test_the_same_seed_gives_the_same_site(site: Site) -> None:
    again = make_site(seed=7, anchor_ms=ANCHOR_MS, size=SMALL)
    assert again.users.records == site.users.records
    assert again.catalog.records == site.catalog.records
    for name in ("kind", "item", "user", "weight", "ts_ms"):
        np.testing.assert_array_equal(
            getattr(again.activity.events, name), getattr(site.activity.events, name), err_msg=name
        )


def test_another_seed_gives_another_site(site: Site) -> None:
    other = make_site(seed=8, anchor_ms=ANCHOR_MS, size=SMALL)
    assert other.users.records != site.users.records


def test_a_later_anchor_moves_every_event_and_nothing_else(site: Site) -> None:
    later = make_site(seed=7, anchor_ms=ANCHOR_MS + HOUR_MS, size=SMALL)
    np.testing.assert_array_equal(later.activity.events.ts_ms, site.activity.events.ts_ms + HOUR_MS)
    np.testing.assert_array_equal(later.activity.events.item, site.activity.events.item)


def test_events_lie_in_the_two_days_before_the_anchor_and_after_publication(site: Site) -> None:
    events = site.activity.events
    assert events.ts_ms.max() <= ANCHOR_MS
    assert events.ts_ms.min() > ANCHOR_MS - 48 * HOUR_MS
    assert (events.ts_ms > site.catalog.created_ms[events.item]).all()


def test_all_six_signals_occur(site: Site) -> None:
    assert set(site.activity.events.kind.tolist()) == set(range(len(KINDS)))


def test_exactly_the_duplicates_repeat(site: Site) -> None:
    events = site.activity.events
    seen = Counter(
        zip(
            events.kind.tolist(),
            events.user.tolist(),
            events.item.tolist(),
            (events.ts_ms // 1000).tolist(),
            strict=True,
        )
    )
    assert sum(count - 1 for count in seen.values()) == site.activity.duplicates > 0


def test_the_trend_is_on_top_of_its_cohort_and_not_of_the_whole(site: Site) -> None:
    events = site.activity.events
    recent = (events.kind == KINDS.index("view")) & (events.ts_ms > ANCHOR_MS - 23 * HOUR_MS)
    cohort = recent & np.isin(events.user, site.users.select("US", (18, 24)))
    of_cohort = np.bincount(events.item[cohort], minlength=SMALL.items)
    of_all = np.bincount(events.item[recent], minlength=SMALL.items)
    assert of_cohort.argmax() == site.trend.item
    assert np.partition(of_cohort, -2)[-2] < of_cohort.max()
    assert of_all.argmax() != site.trend.item


def test_u1_belongs_to_the_cohort_and_has_a_history(site: Site) -> None:
    first = site.users.records[0]
    assert (first["id"], first["locale"], first["age"]) == ("u1", "US", 21)
    events = site.activity.events
    assert (events.user == 0).sum() > 20
    assert not ((events.user == 0) & (events.item == site.trend.item)).any()


def test_embeddings_are_near_their_subject(site: Site) -> None:
    vectors = np.asarray([item["embeddings"]["content"] for item in site.catalog.records])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)
    same = site.catalog.category[:, None] == site.catalog.category[None, :]
    np.fill_diagonal(same, val=False)
    cosines = vectors @ vectors.T
    assert cosines[same].mean() > cosines[~same].mean() + 0.2


def test_every_item_names_a_creator_that_exists(site: Site) -> None:
    creators = {creator["id"] for creator in site.creators}
    assert {item["creator"] for item in site.catalog.records} <= creators


def test_a_site_without_room_for_the_trend_says_so() -> None:
    with pytest.raises(TidalError, match="make it larger"):
        make_site(seed=1, anchor_ms=ANCHOR_MS, size=SiteSize(users=1, items=3, events=10, embedding_dim=4))
