"""A comparison of two cohorts as a table."""

from __future__ import annotations

from queryd.reply import CohortComparison, ComparedItem
from tidal.cli.output import print_table, say
from tidal.cli.times import time_text


def print_comparison(reply: CohortComparison) -> None:
    """Items on stdout, what they were counted from on stderr."""
    for warning in reply.warnings:
        say(f"warning: {warning}")
    between = f"{reply.confidence:.0%} between"
    columns = ["rank", "id", "lift", between, "count a", "count b", "rate a", "rate b"]
    print_table("", columns, [_row(item) for item in reply.results])
    for side, cohort in (("a", reply.a), ("b", reply.b)):
        say(f"{side}: {cohort.cohort} · {cohort.users:,} users · {cohort.events:,} {reply.signal}")
    say(
        f"{len(reply.results)} of {reply.items_compared:,} items by {reply.signal} in {reply.window} at "
        f"{time_text(reply.at)} · {reply.estimator} · {reply.items_left_out:,} with fewer than "
        f"{reply.min_count:,} events left out"
    )


def _row(item: ComparedItem) -> list[object]:
    interval = f"{item.lift_low:.3g} – {item.lift_high:.3g}"
    rates = f"{item.rate_a:.3%}", f"{item.rate_b:.3%}"
    return [item.rank, item.id, f"{item.lift:.3g}", interval, item.count_a, item.count_b, *rates]
