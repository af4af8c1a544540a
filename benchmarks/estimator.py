"""How far estimates of a cohort's counts are from the truth, and whether the stated bound covers it.

    python -m benchmarks.estimator [--short] [--events 4000000] [--items 500]

A population of users has ten dimensions whose values are cut from correlated normal variables (a Gaussian
copula of three common factors); ``strength`` is the share of variance that the common factors explain. Items
draw their audiences along the same factors, each in its own direction. For random composites of three and
four dimensions with AND, OR and NOT, the counts of all items are estimated and held against the exact ones:

* independence: count(A)·count(B)/count(all) of each item, no more;
* ipf, from ones: fitted to the two-way counters of each item;
* ipf, served: the same, begun with the pooled joint of a sample of 131,072 events, with its bound;
* singles, served: begun likewise and fitted to the counters of single classes, what queryd answers while
  two-way counters are being made (``independence`` in the reply);
* shares, served: the pooled joint alone, what queryd answers when nothing of the cohort is kept yet.

Relative errors are those of the 200 items with the highest true counts; bounds are checked on all items with
an estimate. The second table says what each way of answering costs (``benchmarks.estimator_speed``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Final

import numpy as np

from benchmarks.estimator_speed import speeds
from benchmarks.results import Result, parser, report
from queryd.estimate.classes import Table, reduced
from queryd.estimate.counts import CountEstimate, estimated, known_of
from queryd.estimate.fitting import Margin, independence, ipf
from queryd.estimate.sampling import SAMPLE_CELLS, Sample
from queryd.hot.arrays import F64, I64, U32
from queryd.hot.profiles import ProfileTable
from schemas.cohort_profile import encode_profile
from schemas.predicate import Predicate, parse_predicate

STRENGTHS: Final = (0.0, 0.3, 0.6, 0.9)
VALUES: Final = (2, 2, 3, 3, 4, 4, 5, 6, 8, 10)
FACTORS: Final = 3
USERS: Final = 40_000
TASTE: Final = 0.4
"""Length of an item's direction along the factors: its audience differs from everybody's by so much."""
HEAD: Final = 200
TOP: Final = 50
SHAPES: Final = (
    "{0} AND {1} AND {2}",
    "{0} AND {1} AND NOT {2}",
    "({0} OR {1}) AND {2}",
    "{0} AND NOT ({1} AND {2})",
    "{0} AND {1} AND {2} AND {3}",
    "({0} OR {1}) AND ({2} OR {3})",
    "{0} AND {1} AND NOT {2} AND NOT {3}",
)
SERVED: Final = ("ipf, served", "singles, served", "shares, served")
ERROR_MAX: Final = 0.05
COVERAGE_MIN: Final = 0.95


@dataclass(frozen=True)
class Site:
    """Events as columns: item and profile of each."""

    items: int
    item: I64
    profile: U32
    profiles: ProfileTable


def _part(sample: F64, asked: I64) -> Sample:
    return Sample(sample.sum(axis=1), sample[:, asked])


@dataclass
class Score:
    """What one estimator achieved over composites."""

    errors: list[float] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    bounds: list[float] = field(default_factory=list)
    held: int = 0
    bounded: int = 0

    def add(self, truth: F64, estimate: F64) -> None:
        head = np.argsort(-truth, kind="stable")[:HEAD]
        head = head[truth[head] > 0]
        self.errors += np.abs(estimate[head] / truth[head] - 1.0).tolist()
        best = [set(np.argsort(-each, kind="stable")[:TOP].tolist()) for each in (truth, estimate)]
        self.overlaps.append(len(best[0] & best[1]) / TOP)

    def cover(self, truth: F64, served: CountEstimate) -> None:
        """Count the items whose true count lies within the stated bound."""
        some = np.flatnonzero(served.counts > 0).astype(np.uint32)
        bound = served.relative_bounds(some)
        missed = np.abs(truth[some] - served.counts[some]) > bound * served.counts[some]
        self.held += int((~missed).sum())
        self.bounded += len(some)
        self.bounds += bound[np.argsort(-truth[some], kind="stable")[:HEAD]].tolist()


def site(chance: np.random.Generator, strength: float, items: int, events: int) -> Site:
    """Users with correlated attributes, and events on Zipf-distributed items with tastes."""
    common = chance.standard_normal((USERS, FACTORS))
    loads = chance.standard_normal((len(VALUES), FACTORS))
    loads /= np.linalg.norm(loads, axis=1, keepdims=True)
    own = chance.standard_normal((USERS, len(VALUES)))
    latent = np.sqrt(strength) * common @ loads.T + np.sqrt(1 - strength) * own
    profiles = ProfileTable()
    labels = np.stack([_cut(latent[:, place], count) for place, count in enumerate(VALUES)], axis=1)
    of_user = profiles.deal(
        [encode_profile({f"d{place}": f"v{value}" for place, value in enumerate(row)}) for row in labels]
    )
    shares = 1.0 / np.arange(1, items + 1) ** 0.8
    item = np.repeat(np.arange(items), chance.multinomial(events, shares / shares.sum()))
    taste = chance.standard_normal((items, FACTORS)) * TASTE
    return Site(items, item, of_user[_audience(chance, item, taste, common)], profiles)


def _cut(column: F64, values: int) -> I64:
    """Values of Zipf-like shares."""
    shares = 1.0 / np.arange(1, values + 1)
    edges = np.quantile(column, np.cumsum(shares / shares.sum())[:-1])
    return np.searchsorted(edges, column)


def _audience(chance: np.random.Generator, item: I64, taste: F64, common: F64) -> I64:
    """A user for each event, with a chance that grows with exp(taste · factors)."""
    user = np.empty(len(item), dtype=np.int64)
    for number, (begin, end) in enumerate(_stretches(item)):
        weight = np.cumsum(np.exp(common @ taste[number]))
        user[begin:end] = np.searchsorted(weight, chance.random(end - begin) * weight[-1])
    return user


def _stretches(item: I64) -> Iterator[tuple[int, int]]:
    edges = np.searchsorted(item, np.arange(item[-1] + 2))
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


def composites(chance: np.random.Generator, number: int) -> Iterator[Predicate]:
    """Random composites of frequent values: narrow ones never exceed a budget."""
    for place in range(number):
        dimensions = chance.choice(len(VALUES), 4, replace=False)
        leaves = [f"d{each}:v{chance.integers(0, min(2, VALUES[each]))}" for each in dimensions]
        yield parse_predicate(SHAPES[place % len(SHAPES)].format(*leaves))


def joint_of(made: Site, table: Table, rows: I64 | None = None) -> F64:
    """The true joint of every item, f64[*shape, items], of all events or of those at ``rows``."""
    codes = table.codes(made.profiles)
    item, profile = (made.item, made.profile) if rows is None else (made.item[rows], made.profile[rows])
    counts = np.bincount(
        codes[profile].astype(np.int64) * made.items + item, minlength=table.allowed.size * made.items
    )
    return counts.reshape(*table.shape, made.items).astype(np.float64)


def margin(joint: F64, axes: tuple[int, ...]) -> Margin:
    """A margin of true joints."""
    return Margin(axes, joint.sum(axis=tuple(axis for axis in range(joint.ndim - 1) if axis not in axes)))


def measured(chance: np.random.Generator, made: Site, number: int) -> dict[str, Score]:
    """Every estimator on ``number`` composites."""
    scores = {name: Score() for name in ("independence", "ipf, from ones", *SERVED)}
    rows = chance.choice(len(made.item), min(SAMPLE_CELLS, len(made.item) // 4), replace=False)
    for predicate in composites(chance, number):
        table = reduced(predicate, made.profiles)
        joint = joint_of(made, table)
        truth = joint[table.allowed].sum(axis=0)
        total = joint.sum(axis=tuple(range(len(table.shape))))
        pairs = [margin(joint, axes) for axes in combinations(range(len(table.shape)), 2)]
        singles = [margin(joint, (axis,)).target for axis in range(len(table.shape))]
        ones = np.ones((*table.shape, 1))
        scores["independence"].add(truth, independence(total, singles)[table.allowed].sum(axis=0))
        scores["ipf, from ones"].add(truth, ipf(ones, pairs)[table.allowed].sum(axis=0))
        sample = joint_of(made, table, rows).reshape(table.allowed.size, -1)
        alone = [Margin((axis,), single) for axis, single in enumerate(singles)]
        for name, margins in zip(SERVED, (pairs, alone, []), strict=True):
            served = estimated(table, known_of(table, total, margins), partial(_part, sample))
            scores[name].add(truth, served.counts)
            scores[name].cover(truth, served)
    return scores


def main() -> int:
    """Prints the tables; the exit code is 1 when a goal is missed."""
    arguments = parser("estimator", __doc__)
    arguments.add_argument("--events", type=int, default=4_000_000)
    arguments.add_argument("--items", type=int, default=500)
    chosen = arguments.parse_args()
    events = chosen.events // 4 if chosen.short else chosen.events
    items = chosen.items // 4 if chosen.short else chosen.items
    number = len(SHAPES) if chosen.short else 3 * len(SHAPES)
    began = time.perf_counter()
    rows, worst_error, worst_coverage = [], 0.0, 1.0
    for strength in STRENGTHS:
        chance = np.random.default_rng(int(strength * 100) + 1)
        scores = measured(chance, site(chance, strength, items, events), number)
        for name, score in scores.items():
            row: dict[str, object] = {
                "strength": strength,
                "estimator": name,
                "median error %": 100 * float(np.median(score.errors)),
                "p95 error %": 100 * float(np.quantile(score.errors, 0.95)),
                "top-50 overlap %": 100 * float(np.mean(score.overlaps)),
            }
            if score.bounded:
                coverage = score.held / score.bounded
                row |= {"covered %": 100 * coverage, "median bound %": 100 * float(np.median(score.bounds))}
                worst_coverage = min(worst_coverage, coverage)
            rows.append(row)
        worst_error = max(worst_error, float(np.median(scores[SERVED[0]].errors)))
    notes = [
        _verdict(worst_error <= ERROR_MAX, f"median error of ipf ≤ 5 %: {100 * worst_error:.2f} %"),
        _verdict(worst_coverage >= COVERAGE_MIN, f"bounds cover ≥ 95 %: {100 * worst_coverage:.2f} %"),
        f"took {time.perf_counter() - began:.0f} s",
    ]
    command = f"python -m benchmarks.estimator --events {chosen.events} --items {chosen.items}"
    report(Result("Estimated cohorts", command + " --short" * chosen.short, rows, notes), chosen.json)
    report(speeds(short=chosen.short), None)
    return 0 if worst_error <= ERROR_MAX and worst_coverage >= COVERAGE_MIN else 1


def _verdict(holds: bool, what: str) -> str:
    return f"{'HOLDS' if holds else 'MISSED'} {what}"


if __name__ == "__main__":
    sys.exit(main())
