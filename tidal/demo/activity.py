"""Two days of signals for the demo's site, with a trend planted in one cohort and with duplicates."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.records.columns import EventColumns
from schemas.weights import to_micro
from tidal.demo.catalog import ACTIVITY_DAYS, DAY_MS, Catalog
from tidal.demo.people import Users

KINDS: Final = ("view", "like", "skip", "share", "completion", "dwell_time")
VIEW, LIKE, SKIP, SHARE, COMPLETION, DWELL_TIME = range(len(KINDS))

DEDUP_RESOLUTION_MS: Final = 1_000

# What share of the events is sent a second time, as a client with a shaky connection would.
DUPLICATE_SHARE: Final = 0.005

# Chances that a view is followed by each other signal; like and skip also depend on the viewer's interest.
DWELL_CHANCE: Final = 0.5
COMPLETION_CHANCE: Final = 0.3
SHARE_CHANCE: Final = 0.02
LIKE_CHANCE: Final = (0.03, 0.22)
SKIP_CHANCE: Final = (0.18, -0.16)
EVENTS_PER_VIEW: Final = 1.0 + DWELL_CHANCE + COMPLETION_CHANCE + SHARE_CHANCE + 0.09 + 0.13

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


class Trend(NamedTuple):
    """A trend planted in one cohort: its members watch one item again and again, nobody else does.

    viewers: rows of the users. item: row of the item. hours: how long ago it began.
    """

    viewers: npt.NDArray[np.intp]
    item: int
    hours: float
    views_per_viewer: float


class Views(NamedTuple):
    """Views before they become events: i64 rows of users and items, and times in ms."""

    user: I64
    item: I64
    ts_ms: I64


class Activity(NamedTuple):
    """events: chronological, duplicates included. duplicates: how many of them repeat an earlier one."""

    events: EventColumns
    duplicates: int


def make_activity(
    rng: np.random.Generator, users: Users, catalog: Catalog, trend: Trend, events: int, anchor_ms: int
) -> Activity:
    """About `events` signals of the two days before `anchor_ms`, in the order of their time."""
    views = _everyday_views(rng, users, catalog, int(events / EVENTS_PER_VIEW), anchor_ms)
    views = _joined(views, _trend_views(rng, trend, anchor_ms))
    interest = users.interests[views.user, catalog.category[views.item]]
    unique = _without_repeats(_signals_of(rng, views, interest), anchor_ms)
    order, duplicates = _with_duplicates(rng, len(unique.ts_ms))
    columns = EventColumns(
        kinds=list(KINDS),
        items=catalog.ids,
        users=users.ids,
        kind=unique.kind[order].astype(np.uint16),
        item=unique.item[order].astype(np.uint32),
        user=unique.user[order].astype(np.uint32),
        weight=to_micro(unique.weight[order]),
        ts_ms=unique.ts_ms[order],
    )
    return Activity(columns, duplicates)


class _Signals(NamedTuple):
    kind: I64
    user: I64
    item: I64
    ts_ms: I64
    weight: F64

    def take(self, rows: npt.NDArray[np.intp]) -> _Signals:
        return _Signals(
            self.kind[rows], self.user[rows], self.item[rows], self.ts_ms[rows], self.weight[rows]
        )


def _everyday_views(
    rng: np.random.Generator, users: Users, catalog: Catalog, count: int, anchor_ms: int
) -> Views:
    user = rng.choice(len(users.activity), size=count, p=users.activity)
    category = (users.interests.cumsum(axis=1)[user] < rng.random(count)[:, None]).sum(axis=1)
    category = np.minimum(category, users.interests.shape[1] - 1)
    item = _item_by_popularity(rng, catalog, category)
    ts_ms = anchor_ms - _age_ms(rng, count)
    after_publication = ts_ms > catalog.created_ms[item]
    return Views(user[after_publication], item[after_publication], ts_ms[after_publication])


def _item_by_popularity(rng: np.random.Generator, catalog: Catalog, category: I64) -> I64:
    """i64[n]: an item of each given category, drawn by popularity; one search over all categories at once."""
    order = np.argsort(catalog.category, kind="stable")
    ends = np.cumsum(catalog.popularity[order])
    before = np.searchsorted(catalog.category[order], np.arange(catalog.category.max() + 1))
    start = np.concatenate([[0.0], ends])[before]
    position = np.searchsorted(ends, start[category] + rng.random(len(category)))
    chosen: I64 = order[np.minimum(position, len(order) - 1)]
    return chosen


def _age_ms(rng: np.random.Generator, count: int) -> I64:
    """i64[n]: ages in (0, two days], denser in the evening of each day and towards the end."""
    minutes = int(ACTIVITY_DAYS * 24 * 60)
    minute = np.arange(minutes)
    density = 1.0 + 0.6 * np.cos(2 * np.pi * minute / (24 * 60)) + 0.3 * (1 - minute / minutes)
    age_minutes = rng.choice(minutes, size=count, p=density / density.sum())
    return age_minutes * 60_000 + rng.integers(1, 60_000, size=count)


def _trend_views(rng: np.random.Generator, trend: Trend, anchor_ms: int) -> Views:
    repeats = 1 + rng.poisson(trend.views_per_viewer - 1, size=len(trend.viewers))
    user = np.repeat(trend.viewers, repeats).astype(np.int64)
    age_ms = (rng.random(len(user)) ** 2 * trend.hours * DAY_MS / 24).astype(np.int64) + 1
    return Views(user, np.full(len(user), trend.item, dtype=np.int64), anchor_ms - age_ms)


def _joined(first: Views, second: Views) -> Views:
    return Views(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))


def _signals_of(rng: np.random.Generator, views: Views, interest: F64) -> _Signals:
    """The views themselves and what follows from them a few seconds later."""
    count = len(views.user)
    chances = {
        LIKE: LIKE_CHANCE[0] + LIKE_CHANCE[1] * interest,
        SKIP: SKIP_CHANCE[0] + SKIP_CHANCE[1] * interest,
        SHARE: np.full(count, SHARE_CHANCE),
        COMPLETION: np.full(count, COMPLETION_CHANCE),
        DWELL_TIME: np.full(count, DWELL_CHANCE),
    }
    parts = [_Signals(np.full(count, VIEW), views.user, views.item, views.ts_ms, np.ones(count))]
    for kind, chance in chances.items():
        rows = np.flatnonzero(rng.random(count) < chance)
        delay_ms = rng.integers(1_000, 120_000, size=len(rows))
        parts.append(
            _Signals(
                np.full(len(rows), kind),
                views.user[rows],
                views.item[rows],
                views.ts_ms[rows] + delay_ms,
                _weights(rng, kind, len(rows)),
            )
        )
    return _Signals(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _weights(rng: np.random.Generator, kind: int, count: int) -> F64:
    if kind == COMPLETION:
        return np.round(rng.beta(4.0, 2.0, size=count), 2)
    if kind == DWELL_TIME:
        return np.round(rng.lognormal(3.5, 0.8, size=count).clip(1.0, 600.0), 1)
    return np.ones(count)


def _without_repeats(signals: _Signals, anchor_ms: int) -> _Signals:
    """In order of time, up to the anchor, one signal of a kind for each user, item and second."""
    signals = signals.take(np.flatnonzero(signals.ts_ms <= anchor_ms))
    second = signals.ts_ms // DEDUP_RESOLUTION_MS
    identity = np.stack([signals.kind, signals.user, signals.item, second])
    _, first = np.unique(identity, axis=1, return_index=True)
    signals = signals.take(first)
    return signals.take(np.lexsort((signals.kind, signals.item, signals.user, signals.ts_ms)))


def _with_duplicates(rng: np.random.Generator, count: int) -> tuple[npt.NDArray[np.intp], int]:
    """Rows to send, in order, and how many of them are sent for the second time."""
    repeated = np.flatnonzero(rng.random(count) < DUPLICATE_SHARE)
    rows = np.concatenate([np.arange(count), repeated])
    sent_at = np.concatenate([np.arange(count), repeated + rng.integers(1, 500, size=len(repeated))])
    return rows[np.argsort(sent_at, kind="stable")], len(repeated)
