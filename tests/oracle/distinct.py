"""Distinct users, counted by putting them into a set."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection

from tests.oracle.fold import WINDOWS, CleanFold


def distinct_users(
    clean: CleanFold,
    items: Collection[str],
    signal: str,
    window: str,
    at_ms: int,
    is_member: Callable[[dict[str, str]], bool] = lambda profile: True,
) -> int:
    """Users who sent the signal about any of the items in the window, as members at event time."""
    bucket_ms, buckets = WINDOWS[window]
    current = at_ms // bucket_ms
    return len(
        {
            event.user
            for event in clean.events
            if event.user
            and event.kind == signal
            and event.item in items
            and current - buckets < event.ts_ms // bucket_ms <= current
            and is_member(json.loads(event.profile))
        }
    )
