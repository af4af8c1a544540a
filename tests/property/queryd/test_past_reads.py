"""Signals at any time, now or past, for everybody or a cohort: counts and scores equal a plain recount.

What is known of an event is the bucket that it lies in. Counts and sums are exact at that bucket, linear
scores but for the bucket that is leaving, exponential scores within what the bucket allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queryd.hot.bucket_reads import EVERYBODY, Scope
from queryd.hot.cold import ColdTier
from queryd.hot.loading import Loader
from schemas.durations import DAY_MS, HOUR_MS, MINUTE_MS, WINDOWS
from schemas.predicate import parse_predicate
from tests.column_reader import ColumnReader
from tests.engine_site import NOW_MS, Site, small_schema
from tests.oracle import Event

KEPT_MS = 33 * DAY_MS
FADE_MS, BLINK_MS = 7 * DAY_MS, HOUR_MS
WINDOW_NAMES = ("1h", "24h", "7d", "30d")
SCHEMA = small_schema(
    signals={
        "view": {"decay": {"exponential": ["24h"]}, "windows": [*WINDOW_NAMES, "all_time"]},
        "fade": {"decay": {"linear": "7d"}, "windows": [*WINDOW_NAMES, "all_time"]},
        "blink": {"decay": {"linear": "1h"}, "windows": [*WINDOW_NAMES, "all_time"]},
        "tally": {"decay": "none", "windows": ["24h", "all_time"]},
    },
    profiles={"trending": {"sources": ["trending"], "terms": [{"term": "base"}]}},
    limits={"hour_buckets_kept_ms": KEPT_MS},
)
KINDS = ("view", "fade", "blink", "tally")
ITEMS = ("a", "b", "c", "d")
US = Scope(parse_predicate("locale:US"))

AGES_MS = st.one_of(
    st.integers(0, 90 * MINUTE_MS),
    st.integers(0, 12 * HOUR_MS),
    st.integers(0, 9 * DAY_MS),
    st.integers(0, 80 * DAY_MS),
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from(ITEMS),
        st.sampled_from(["us", "de", ""]),
        AGES_MS,
        st.integers(1, 40),
    ),
    min_size=1,
    max_size=40,
)
PASSED_MS = st.sampled_from([0, 5 * MINUTE_MS, HOUR_MS, 3 * DAY_MS, 40 * DAY_MS])
STEPS = st.lists(st.tuples(EVENTS, PASSED_MS), min_size=1, max_size=4)


class Reader(ColumnReader):
    def mask(self, item: str) -> np.ndarray:
        mask = np.zeros(len(self.hot.items), dtype=np.bool_)
        mask[self.hot.items.ordinals.find(item)] = True
        return mask


def run(folder: Path, steps: list) -> tuple[Site, Reader, Reader]:
    """A reader that followed every flush, and one that read the tables at the end."""
    site = Site(folder, SCHEMA)
    site.user("us", locale="US")
    site.user("de", locale="DE")
    follower = Reader(site)
    follower.load()
    for events, passed_ms in steps:
        for kind, item, user, age_ms, weight in events:
            site.signal(kind, item, user, ago_ms=age_ms, weight=weight)
        for item in ITEMS:  # every partition learns the time
            site.signal("tally", item)
        site.flush()
        follower.follow()
        site.now_ms += passed_ms
    site.flush()
    follower.follow()
    late = Reader(site)
    late.load()
    return site, follower, late


class Recount:
    """What a plain loop over the events says, knowing which days are kept by the hour."""

    def __init__(self, site: Site) -> None:
        self.site = site
        newest = max(event.record_ms for event in site.events)
        self.by_hour_from = (newest - KEPT_MS) // DAY_MS

    def events(self, item: str, kind: str, scope: Scope) -> Iterator[Event]:
        for event in self.site.events:
            if (event.item, event.kind) == (item, kind) and (scope is EVERYBODY or "US" in event.profile):
                yield event

    def by_day(self, event: Event) -> bool:
        return event.ts_ms // DAY_MS < self.by_hour_from

    def bucket(self, event: Event) -> tuple[int, int]:
        length_ms = DAY_MS if self.by_day(event) else HOUR_MS
        start_ms = event.ts_ms // length_ms * length_ms
        return start_ms, start_ms + length_ms

    def has_happened(self, event: Event, at_ms: int) -> bool:
        return self.bucket(event)[0] <= at_ms

    def in_window(self, event: Event, window: str, at_ms: int, minutes: bool) -> bool:
        declared = WINDOWS[window]
        hours = max(1, declared.duration_ms // HOUR_MS)
        if self.by_day(event):
            day = at_ms // DAY_MS
            return day - -(-hours // 24) < event.ts_ms // DAY_MS <= day
        if window == "1h" and minutes:
            return 0 <= at_ms // MINUTE_MS - event.ts_ms // MINUTE_MS < 60
        unit_ms = DAY_MS if declared.bucket_ms == DAY_MS else HOUR_MS
        length = declared.buckets if declared.bucket_ms == unit_ms else 1
        return 0 <= at_ms // unit_ms - event.ts_ms // unit_ms < length


def check_counts(reader: Reader, recount: Recount, at_ms: int, scope: Scope) -> None:
    now_ms = reader.site.now_ms
    minutes = at_ms // MINUTE_MS - 59 >= now_ms // MINUTE_MS - 180
    past = at_ms // HOUR_MS < now_ms // HOUR_MS
    for item in ITEMS:
        for kind in KINDS:
            index, mask, reads = SCHEMA.signal_index[kind], reader.mask(item), reader.reads(at_ms)
            events = list(recount.events(item, kind, scope))
            known = [event for event in events if not past or recount.has_happened(event, at_ms)]
            amount = reads.of_items(index, "all_time", scope, mask)
            assert (amount.count, amount.sum) == (len(known), sum(event.weight for event in known))
            for window in WINDOW_NAMES:
                inside = [event for event in events if recount.in_window(event, window, at_ms, minutes)]
                if window == "1h" and minutes:  # what came more than two hours late has no minute
                    inside = [event for event in inside if event.record_ms - event.ts_ms <= 2 * HOUR_MS]
                amount = reads.of_items(index, window, scope, mask)
                assert (amount.count, amount.sum) == (len(inside), sum(event.weight for event in inside))
                row = int(np.flatnonzero(mask)[0])
                assert int(reads.counts(index, window, scope)[row]) == len(inside)


def check_scores(reader: Reader, recount: Recount, at_ms: int, scope: Scope) -> None:
    for item in ITEMS:
        mask, reads = reader.mask(item), reader.reads(at_ms)
        rows = np.flatnonzero(mask).astype(np.uint32)
        for kind, lifetime_ms in (("fade", FADE_MS), ("blink", BLINK_MS)):
            index = SCHEMA.signal_index[kind]
            name = SCHEMA.signals[kind].decay.scores[0]
            exact, unsure = linear_bounds(recount, item, kind, scope, at_ms, lifetime_ms)
            for found in (
                reads.decays_of(index, scope, mask)[0][name],
                float(reads.decayed(index, name, scope, rows, at_ms)[0]),
            ):
                assert found == pytest.approx(exact, abs=1e-6 + unsure)
        low, high = exponential_bounds(recount, item, scope, at_ms)
        index = SCHEMA.signal_index["view"]
        for found in (
            reads.decays_of(index, scope, mask)[0]["24h"],
            float(reads.decayed(index, "24h", scope, rows, at_ms)[0]),
        ):
            assert low - 1e-4 <= found <= high + 1e-4


def linear_bounds(
    recount: Recount, item: str, kind: str, scope: Scope, at_ms: int, lifetime_ms: int
) -> tuple[float, float]:
    """The score, and how far buckets that are leaving or not over may be from it."""
    exact = unsure = 0.0
    for event in recount.events(item, kind, scope):
        start_ms, end_ms = recount.bucket(event)
        if start_ms > at_ms:
            continue
        weight = event.weight / 1e6
        exact += weight * min(1.0, max(0.0, 1 - (at_ms - event.ts_ms) / lifetime_ms))
        whole = at_ms - lifetime_ms <= start_ms and end_ms <= at_ms
        unsure += 0.0 if whole else weight * min(1.0, (end_ms - start_ms) / lifetime_ms)
    return exact, unsure


def exponential_bounds(recount: Recount, item: str, scope: Scope, at_ms: int) -> tuple[float, float]:
    low = high = 0.0
    for event in recount.events(item, "view", scope):
        start_ms, end_ms = recount.bucket(event)
        weight, half_life_ms = event.weight / 1e6, 24 * HOUR_MS
        if start_ms > at_ms:
            continue
        high += weight * math.exp2(-max(0, at_ms - end_ms) / half_life_ms)
        # Of the bucket that holds the time, later events may be known to be later.
        low += (
            0.0
            if end_ms > at_ms and event.ts_ms > at_ms
            else weight * math.exp2(-(at_ms - start_ms) / half_life_ms)
        )
    return low, high


@settings(max_examples=15)
@given(STEPS, st.lists(AGES_MS, min_size=1, max_size=3))
def test_reads_at_any_time_equal_a_recount(steps: list, ages_ms: list[int]) -> None:
    with TemporaryDirectory() as folder:
        site, follower, late = run(Path(folder), steps)
        recount = Recount(site)
        for at_ms in [site.now_ms, *(site.now_ms - age_ms for age_ms in ages_ms)]:
            for reader in (follower, late):
                for scope in (EVERYBODY, US):
                    check_counts(reader, recount, at_ms, scope)
                    check_scores(reader, recount, at_ms, scope)


@settings(max_examples=15)
@given(STEPS)
def test_scores_of_now_are_those_of_the_events(steps: list) -> None:
    """For everybody: exponential to the last event; linear but for the bucket that is leaving."""
    with TemporaryDirectory() as folder:
        site, follower, _ = run(Path(folder), steps)
        at_ms = site.now_ms
        reads = follower.reads(at_ms)
        for item in ITEMS:
            mask = follower.mask(item)
            events = [event for event in site.events if event.item == item]
            scores, resolution_ms = reads.decays_of(SCHEMA.signal_index["view"], EVERYBODY, mask)
            expected = math.fsum(
                event.weight / 1e6 * math.exp2(-(at_ms - event.ts_ms) / DAY_MS)
                for event in events
                if event.kind == "view"
            )
            assert (scores, resolution_ms) == ({"24h": pytest.approx(expected, rel=1e-9, abs=1e-12)}, 0)
            tally = sum(event.weight for event in events if event.kind == "tally") / 1e6
            assert reads.decays_of(SCHEMA.signal_index["tally"], EVERYBODY, mask) == ({"all_time": tally}, 0)
            leaving_ms = (at_ms - FADE_MS) // HOUR_MS * HOUR_MS
            exact = leaving = 0.0
            for event in events:
                if event.kind == "fade":
                    exact += event.weight / 1e6 * max(0.0, 1 - (at_ms - event.ts_ms) / FADE_MS)
                    leaving += event.weight / 1e6 * (event.ts_ms // HOUR_MS * HOUR_MS == leaving_ms)
            found = reads.decays_of(SCHEMA.signal_index["fade"], EVERYBODY, mask)[0]["7d"]
            assert found == pytest.approx(exact, rel=1e-9, abs=1e-9 + leaving * HOUR_MS / FADE_MS / 4)


def test_reading_an_hour_of_the_past_reads_no_more_than_that(tmp_path: Path) -> None:
    site = Site(tmp_path, SCHEMA)
    for hours in range(20 * 24):
        site.signal("view", "a", ago_ms=13 * DAY_MS + hours * HOUR_MS)
    site.flush()
    reader = Reader(site)
    reader.load()
    read = reader.reads(NOW_MS - 32 * DAY_MS).of_items(0, "24h", EVERYBODY, reader.mask("a"))
    assert (read.count, read.resolution_ms) == (24, HOUR_MS)
    assert reader.cold.blocks_read == 23, "one of the hours is still in memory"
    reader.reads(NOW_MS - 32 * DAY_MS).of_items(0, "24h", EVERYBODY, reader.mask("a"))
    assert reader.cold.blocks_read == 23, "the second time it is in memory"


def test_a_read_of_long_ago_costs_the_days_that_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not those since, or the ages to come: all of it less what came later is asked for."""
    site = Site(tmp_path, SCHEMA)
    site.user("us", locale="US")
    for days in (7_000, 6_900, 6_000, 1):
        site.signal("view", "a", "us", ago_ms=days * DAY_MS)
    site.flush()
    reader = Reader(site)
    reader.load()
    scans = 0
    scan = site.tables.scan

    def counted(*arguments: object) -> object:
        nonlocal scans
        scans += 1
        return scan(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(site.tables, "scan", counted)
    for days, count in ((7_001, 0), (6_950, 1), (6_500, 2), (2, 3)):
        read = reader.reads(NOW_MS - days * DAY_MS).of_items(0, "all_time", US, reader.mask("a"))
        assert read.count == count
    assert scans < 100


def test_what_is_kept_of_the_past_is_bounded_and_a_late_event_is_seen(tmp_path: Path) -> None:
    site = Site(tmp_path, SCHEMA)
    for days in range(33, 60):
        for item in ITEMS:
            site.signal("tally", item, ago_ms=days * DAY_MS)
    site.flush()
    reader = Reader(site)
    reader.cold = ColdTier(site.tables, reader.hot, cells_max=8)
    reader.loader = Loader(site.tables, reader.hot, reader.cold, lambda _: None)
    reader.load()
    at_ms = NOW_MS - 40 * DAY_MS
    index = SCHEMA.signal_index["tally"]
    for days in range(33, 60):
        read = reader.reads(NOW_MS - days * DAY_MS).of_items(index, "24h", EVERYBODY, reader.mask("a"))
        assert read.count == 1
        assert reader.cold.cells <= 8 + len(ITEMS)
    site.signal("tally", "a", ago_ms=40 * DAY_MS)
    reader.reads(at_ms).of_items(index, "24h", EVERYBODY, reader.mask("a"))
    site.flush()
    reader.follow()
    assert reader.reads(at_ms).of_items(index, "24h", EVERYBODY, reader.mask("a")).count == 2
