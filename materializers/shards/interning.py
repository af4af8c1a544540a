"""From decoded columns to events: strings become wids, and an id whose EntityId another id has is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from materializers.interner import IdCollisionError, Interner
from materializers.shards.context import WorkerContext
from materializers.shards.events import Events
from schemas.records.columns import EventColumns

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
Refuse = Callable[[int, IdCollisionError], None]
"""Takes the position of the event that is refused, and why."""


def intern_events(
    context: WorkerContext, columns: EventColumns, offset: I64, record_ts_ms: I64, refuse: Refuse
) -> tuple[Events, I64 | None]:
    """The events that are not refused, and their positions in ``columns`` (None = all of them).

    Args:
        columns: n events of kinds that the schema has.
        offset: i64[n], of each event's record. record_ts_ms: i64[n], the log's time of it.
    """
    index = context.schema.signal_index
    signal_of_kind = np.array([index[kind] for kind in columns.kinds], dtype=np.uint16)
    item_wids, items_refused = intern_all(context.items, columns.items)
    user_wids, users_refused = intern_all(context.users, columns.users)
    events = Events(
        item=item_wids[columns.item],
        user=user_wids[columns.user],
        signal=signal_of_kind[columns.kind],
        weight=columns.weight,
        ts_ms=columns.ts_ms,
        record_ts_ms=record_ts_ms,
        offset=offset,
    )
    if not items_refused and not users_refused:
        return events, None
    bad_items = np.array([name in items_refused for name in columns.items], dtype=bool)
    bad_users = np.array([name in users_refused for name in columns.users], dtype=bool)
    bad = bad_items[columns.item] | bad_users[columns.user]
    for row in np.flatnonzero(bad).tolist():
        name = columns.items[columns.item[row]]
        refuse(row, items_refused.get(name) or users_refused[columns.users[columns.user[row]]])
    kept = np.flatnonzero(~bad)
    return events.take(kept), kept


def intern_all(interner: Interner, strings: Sequence[str]) -> tuple[U32, dict[str, IdCollisionError]]:
    """Wids of all strings, 0 for those that are refused, and those."""
    try:
        return interner.ids(strings), {}
    except IdCollisionError:
        refused = {collision.refused: collision for collision in interner.collisions(strings)}
        return interner.ids(["" if name in refused else name for name in strings]), refused
