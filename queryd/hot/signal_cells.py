"""The cells of one signal at one scope: minutes, hours, spans of eight closed hours, and an archive.

Hours that are over are merged, a slice at a time, into spans of eight: a sum over a day then looks up the
profiles of a cohort some eight times and not 24, and eight hours share an index. What comes late for an hour
in a span stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from queryd.hot.arrays import Mask
from queryd.hot.buckets import Bucket
from queryd.hot.cells import Cells
from queryd.hot.profile_index import Selection
from queryd.hot.run_merging import merging
from queryd.hot.runs import SPAN_HOURS, SPAN_ITEMS_MAX, Run
from queryd.hot.standing import Gathered
from queryd.hot.windows import ALL_TIME, BucketRange
from schemas.durations import HOUR_MS

SLICE_CELLS: Final = 32_768
"""Cells merged between two chances for queries to run: about 3 ms."""
_SHARE_CELLS: Final = 1_024  # tell a share of a half to three hundredths
_GROWTH: Final = 2  # a span is merged again when half as many cells wait beside it
_LATE_SHARE: Final = 16  # and when its hours are over, for a sixteenth
_ALIKE: Final = 2  # runs of the archive are merged when neither is more than twice as large


@dataclass(frozen=True, slots=True)
class Piece:
    """Cells of one signal that fell into the bucket of ``length_ms`` that begins at ``start_ms``."""

    start_ms: int
    length_ms: int
    cells: Cells


class SignalCells:
    """Buckets by number since 1970; ``archive`` holds what is older than the hot hours, without its time."""

    def __init__(self) -> None:
        self.hours: dict[int, Bucket] = {}
        self.minutes: dict[int, Bucket] = {}
        self.spans: dict[int, Run] = {}
        self.archive = Bucket()

    def __len__(self) -> int:
        return sum(map(len, self._buckets())) + sum(map(len, self.spans.values()))

    @property
    def nbytes(self) -> int:
        """Bytes of all cells and indexes."""
        buckets = sum(bucket.nbytes for bucket in self._buckets())
        return buckets + sum(run.nbytes for run in self.spans.values())

    def gather(self, wanted: BucketRange, chosen: Selection | None) -> Gathered:
        """The allowed cells of a range; of ``ALL_TIME`` with the archive."""
        gathered = Gathered()
        for run, hours in self._runs(wanted):
            gathered.add_run(run, chosen, hours)
        for bucket in self._chosen(wanted).values():
            for cells in bucket.tail:
                gathered.add_cells(cells.allowed(None if chosen is None else chosen.mask))
        return gathered

    def within(self, wanted: BucketRange) -> int:
        """At most so many cells lie in a range; spans that it cuts count whole."""
        tails = sum(len(cells) for bucket in self._chosen(wanted).values() for cells in bucket.tail)
        return tails + sum(len(run) for run, _ in self._runs(wanted))

    def matching(self, wanted: BucketRange, chosen: Selection | None) -> int:
        """Cells of a range that a sum for ``chosen`` reads."""
        count = sum(run.matching(chosen) for run, _ in self._runs(wanted))
        for bucket in self._chosen(wanted).values():
            for cells in bucket.tail:
                count += len(cells.allowed(None if chosen is None else chosen.mask))
        return count

    def share(self, wanted: BucketRange, chosen: Selection) -> float:
        """About what share of the cells of a range a sum for ``chosen`` reads."""
        sampled = self.sample(wanted, _SHARE_CELLS)
        allowed = sum(len(cells.allowed(chosen.mask)) for cells in sampled)
        return allowed / max(1, sum(map(len, sampled)))

    def pieces(self, wanted: BucketRange, chosen: Selection | None) -> list[Piece]:
        """The allowed cells by bucket; those of the archive, in ``ALL_TIME``, as of bucket 0."""
        unit_ms = wanted.unit_ms
        found = [
            Piece(number * unit_ms, unit_ms, cells)
            for number, bucket in self._chosen(wanted).items()
            for cells in bucket.select(chosen)
        ]
        for first, run, (low, high) in self._spans(wanted):
            rows = run.rows(chosen)
            hours = run.hours(rows)
            for hour in range(low, high + 1):
                inside = np.flatnonzero(hours == hour)
                if len(inside):
                    cells = run.cells(inside if rows is None else rows.take(inside))
                    found.append(Piece((first + hour) * HOUR_MS, HOUR_MS, cells))
        return found

    def sample(self, wanted: BucketRange, cells_max: int) -> list[Cells]:
        """About ``cells_max`` cells with their profiles, every so many-th of a range; all of fewer."""
        step = -(-self.within(wanted) // cells_max) or 1
        found = []
        for run, hours in self._runs(wanted):
            rows = np.arange(step // 2, len(run), step)
            if hours is not None:
                since = run.hours(rows)
                rows = rows[(since >= hours[0]) & (since <= hours[1])]
            found.append(run.cells(rows))
        for bucket in self._chosen(wanted).values():
            found += [cells.take(np.arange(step // 2, len(cells), step)) for cells in bucket.tail]
        return [cells for cells in found if len(cells)]

    def totals(self, wanted: BucketRange, chosen: Selection | None, items: Mask) -> tuple[int, int]:
        """(count, sum in micro-units) of the items marked in bool[items]."""
        count = total = 0
        for run, hours in self._runs(wanted):
            reading = run.read(chosen, hours)
            inside = np.flatnonzero(items.take(reading.items)).astype(np.int64)
            if len(inside):
                rows = reading.rows
                cells = run.bare_cells(inside if rows is None else rows.take(inside))
                count += int(cells.count.sum())
                total += int(cells.sum.sum())
        for bucket in self._chosen(wanted).values():
            for cells in bucket.tail:
                allowed = cells.allowed(None if chosen is None else chosen.mask)
                marked = items[allowed.item]
                count += int(allowed.count[marked].sum())
                total += int(allowed.sum[marked].sum())
        return count, total

    def expire(self, horizon_hour: int, horizon_minute: int) -> None:
        """Move hours before the horizon into the archive (a span when all of it is), forget minutes."""
        for hour in [hour for hour in self.hours if hour < horizon_hour]:
            bucket = self.hours.pop(hour)
            bucket.seal()
            self.archive.adopt([run.untimed() for run in bucket.runs])
        for first in [first for first in self.spans if first + SPAN_HOURS <= horizon_hour]:
            self.archive.adopt([self.spans.pop(first).untimed()])
        for minute in [minute for minute in self.minutes if minute < horizon_minute]:
            del self.minutes[minute]

    def drop_items(self, dropped: Mask) -> None:
        """Forget the cells of the items that bool[items] marks."""
        for bucket in self._buckets():
            bucket.drop_items(dropped)
        for first, run in list(self.spans.items()):
            self.spans[first] = run.without(dropped)

    def tidy(self, hour: int, minute: int, items: int) -> Iterator[None]:
        """Make what is over smaller and faster to read, in steps of a few ms; no count changes.

        Args:
            hour: the present one. minute: the present one. items: how many there are.
        """
        for number in [number for number in self.minutes if number < minute]:
            bucket = self.minutes.get(number)
            if bucket is not None and bucket.tail:
                bucket.seal()
                yield
        if items < SPAN_ITEMS_MAX:
            for group in sorted({number // SPAN_HOURS for number in self.hours if number < hour}):
                yield from self._make_span(group * SPAN_HOURS, hour)
        yield from self._merge_archive()

    def _make_span(self, first: int, now: int) -> Iterator[None]:
        """Merge the hours of a span that are over; while it grows, rarely enough that a cell moves thrice."""
        end = min(first + SPAN_HOURS, now)
        buckets = {hour: self.hours[hour] for hour in range(first, end) if hour in self.hours}
        if not buckets:  # dropped or expired since the span was chosen
            return
        span = self.spans.get(first)
        share = _GROWTH if end == now else _LATE_SHARE
        if span is not None and sum(map(len, buckets.values())) * share < len(span):
            return
        taken: dict[int, list[Run]] = {}
        for hour, bucket in buckets.items():
            bucket.seal()
            taken[hour] = list(bucket.runs)
            yield
        runs = [(run, hour) for hour, runs in taken.items() for run in runs]
        if not runs:  # all items of these hours were dropped
            return
        if span is not None:
            runs.append((span, first))
        merged = yield from merging([run for run, _ in runs], SLICE_CELLS, [hour for _, hour in runs])
        # What has changed meanwhile (late events, dropped items, expiry) makes the work void until next time.
        same = all(
            self.hours.get(hour) is bucket and bucket.has(taken[hour]) for hour, bucket in buckets.items()
        )
        if same and self.spans.get(first) is span:
            for hour, bucket in buckets.items():
                bucket.remove(taken[hour])
                if not len(bucket):
                    del self.hours[hour]
            self.spans[first] = merged

    def _merge_archive(self) -> Iterator[None]:
        """Merge runs of like size, so that there are few of them and their indexes are shared."""
        while True:
            runs = sorted(self.archive.runs, key=len)
            pair = next(
                (pair for pair in pairwise(runs) if len(pair[1]) <= _ALIKE * len(pair[0])),
                None,
            )
            if pair is None:
                return
            merged = yield from merging(pair, SLICE_CELLS)
            if not self.archive.has(pair):
                return
            self.archive.remove(pair)
            self.archive.adopt([merged])

    def _buckets(self) -> Sequence[Bucket]:
        return (*self.hours.values(), *self.minutes.values(), self.archive)

    def _chosen(self, wanted: BucketRange) -> dict[int, Bucket]:
        """Buckets of a range with their numbers; for all time all of them, the archive under 0."""
        held = self.minutes if wanted.minutes else self.hours
        if wanted.low == ALL_TIME.low:
            return {0: self.archive, **held}
        return {number: bucket for number, bucket in held.items() if wanted.low <= number <= wanted.high}

    def _spans(self, wanted: BucketRange) -> Iterator[tuple[int, Run, tuple[int, int]]]:
        """First hour of each span that a range touches, its run, and its first and last hour inside."""
        if wanted.minutes:
            return
        for first, run in self.spans.items():
            low, high = max(wanted.low, first), min(wanted.high, first + SPAN_HOURS - 1)
            if low <= high:
                yield first, run, (low - first, high - first)

    def _runs(self, wanted: BucketRange) -> Iterator[tuple[Run, tuple[int, int] | None]]:
        """The sealed cells of a range; with the hours wanted of those that are spans."""
        for bucket in self._chosen(wanted).values():
            for run in bucket.runs:
                yield run, None
        for _, run, hours in self._spans(wanted):
            yield run, hours
