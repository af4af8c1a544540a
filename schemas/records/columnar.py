"""The SDK's batch of events: one frame, three dictionaries, five columns.

Content: ``[n u32][flags u32]``, dictionaries kinds, items, users, then the columns kind, item, user, weight,
ts_ms, then request ids and contexts where the flags say so. A hundred events take about 8 bytes each beside
their strings.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.errors import RecordError
from schemas.records.columns import EventColumns
from schemas.records.framing import MAGIC_EVENTS, frame, unframe
from schemas.records.packing import Packer, Unpacker

VERSION: Final = 1
EVENTS_MAX: Final = 1 << 16
"""Events of one record. A group commit is 100; the bound keeps a lying header from asking for gigabytes."""

_REQUEST_IDS: Final = 1
_CONTEXTS: Final = 2


def encode_columnar(columns: EventColumns) -> bytes:
    """The record of ``columns``.

    Raises:
        ValueError: more than 65,536 events, or 4 GiB of strings.
    """
    if len(columns) > EVENTS_MAX:
        raise ValueError(f"{len(columns)} events in one batch, at most {EVENTS_MAX}; send several")
    packer = Packer()
    packer.u32(len(columns))
    packer.u32(_flags(columns))
    for dictionary in (columns.kinds, columns.items, columns.users):
        packer.strings(dictionary)
    for column in (columns.kind, columns.item, columns.user, columns.weight, columns.ts_ms):
        packer.integers(column)
    if columns.request_ids is not None:
        packer.strings(columns.request_ids)
    if columns.contexts is not None:
        packer.blobs(columns.contexts)
    return frame(MAGIC_EVENTS, VERSION, packer.content())


def decode_columnar(value: bytes) -> EventColumns:
    """The columns of a record, safe to index: whatever the bytes are, either they hold or this raises.

    Raises:
        RecordError: ``unsupported_version``, ``truncated_batch`` or ``checksum_mismatch``.
    """
    unpacker = Unpacker(unframe(MAGIC_EVENTS, VERSION, value))
    n = unpacker.u32("count", EVENTS_MAX)
    flags = unpacker.u32("flags", _REQUEST_IDS | _CONTEXTS)
    kinds, items, users = (unpacker.strings(what) for what in ("kinds", "items", "users"))
    kind = unpacker.indexes(n, min(len(kinds), 2**16), "kind")
    item = unpacker.indexes(n, len(items), "item")
    user = unpacker.indexes(n, len(users), "user")
    weight = unpacker.integers(n, "weight")
    ts_ms = unpacker.integers(n, "ts")
    request_ids = unpacker.strings("request_ids") if flags & _REQUEST_IDS else None
    contexts = unpacker.blobs("contexts") if flags & _CONTEXTS else None
    unpacker.done()
    for what, column in (("request_ids", request_ids), ("contexts", contexts)):
        if column is not None and len(column) != n:
            raise RecordError("truncated_batch", what, f"{len(column)} entries for {n} events")
    return EventColumns(
        kinds=kinds,
        items=items,
        users=users,
        kind=kind.astype(np.uint16),
        item=item.astype(np.uint32),
        user=user.astype(np.uint32),
        weight=weight,
        ts_ms=ts_ms,
        request_ids=request_ids,
        contexts=contexts,
    )


def _flags(columns: EventColumns) -> int:
    return (_REQUEST_IDS if columns.request_ids is not None else 0) | (
        _CONTEXTS if columns.contexts is not None else 0
    )
