"""Relative trending of random logs, cohorts and times equals a plain recount."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queryd.execute.context import Context
from queryd.execute.measure import Counted
from queryd.execute.measures import MEASURES
from queryd.execute.report import Report
from queryd.hot.bucket_reads import Scope
from queryd.hot.history import HistoryCache
from queryd.hot.reads import SignalReads
from queryd.language.parse import parse_query
from queryd.plan.plan import Plan
from queryd.plan.planner import make_plan
from schemas.cohort_profile import parse_profile
from schemas.durations import DAY_MS, HOUR_MS, MINUTE_MS
from schemas.predicate import check as check_predicate
from schemas.predicate import parse_predicate
from schemas.predicate_match import matches_profile
from tests.column_reader import ColumnReader
from tests.engine_site import Site, small_schema
from tests.oracle.relative import Score, relative_scores

SCHEMA = small_schema()
ITEMS = tuple("abcde")
USERS = {
    "us": {"locale": "US", "age": 20},
    "de": {"locale": "DE", "age": 20},
    "ca": {"locale": "CA", "age": 40},
}
COHORTS = (None, "locale:US", "age:18-24 AND NOT locale:US", "locale:CA OR NOT age:18-24", "locale:FR")
WINDOWS = ("1h", "24h", "7d")

# Counts at the same hour of many days are what is compared: so most events lie near whole days ago.
AGES_MS = st.one_of(
    st.integers(0, 110).map(lambda minutes: minutes * MINUTE_MS),
    st.tuples(st.integers(0, 36), st.integers(-90, 90)).map(
        lambda place: max(0, place[0] * DAY_MS + place[1] * MINUTE_MS)
    ),
    st.integers(0, 60 * DAY_MS),
)
BURSTS = st.lists(
    st.tuples(st.sampled_from(ITEMS), st.sampled_from(["us", "de", "ca", ""]), AGES_MS, st.integers(1, 15)),
    min_size=1,
    max_size=16,
)
STEPS = st.lists(
    st.tuples(BURSTS, st.sampled_from([0, 20 * MINUTE_MS, 3 * HOUR_MS, DAY_MS])), min_size=1, max_size=3
)
CREATED = st.dictionaries(st.sampled_from(ITEMS), st.integers(0, 40 * DAY_MS))


class Reader(ColumnReader):
    """Merges what it moves out of memory, and reads the past ``cells_at_once``."""

    def __init__(self, site: Site, cells_at_once: int) -> None:
        super().__init__(site)
        self.hot.history = HistoryCache(cells_at_once=cells_at_once)

    def expire(self) -> None:
        super().expire()
        for cube in (self.hot.everybody, self.hot.by_profile):
            for _ in cube.tidy():
                pass

    def scores(self, window: str, cohort: str | None, at_ms: int) -> dict[str, Score]:
        """Scores of the items with an event in the window, once all of the past is read."""
        clause = f" COHORT {cohort}" if cohort else ""
        plan = make_plan(parse_query(f"RETRIEVE items SORT BY trending_relative{clause}"), SCHEMA)
        for _ in range(40):
            context = self._context(plan, at_ms)
            measure, of = MEASURES["trending_relative"], Counted((SCHEMA.signal_index["view"],), window)
            rows = np.flatnonzero(measure.qualifying(context, of)).astype(np.uint32)
            found = measure.score(context, of, rows)
            if not found.notes["unread"]:
                break
        assert not found.notes["unread"]
        parts = [found.parts[name] for name in ("expected", "deviation", "windows")]
        columns = zip(found.scores.tolist(), *(part.tolist() for part in parts), strict=True)
        ids = (self.hot.items.ordinals.ids[row] for row in rows.tolist())
        return {id_: Score(*values) for id_, values in zip(ids, columns, strict=True)}

    def _context(self, plan: Plan, at_ms: int) -> Context:
        return Context(
            plan=plan,
            hot=self.hot,
            reads=self.reads(at_ms),
            users=None,
            text=None,
            vectors=None,
            titles=None,
            report=Report(0.0),
            at_ms=at_ms,
            seed=0,
            shown=np.zeros(0, dtype=np.uint32),
        )


def recount(
    site: Site, created_ms: dict[str, int], window: str, cohort: str | None, at_ms: int
) -> dict[str, Score]:
    predicate = None if cohort is None else check_predicate(parse_predicate(cohort), SCHEMA)
    profiles = {event.profile for event in site.events}
    members = {
        text for text in profiles if predicate is None or matches_profile(predicate, parse_profile(text))
    }
    events = [
        (event.item, event.ts_ms)
        for event in site.events
        if event.kind == "view" and event.profile in members
    ]
    return relative_scores(events, created_ms, window, at_ms, site.now_ms)


def check(reader: Reader, created_ms: dict[str, int], window: str, cohort: str | None, at_ms: int) -> None:
    expected = recount(reader.site, created_ms, window, cohort, at_ms)
    found = reader.scores(window, cohort, at_ms)
    assert found.keys() == expected.keys()
    for item, score in expected.items():
        assert found[item] == pytest.approx(score, rel=1e-9, abs=1e-9), (item, window, cohort)


@settings(max_examples=12)
@given(STEPS, CREATED, st.data())
def test_scores_at_any_time_in_any_cohort_equal_a_recount(
    steps: list, ages_ms: dict[str, int], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        site = Site(Path(folder), SCHEMA)
        for user, record in USERS.items():
            site.user(user, **record)
        created_ms = {item: site.now_ms - age_ms for item, age_ms in ages_ms.items()}
        for item in ITEMS:
            site.item(item, **({"created_at": created_ms[item]} if item in created_ms else {}))
        site.flush()
        follower = Reader(site, cells_at_once=data.draw(st.sampled_from([0, 10_000])))
        follower.load()
        for bursts, passed_ms in steps:
            for item, user, age_ms, count in bursts:
                for _ in range(count):
                    site.signal("view", item, user, ago_ms=age_ms)
            site.flush()
            follower.follow()
            cohort, window = data.draw(st.sampled_from(COHORTS)), data.draw(st.sampled_from(WINDOWS))
            check(follower, created_ms, window, cohort, site.now_ms)
            site.now_ms += passed_ms
            follower.expire()
            check(follower, created_ms, window, cohort, site.now_ms)
        late = Reader(site, cells_at_once=10_000)
        late.load()
        at_ms = site.now_ms - data.draw(st.integers(0, 45 * 24)) * HOUR_MS
        for reader in (follower, late):
            for cohort in COHORTS:
                check(reader, created_ms, data.draw(st.sampled_from(WINDOWS)), cohort, at_ms)


def test_what_is_kept_of_the_past_is_bounded(tmp_path: Path) -> None:
    site = Site(tmp_path, SCHEMA)
    for hours in range(30 * 24 + 12):
        site.signal("view", "a", "", ago_ms=hours * HOUR_MS)
    site.flush()
    reader = Reader(site, cells_at_once=10_000)
    reader.load()
    reader.scores("1h", None, site.now_ms)
    one = reader.hot.history.nbytes
    reader.hot.history = HistoryCache(bytes_max=3 * one)
    for hours in range(12):
        reader.scores("1h", None, site.now_ms - hours * HOUR_MS)
        assert reader.hot.history.nbytes <= 3 * one
    assert len(reader.hot.history) == 3


def test_a_large_past_is_read_by_several_queries_newest_first(tmp_path: Path) -> None:
    site = Site(tmp_path, SCHEMA)
    for days in range(30):
        site.signal("view", "a", "", ago_ms=days * DAY_MS)
    site.flush()
    reader = Reader(site, cells_at_once=0)
    reader.load()
    view, windows = SCHEMA.signal_index["view"], []
    for _ in range(30):
        reads = SignalReads(reader.hot, reader.cold, site.now_ms, site.now_ms)
        windows.append(reads.past(view, "1h", Scope()).windows)
        assert reads.past(view, "1h", Scope()).windows == windows[-1], "one query has one past"
    assert windows == [*range(29), 28]
