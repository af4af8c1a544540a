"""How long each partition stood still around each blow, from the times of re-keyed records in the log."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from schemas.records.rekeyed import decode_rekeyed
from streams.topics import BY_ITEM
from tests.crash.log_reading import read_topics

WATCHED_MS = 15_000


@dataclass(frozen=True)
class Moment:
    """A blow, and the partitions whose worker it did not touch."""

    name: str
    at_ms: int
    others: frozenset[int]


def standstills_ms(bootstrap: str, moments: list[Moment]) -> dict[str, int]:
    """For each blow the longest pause, in ms, of any partition of the workers that it did not touch."""
    forwarded: dict[int, list[int]] = defaultdict(list)
    for record in read_topics(bootstrap, [BY_ITEM]):
        through = decode_rekeyed(record.value or b"").through if not record.type else ()
        for partition in through:
            forwarded[partition].append(record.timestamp_ms)
    return {
        f"{moment.name} at {moment.at_ms}": max(
            (_longest(sorted(forwarded[partition]), moment.at_ms) for partition in moment.others), default=0
        )
        for moment in moments
    }


def _longest(times_ms: list[int], at_ms: int) -> int:
    near = [time_ms for time_ms in times_ms if at_ms - 1_000 <= time_ms <= at_ms + WATCHED_MS]
    return max((later - earlier for earlier, later in pairwise(near)), default=0)
